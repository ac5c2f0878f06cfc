package directory

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

// A service records what it is asked, octet by octet, and answers with what it is told to.
type service struct {
	listener net.Listener
	asked    chan string // one request each

	mu     sync.Mutex
	answer func(request string) string
	conns  []net.Conn
	taken  int
	hold   bool // keep connections open for as long as the other side does
	wg     sync.WaitGroup
}

// newService starts a service, with TLS if t is not nil. It ends with the test.
func newService(tb testing.TB, t *tls.Config, answer func(request string) string) *service {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if t != nil {
		l = tls.NewListener(l, t)
	}
	s := &service{listener: l, asked: make(chan string, 100), answer: answer}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.taken++
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c) })
		}
	})
	tb.Cleanup(func() {
		l.Close()
		s.cut()
		s.wg.Wait()
	})
	return s
}

// cut ends all connections.
func (s *service) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.Close()
	}
}

// connections is how many there were so far.
func (s *service) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// will changes what it answers.
func (s *service) will(answer func(request string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *service) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		var raw bytes.Buffer
		length := 0
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			raw.WriteString(line)
			_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
			if line == "\r\n" {
				break
			}
		}
		if _, err := io.CopyN(&raw, r, int64(length)); err != nil {
			return
		}
		request := raw.String()
		s.mu.Lock()
		answer, hold := s.answer, s.hold
		s.mu.Unlock()
		s.asked <- request
		if _, err := io.WriteString(c, answer(request)); err != nil || !hold && strings.Contains(request, "HTTP/1.0") || strings.Contains(request, "Connection: close") {
			return
		}
	}
}

// saying is a service's answer with headers.
func saying(headers ...string) func(string) string {
	return func(string) string {
		return "HTTP/1.0 200 OK\r\nServer: test\r\n" + strings.Join(headers, "\r\n") + "\r\n\r\n"
	}
}

// answering is a service's answer with a status and a body.
func answering(status int, body string, headers ...string) func(string) string {
	return func(string) string {
		return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Length: %d\r\n%s\r\n%s", status, http.StatusText(status), len(body), strings.Join(append(headers, ""), "\r\n"), body)
	}
}

// openHTTP makes the source of a valid section.
func openHTTP(t testing.TB, c HTTPConfig) Opened {
	t.Helper()
	c.validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	o, err := newHTTP("service", c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func nginxForm(s *service) HTTPConfig {
	c := defaultHTTP()
	c.URL = "http://" + s.listener.Addr().String() + "/auth"
	return c
}

func jsonForm(s *service) HTTPConfig {
	c := nginxForm(s)
	c.Format = formatJSON
	return c
}

// asks is a query of somebody with a password.
func asks(t testing.TB, user, secret string) *auth.Query {
	t.Helper()
	name, err := auth.NameRules{}.Parse([]byte(user))
	if err != nil {
		t.Fatalf("%q: %v", user, err)
	}
	q := &auth.Query{Name: name, Mechanism: auth.Plain, Attempt: 1, Session: "s1"}
	q.Client = &auth.Client{Addr: netip.MustParseAddrPort("192.0.2.7:50123"), Local: netip.MustParseAddrPort("198.51.100.1:995"), Listener: "pop3s"}
	if secret != "" {
		q.Secret = auth.NewSecret([]byte(secret))
	}
	return q
}

const testPassword = "pa%ss +\"w\u00f6rd=\x7f"

// TestNginxRequest holds a question to WIRE.md 2.1. httpnginx_test.go has nginx itself beside it.
func TestNginxRequest(t *testing.T) {
	s := newService(t, nil, saying("Auth-Status: no"))
	c := nginxForm(s)
	c.URL += "?a=b%20c"
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte("first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Headers = []HTTPHeader{{Name: "X-auth-KEY", ValueFile: secret}, {Name: "X-Other", Value: "a b"}}
	o := openHTTP(t, c)
	if want := VaryUser | VaryClient | VarySNI | VaryListener | VarySecret; o.Vary != want {
		t.Errorf("Vary = %b, want %b", o.Vary, want)
	}
	q := asks(t, "Al%ice+x@Example.org", testPassword)
	q.Attempt = 3
	q.Client.TLS = &auth.TLS{Version: "TLS 1.2", Cipher: "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", Subject: "CN=a", Issuer: "CN=b", Serial: "0F", Fingerprint: "ab"}
	q.Client.Proxied = true
	_, err := o.Lookup(t.Context(), q)
	if !errors.Is(err, auth.ErrWrongPassword) || !strings.Contains(err.Error(), `"no"`) {
		t.Errorf("Lookup = %v", err)
	}
	want := strings.ReplaceAll(`GET /auth?a=b%20c HTTP/1.0
Host: 127.0.0.1
Auth-Method: plain
Auth-User: Al%25ice+x@Example.org
Auth-Pass: pa%25ss%20+"wörd=`+"\x7f"+`
Auth-Protocol: pop3
Auth-Login-Attempt: 3
Client-IP: 192.0.2.7
Proxy-Protocol-Addr: 192.0.2.7
Proxy-Protocol-Port: 50123
Proxy-Protocol-Server-Addr: 198.51.100.1
Proxy-Protocol-Server-Port: 995
Auth-SSL: on
Auth-SSL-Protocol: TLSv1.2
Auth-SSL-Cipher: ECDHE-RSA-AES128-SHA256
Auth-SSL-Verify: SUCCESS
Auth-SSL-Subject: CN=a
Auth-SSL-Issuer: CN=b
Auth-SSL-Serial: 0F
Auth-SSL-Fingerprint: ab
X-auth-KEY: first
X-Other: a b

`, "\n", "\r\n")
	if got := <-s.asked; got != want {
		t.Errorf("asked\n%q, want\n%q", got, want)
	}

	// The shared secret changes while we run, and then goes.
	if err := os.WriteFile(secret, []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _ = o.Lookup(t.Context(), q)
	if got := <-s.asked; !strings.Contains(got, "X-auth-KEY: second\r\n") {
		t.Errorf("asked %q", got)
	}
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Lookup(t.Context(), q); err == nil || errors.Is(err, auth.ErrWrongPassword) || len(s.asked) > 0 {
		t.Errorf("without the file: %v, and %d questions", err, len(s.asked))
	}
}

func TestNginxWithoutPassword(t *testing.T) {
	s := newService(t, nil, saying("Auth-Status: OK", "Auth-Server: 10.0.0.5", "Auth-Port: 110"))
	o := openHTTP(t, nginxForm(s))
	if _, err := o.Lookup(t.Context(), asks(t, "alice", "")); !errors.Is(err, errUnasked) || len(s.asked) > 0 {
		t.Errorf("Lookup = %v, and %d questions", err, len(s.asked))
	}
}

// TestEmptyPassword logs in with none, as anybody can: the service is not asked, nobody is let in, and the source is not down for it.
func TestEmptyPassword(t *testing.T) {
	s := newService(t, nil, answering(200, `{"verified":true,"backend":"new"}`, "Auth-Status: OK", "Auth-Server: 10.0.0.5", "Auth-Port: 110"))
	checked := jsonForm(s)
	checked.SendPassword = true
	for _, c := range []HTTPConfig{nginxForm(s), checked} {
		o := openHTTP(t, c)
		d := cacheOver(t, o.Source, o.Vary)
		for i := range 2 * brokenAfter {
			q := asks(t, fmt.Sprintf("user%d@example.org", i), "")
			q.Secret = auth.NewSecret(nil)
			if got, err := d.Lookup(t.Context(), q); !errors.Is(err, auth.ErrWrongPassword) || got.Verified {
				t.Errorf("%s: Lookup = %v, %v", c.Format, got, err)
			}
		}
		if err := d.Trouble(); err != nil || len(s.asked) > 0 {
			t.Errorf("%s: trouble %v, %d questions", c.Format, err, len(s.asked))
		}
	}
}

func TestNginxAnswer(t *testing.T) {
	ok := []string{"Auth-Status: OK", "Auth-Server: 10.0.0.5", "Auth-Port: 110"}
	with := func(more ...string) []string { return append(ok[:3:3], more...) }
	for _, tt := range []struct {
		headers []string
		names   bool // host_names
		want    Answer
		err     string // "" for none
	}{
		{headers: ok, want: Answer{Server: "10.0.0.5:110"}},
		{headers: []string{"AUTH-status:  OK ", "auth-server: 2001:db8::5", "auth-PORT: 0110", "Unknown: x"}, want: Answer{Server: "[2001:db8::5]:110"}},
		{headers: with("Auth-User: bob@old.example", "Auth-Pass: se cret"), want: Answer{Server: "10.0.0.5:110", User: "bob@old.example", Secret: "se cret"}},
		{headers: with("Auth-Server: 10.0.0.5"), want: Answer{Server: "10.0.0.5:110"}},
		{headers: with("Auth-Server: 10.0.0.6"), err: "different values"},
		{headers: with("Auth-Status: Invalid"), err: "different values"},
		{headers: with("Auth-User: bob\rDELE 1"), err: "not HTTP"},
		{headers: with("Auth-Pass: x\x00y"), err: "not HTTP"},
		{headers: with("Auth-User: a\x7fb"), err: "not HTTP"},
		{headers: ok[:2], err: "no Auth-Server or no Auth-Port"},
		{headers: []string{"Auth-Status: OK"}, err: "no Auth-Server or no Auth-Port"},
		{headers: ok[1:], err: "no Auth-Status"},
		{headers: []string{"Auth-Status: ", ok[1], ok[2]}, err: "no Auth-Status"},
		{headers: []string{ok[0], ok[1], "Auth-Port: 0"}, err: "Auth-Port"},
		{headers: []string{ok[0], ok[1], "Auth-Port: 65536"}, err: "Auth-Port"},
		{headers: []string{ok[0], ok[1], "Auth-Port: 110x"}, err: "Auth-Port"},
		{headers: []string{ok[0], "Auth-Server: unix:/run/x", ok[2]}, names: true, err: "socket"},
		{headers: []string{ok[0], "Auth-Server: mail.example.org", ok[2]}, err: "host_names: true"},
		{headers: []string{ok[0], "Auth-Server: mail.example.org", ok[2]}, names: true, want: Answer{Server: "mail.example.org:110"}},
		{headers: []string{"Auth-Status: Invalid login or password", "Auth-Wait: 3"}, want: Answer{Wait: 3 * time.Second}, err: "wrong password: the service says \"Invalid login or password\""},
		{headers: []string{"Auth-Status: ok"}, err: "wrong password"}, // nginx is exact here
		{headers: []string{"Auth-Status: no", "Auth-Wait: soon"}, err: "wrong password"},
		{headers: []string{"Auth-Status: no", "Auth-Wait: 4294967295"}, want: Answer{Wait: maxWait}, err: "wrong password"},
		{headers: []string{"Auth-Status: you said " + "pass-word-1"}, err: "wrong password"},
		{headers: []string{"Auth-Status: WAIT", "Auth-Wait: 3600"}, err: "longer than the directory's timeout"},
		{headers: []string{"Auth-Status: WAIT"}, err: "again and again"},
		{headers: []string{"no header at all"}, err: "not HTTP"},
		{headers: with("X: " + strings.Repeat("x", 12<<10)), want: Answer{Server: "10.0.0.5:110"}}, // nginx takes 1 KiB
		{headers: with("X: " + strings.Repeat("x", 17<<10)), err: "longer than"},
	} {
		s := newService(t, nil, saying(tt.headers...))
		c := nginxForm(s)
		c.HostNames = tt.names
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, err := openHTTP(t, c).Lookup(ctx, asks(t, "alice@example.org", "pass-word-1"))
		cancel()
		tt.want.Verified = tt.err == ""
		if fmt.Sprintf("%v %q", got, got.Secret) != fmt.Sprintf("%v %q", tt.want, tt.want.Secret) || got.Wait != tt.want.Wait {
			t.Errorf("%.100q: %v, want %v", tt.headers, got, tt.want)
		}
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%.100q: %v, want %q", tt.headers, err, tt.err)
		}
		if err != nil && errors.Is(err, auth.ErrWrongPassword) != strings.Contains(tt.err, "wrong password") {
			t.Errorf("%.100q: %v", tt.headers, err)
		}
		// What is said of one user is no reason to take the service for down.
		others := slices.ContainsFunc([]string{"wrong password", "not HTTP", "no Auth-Status", "longer than"}, func(s string) bool { return strings.HasPrefix(tt.err, s) })
		if tt.err == "longer than the directory's timeout" {
			others = false
		}
		if err != nil && errors.As(err, new(contentError)) == others {
			t.Errorf("%.100q: whose fault is %v", tt.headers, err)
		}
		if err != nil && strings.Contains(err.Error(), "pass-word") {
			t.Errorf("%.100q: the error tells the password: %v", tt.headers, err)
		}
	}
}

// A service that says WAIT is asked the same again, and has another mind then.
func TestNginxWait(t *testing.T) {
	s := newService(t, nil, nil)
	times := 0
	s.will(func(string) string {
		if times++; times < 3 {
			return saying("Auth-Status: WAIT", "Auth-Wait: 0")("")
		}
		return saying("Auth-Status: OK", "Auth-Server: 10.0.0.5", "Auth-Port: 110")("")
	})
	got, err := openHTTP(t, nginxForm(s)).Lookup(t.Context(), asks(t, "alice", "x"))
	if err != nil || got.Server != "10.0.0.5:110" {
		t.Errorf("Lookup = %v, %v", got, err)
	}
	if a, b, c := <-s.asked, <-s.asked, <-s.asked; a != b || b != c {
		t.Errorf("asked %q, %q and %q", a, b, c)
	}
}

// Neither the status nor what is in the body matters to nginx.
func TestNginxStatus(t *testing.T) {
	s := newService(t, nil, func(string) string {
		return "HTTP/1.1 403 Forbidden\r\nAuth-Status: OK\r\nAuth-Server: 10.0.0.5\r\nAuth-Port: 110\r\nContent-Length: 99999999\r\n\r\n<html>"
	})
	// This one never sends the rest of it, nor ends.
	s.mu.Lock()
	s.hold = true
	s.mu.Unlock()
	if got, err := openHTTP(t, nginxForm(s)).Lookup(t.Context(), asks(t, "alice", "x")); err != nil || !got.Verified {
		t.Errorf("Lookup = %v, %v", got, err)
	}
}

// TestHTTPFaults breaks the service in all ways; each time it is the service that is at fault, and when it is back it is asked again.
func TestHTTPFaults(t *testing.T) {
	for _, format := range []string{formatNginx, formatJSON} {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, keep_alive %t", format, keep), func(t *testing.T) {
				s := newService(t, nil, saying("Auth-Status: OK", "Auth-Server: 10.0.0.5", "Auth-Port: 110"))
				if format == formatJSON {
					s.will(answering(200, `{"backend":"new"}`))
				} else if keep {
					s.will(func(string) string {
						return "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 10.0.0.5\r\nAuth-Port: 110\r\nContent-Length: 2\r\n\r\nok"
					})
				}
				p := newFaultProxy(t, "tcp", s.listener.Addr().String())
				c := nginxForm(s)
				c.URL = "http://" + p.addr() + "/auth"
				c.Format, c.SendPassword, c.KeepAlive = format, format == formatJSON, keep
				o := openHTTP(t, c)
				works := func() {
					t.Helper()
					if _, err := o.Lookup(t.Context(), asks(t, "alice@example.org", testPassword)); err != nil {
						t.Fatalf("Lookup = %v", err)
					}
				}
				works()
				for _, f := range []fault{faultHang, faultRefuse, faultGarbage, faultFlood} {
					p.set(f)
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					if f == faultHang {
						cancel()
						ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
					}
					_, err := o.Lookup(ctx, asks(t, "alice@example.org", testPassword))
					if err == nil || errors.Is(err, auth.ErrWrongPassword) || errors.Is(err, auth.ErrUnknownUser) || ctx.Err() != nil != (f == faultHang) {
						t.Errorf("fault %d: %v, %v", f, err, ctx.Err())
					}
					if err != nil && (strings.Contains(err.Error(), testPassword) || strings.Contains(err.Error(), "pa%25ss")) {
						t.Errorf("fault %d: the error tells the password: %v", f, err)
					}
					cancel()
					p.cut()
					p.set(faultNone)
					works()
				}
			})
		}
	}
}

// TestKeepAlive asks many times over one connection, and never takes what a service sends beyond its answer for another one.
func TestKeepAlive(t *testing.T) {
	s := newService(t, nil, answering(200, `{"backend":"new"}`))
	c := jsonForm(s)
	c.KeepAlive = true
	o := openHTTP(t, c)
	for range 5 {
		if _, err := o.Lookup(t.Context(), asks(t, "alice@example.org", "")); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.connections(); n != 1 {
		t.Errorf("%d connections for five questions", n)
	}
	s.cut() // as services do with idle ones
	if _, err := o.Lookup(t.Context(), asks(t, "alice@example.org", "")); err != nil {
		t.Errorf("after the connection was closed: %v", err)
	}
	s.will(func(r string) string {
		return answering(200, `{"backend":"new"}`)(r) + answering(200, `{"backend":"other"}`)(r)
	})
	for range 3 {
		if got, err := o.Lookup(t.Context(), asks(t, "bob@example.org", "")); err != nil || got.Backend != "new" {
			t.Errorf("Lookup = %v, %v", got, err)
		}
	}
	// A service that gives up an idle connection with a word.
	s.will(answering(200, `{"backend":"new"}`))
	if _, err := o.Lookup(t.Context(), asks(t, "alice@example.org", "")); err != nil {
		t.Fatal(err)
	}
	before, first := s.connections(), true
	s.will(func(r string) string {
		if first {
			first = false
			return answering(408, "", "Connection: close")(r)
		}
		return answering(200, `{"backend":"new"}`)(r)
	})
	if _, err := o.Lookup(t.Context(), asks(t, "alice@example.org", "")); err != nil || s.connections() != before+1 {
		t.Errorf("after 408: %v, %d more connections", err, s.connections()-before)
	}
}

// TestInformational asks a service that says something before its answer, as proxies do with 103. What comes behind it is the answer to
// the same question, and never to the next one, which is another user's.
func TestInformational(t *testing.T) {
	answer := func(r string) string {
		if strings.Contains(r, "alice") {
			return saying("Auth-Status: OK", "Auth-Server: 10.0.0.5", "Auth-Port: 110", "Content-Length: 0", "Connection: keep-alive")(r)
		}
		return saying("Auth-Status: Invalid login or password", "Content-Length: 0", "Connection: keep-alive")(r)
	}
	s := newService(t, nil, func(r string) string {
		return "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + answer(r)
	})
	c := nginxForm(s)
	c.KeepAlive = true
	o := openHTTP(t, c)
	for i := range 4 {
		if got, err := o.Lookup(t.Context(), asks(t, "alice@example.org", "right")); err != nil || !got.Verified {
			t.Errorf("alice, %d: %v, %v", i, got, err)
		}
		if got, err := o.Lookup(t.Context(), asks(t, "bob@example.org", "wrong")); !errors.Is(err, auth.ErrWrongPassword) {
			t.Errorf("bob, %d: %v, %v", i, got, err)
		}
	}
	s.will(func(string) string { return strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 10_000) })
	if _, err := o.Lookup(t.Context(), asks(t, "alice@example.org", "right")); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a service that never comes to its answer: %v", err)
	}
}

// newCertificates makes a CA and a pair for 127.0.0.1 and one for a client, with the CA's file.
func newCertificates(t testing.TB) (caFile string, server, client tls.Certificate, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA", Organization: []string{"T, \"quoted\" GmbH"}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(caFile, text, 0o644); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	issue := func(serial int64, name pkix.Name) tls.Certificate {
		leaf := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: name, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			DNSNames: []string{"localhost"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	server = issue(2, pkix.Name{CommonName: "127.0.0.1"})
	client = issue(0x0abc, pkix.Name{CommonName: "al ice", Organization: []string{"Example"}, OrganizationalUnit: []string{"Mail, old"}, Country: []string{"DE"}})
	return caFile, server, client, pool
}

// writePair writes a certificate and its key in PEM.
func writePair(t testing.TB, pair tls.Certificate) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestHTTPS(t *testing.T) {
	caFile, server, client, pool := newCertificates(t)
	s := newService(t, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
		saying("Auth-Status: OK", "Auth-Server: 10.0.0.5", "Auth-Port: 110"))
	c := nginxForm(s)
	c.URL = strings.Replace(c.URL, "http:", "https:", 1)
	if _, err := openHTTP(t, c).Lookup(t.Context(), asks(t, "alice", "secret")); err == nil || !strings.Contains(err.Error(), "TLS with it") {
		t.Errorf("a CA that nobody knows: %v", err)
	}
	c.TLSCA = caFile
	if _, err := openHTTP(t, c).Lookup(t.Context(), asks(t, "alice", "secret")); err == nil {
		t.Error("without a certificate to show")
	}
	c.TLSCert, c.TLSKey = writePair(t, client)
	o := openHTTP(t, c)
	for range 2 { // the second with the ticket of the first
		if got, err := o.Lookup(t.Context(), asks(t, "alice", "secret")); err != nil || got.Server != "10.0.0.5:110" {
			t.Errorf("Lookup = %v, %v", got, err)
		}
	}
	c.TLSServerName = "elsewhere.example"
	if _, err := openHTTP(t, c).Lookup(t.Context(), asks(t, "alice", "secret")); err == nil {
		t.Error("a certificate with another name")
	}
	if len(s.asked) != 2 {
		t.Errorf("%d questions were asked, want 2", len(s.asked))
	}
}

// A Unix socket is as good as a loopback address.
func TestHTTPSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Skip(err)
	}
	asked := make(chan *http.Request, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		w.Header().Set("Auth-Status", "OK")
		w.Header().Set("Auth-Server", "10.0.0.5")
		w.Header().Set("Auth-Port", "110")
	})}
	ended := make(chan struct{})
	go func() { _ = server.Serve(l); close(ended) }()
	defer func() { _ = server.Close(); <-ended }()
	c := defaultHTTP()
	c.URL = "unix:" + filepath.Join(dir, "s") + ":/auth?x"
	if got, err := openHTTP(t, c).Lookup(t.Context(), asks(t, "alice", "x")); err != nil || got.Server != "10.0.0.5:110" {
		t.Errorf("Lookup = %v, %v", got, err)
	}
	if r := <-asked; r.Host != "localhost" || r.RequestURI != "/auth?x" {
		t.Errorf("asked for %s at %s", r.RequestURI, r.Host)
	}
}
