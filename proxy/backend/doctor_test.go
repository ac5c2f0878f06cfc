package backend

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/proxy/pop3mem"
)

// A quirky server answers each command with fixed words.
type quirky struct {
	greeting string // "" is none
	// answers are by verb. "-" is silence, "close" the end. A verb that is missing is answered -ERR.
	answers map[string]string
	header  bool // it waits for a PROXY header
	drops   bool // it forgets what came behind a command in the same write
	secure  *tls.Config
	always  bool // TLS from the first octet on
	takes   bool // it takes what came in clear behind STLS

	mu   sync.Mutex
	said []string
}

const sound = "+OK\r\nTOP\r\nUIDL\r\nUSER\r\nPIPELINING\r\nSASL PLAIN\r\n.\r\n"

func (q *quirky) serve(c net.Conn) {
	defer func() { c.Close() }()
	r := bufio.NewReader(c)
	if q.header {
		if _, err := proxyproto.Read(r); err != nil {
			return
		}
	}
	if q.always {
		c = tls.Server(c, q.secure)
		r = bufio.NewReader(c)
	}
	_, _ = io.WriteString(c, q.greeting)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		q.mu.Lock()
		q.said = append(q.said, strings.TrimSpace(line))
		q.mu.Unlock()
		if q.drops {
			_, _ = r.Discard(r.Buffered())
		}
		answer, known := q.answers[verb]
		switch {
		case verb == "STLS" && q.secure != nil && !q.always:
			c, r = q.startTLS(c, r)
			continue
		case !known && verb == "QUIT":
			_, _ = io.WriteString(c, "+OK bye\r\n")
			return
		case !known:
			answer = "-ERR Unknown command.\r\n"
		case answer == "close":
			return
		case answer == "-":
			answer = ""
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (q *quirky) startTLS(c net.Conn, r *bufio.Reader) (net.Conn, *bufio.Reader) {
	_, _ = io.WriteString(c, "+OK begin\r\n")
	early := ""
	for r.Buffered() > 0 && r.Buffered() < 100 { // a ClientHello is longer
		line, _ := r.ReadString('\n')
		early += line
	}
	t := tls.Server(c, q.secure)
	if q.takes {
		return t, bufio.NewReader(io.MultiReader(strings.NewReader(early), t))
	}
	return t, bufio.NewReader(t)
}

// examined examines the one server of a backend with short waits.
func examined(t *testing.T, c Config, o DoctorOptions) *Exam {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	e, err := pool(t, c).Examine(t.Context(), c.Servers[0].Address, &o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(e); err != nil {
		t.Errorf("as JSON: %v", err)
	}
	return e
}

// finding returns the finding about item.
func finding(t *testing.T, e *Exam, item string) Finding {
	t.Helper()
	for _, f := range e.Findings {
		if strings.TrimSpace(f.Item) == item {
			return f
		}
	}
	t.Fatalf("nothing is said about %s: %+v", item, e.Findings)
	return Finding{}
}

// changed holds the keys to write against want, as "key: value".
func changed(t *testing.T, e *Exam, want ...string) {
	t.Helper()
	var got []string
	for _, c := range e.Changes {
		got = append(got, c.Key+": "+c.Value)
		if c.Reason == "" {
			t.Errorf("%s: no reason is given", c.Key)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got the changes %q, want %q", got, want)
	}
}

func TestDoctorHealthy(t *testing.T) {
	ca := newCA(t, ecKey(t), "127.0.0.1")
	s := pop3mem.New(pop3mem.Options{TLS: ca.config, RefusePlaintext: true})
	s.Add("alice@example.org", "secret", []byte("Subject: one\r\n\r\nhello\r\n"), []byte("Subject: two\r\n\r\nhello\r\n"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(l); !errors.Is(err, pop3mem.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})

	c := config(l.Addr().String())
	c.TLS, c.TLSCA = TLSStart, ca.file
	secret := auth.NewSecret([]byte("secret"))
	e := examined(t, c, DoctorOptions{WrongAs: "alice@example.org", Login: &auth.BackendLogin{User: "alice@example.org", Secret: secret}})
	if e.Worst() == LevelBad {
		t.Errorf("got %+v, want nothing bad", e.Findings)
	}
	changed(t, e)
	f := e.Facts
	if f.Capabilities.Answer != answerTaken || f.Pipelining != answerTaken || !f.Plaintext.wantsTLS() || f.Proxy.Without != answerTaken {
		t.Errorf("got %+v", f)
	}
	if cert := f.TLS.Certificate; f.TLS.STLS != answerTaken || f.TLS.Injected || cert == nil || cert.Problem != "" || cert.KeySHA256 != hex.EncodeToString(ca.pin[:]) {
		t.Errorf("got %+v, %+v", f.TLS, cert)
	}
	l2 := e.Facts.Login
	if l2 == nil || l2.Error != "" || l2.Messages != 2 || l2.UIDL != answerTaken || l2.TOP != answerTaken || len(l2.Capabilities) == 0 {
		t.Errorf("the login: got %+v", l2)
	}
	if w := e.Facts.Wrong; w == nil || w.Accepted || w.Kind != WrongPassword.String() {
		t.Errorf("the wrong password: got %+v", w)
	}
	if n := s.Messages("alice@example.org"); n != 2 {
		t.Errorf("got %d messages after the examination, want 2", n)
	}

	c.TLS, c.TLSCA = TLSNone, ""
	e = examined(t, c, DoctorOptions{})
	if f := finding(t, e, "USER in clear"); f.Level != LevelBad {
		t.Errorf("got %+v", f)
	}
	changed(t, e, "tls: starttls", "tls_pin_sha256: ["+hex.EncodeToString(ca.pin[:])+"]")
}

// Whom no account was given for is never asked for a password.
func TestDoctorSendsNoPassword(t *testing.T) {
	q := &quirky{greeting: "+OK [XCLIENT] ready <1.2@example.org>\r\n", answers: map[string]string{
		"CAPA": sound, "AUTH": "+OK\r\nPLAIN\r\n.\r\n", "USER": "+OK\r\n", "XCLIENT": "+OK\r\n", "PASS": "+OK\r\n",
	}}
	e := examined(t, config(listen(t, q.serve)), DoctorOptions{})
	changed(t, e, "client_info: xclient")
	if !e.Facts.Greeting.APOP || !slices.Equal(e.Facts.SASL.Mechanisms, []string{"PLAIN"}) || e.Facts.XClient.Answer != answerTaken {
		t.Errorf("got %+v", e.Facts)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, line := range q.said {
		if strings.HasPrefix(line, "PASS") || strings.HasPrefix(line, "AUTH ") || strings.HasPrefix(line, "APOP") {
			t.Errorf("the server was told %q", line)
		}
	}
}

func TestDoctorOddServers(t *testing.T) {
	ca := newCA(t, ecKey(t), "mail.example.org")
	short := 2 * time.Second // for what never comes
	ok := func(more map[string]string) map[string]string {
		all := map[string]string{"CAPA": sound, "USER": "+OK\r\n"}
		for verb, answer := range more {
			all[verb] = answer
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		server  *quirky
		set     func(c *Config)
		timeout time.Duration
		item    string
		level   Level
		found   string // in the finding, or the reason
		changes []string
	}{
		{"silent", &quirky{}, nil, short, "greeting", LevelBad, "greeting: ", nil},
		{"not POP3", &quirky{greeting: "220 mail.example.org ESMTP\r\n"}, nil, 0, "greeting", LevelBad, "220 mail", nil},
		{"busy", &quirky{greeting: "-ERR [SYS/TEMP] too many\r\n"}, nil, 0, "greeting", LevelBad, "too many", nil},
		{"endless greeting", &quirky{greeting: "+OK " + strings.Repeat("x", 4096)}, nil, 0, "greeting", LevelBad, "does not end", nil},
		{"CAPA silent", &quirky{greeting: "+OK\r\n", answers: ok(map[string]string{"CAPA": "-"})}, nil, short,
			"CAPA", LevelOdd, "no answer", []string{"check: {type: greeting}"}},
		{"CAPA endless", &quirky{greeting: "+OK\r\n", answers: ok(map[string]string{"CAPA": "+OK\r\n" + strings.Repeat("TOP\r\n", 5000)})}, nil, 0,
			"CAPA", LevelOdd, "does not end", []string{"check: {type: greeting}"}},
		{"CAPA closes", &quirky{greeting: "+OK\r\n", answers: ok(map[string]string{"CAPA": "close"})}, nil, 0,
			"CAPA", LevelOdd, "closes", []string{"check: {type: greeting}"}},
		{"no CAPA", &quirky{greeting: "+OK\r\n", answers: map[string]string{"USER": "+OK\r\n"}}, nil, 0, "CAPA", LevelOdd, "1998", nil},
		{"no UIDL", &quirky{greeting: "+OK\r\n", answers: ok(map[string]string{"CAPA": "+OK\r\nTOP\r\n.\r\n"})}, nil, 0, "CAPA", LevelOdd, "UIDL", nil},
		{"pipelining broken", &quirky{greeting: "+OK\r\n", answers: ok(nil), drops: true}, nil, short, "pipelining", LevelBad, "does not work", nil},
		{"AUTH breaks", &quirky{greeting: "+OK\r\n", answers: ok(map[string]string{"AUTH": "close"})}, nil, 0, "SASL", LevelOdd, "closes", nil},
		{"USER closes", &quirky{greeting: "+OK\r\n", answers: ok(map[string]string{"USER": "close"})}, nil, 0, "USER in clear", LevelBad, "closes", nil},
		{"refuses plaintext, no TLS", &quirky{greeting: "+OK\r\n", answers: ok(map[string]string{"USER": "-ERR must use TLS\r\n"})}, nil, 0,
			"USER in clear", LevelBad, "login_trusted_networks", nil},
		{"XCLIENT wanted", &quirky{greeting: "+OK\r\n", answers: ok(map[string]string{"XCLIENT": "+OK\r\n"})}, func(c *Config) { c.ClientInfo = ClientXClient }, 0,
			"XCLIENT", LevelBad, "login_trusted_networks", nil},
		{"XCLIENT refused", &quirky{greeting: "+OK [XCLIENT] hi\r\n", answers: ok(nil)}, func(c *Config) { c.ClientInfo = ClientXClient }, 0,
			"XCLIENT", LevelBad, "refused", []string{"client_info: none"}},
		{"header wanted", &quirky{greeting: "+OK\r\n", answers: ok(nil), header: true}, nil, short, "PROXY", LevelBad, "waits for",
			[]string{"client_info: proxy_v2"}},
		{"header as configured", &quirky{greeting: "+OK\r\n", answers: ok(nil), header: true}, func(c *Config) { c.ClientInfo = ClientProxyV1 }, short,
			"PROXY", LevelOK, "v1: works; v2: works; without: no answer", nil},
		{"header not wanted", &quirky{greeting: "+OK [XCLIENT] hi\r\n", answers: ok(map[string]string{"XCLIENT": "+OK\r\n"})}, func(c *Config) { c.ClientInfo = ClientProxyV2 }, 0,
			"PROXY", LevelBad, "does not take", []string{"client_info: xclient"}},
		{"TLS all along", &quirky{greeting: "+OK\r\n", answers: ok(nil), secure: ca.config, always: true}, nil, short, "TLS", LevelBad, "first octet",
			[]string{"tls: implicit", "tls_pin_sha256: [" + hex.EncodeToString(ca.pin[:]) + "]"}},
		{"no TLS at all", &quirky{greeting: "+OK\r\n", answers: ok(nil)}, func(c *Config) { c.TLS = TLSImplicit }, 0, "TLS", LevelBad, "not from the first",
			[]string{"tls: none"}},
		{"no STLS", &quirky{greeting: "+OK\r\n", answers: ok(nil)}, func(c *Config) { c.TLS = TLSStart }, 0, "STLS", LevelBad, "Unknown command",
			[]string{"tls: none"}},
		{"another name", &quirky{greeting: "+OK\r\n", answers: ok(nil), secure: ca.config},
			func(c *Config) { c.TLS, c.TLSCA = TLSStart, ca.file }, 0, "certificate", LevelBad, "127.0.0.1", []string{"tls_server_name: mail.example.org"}},
		{"takes what comes in clear", &quirky{greeting: "+OK\r\n", answers: ok(nil), secure: ca.config, takes: true}, nil, 0, "STLS", LevelOdd, "slip commands", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := config(listen(t, tt.server.serve))
			if tt.set != nil {
				tt.set(&c)
			}
			e := examined(t, c, DoctorOptions{Timeout: tt.timeout})
			if f := finding(t, e, tt.item); f.Level != tt.level || !strings.Contains(f.Found+" "+f.Why, tt.found) {
				t.Errorf("got %+v, want the level %d and %q", f, tt.level, tt.found)
			}
			changed(t, e, tt.changes...)
		})
	}
}

// A server that takes its time over everything is given up, and nothing is made of what it was not asked.
func TestDoctorSlow(t *testing.T) {
	q := &quirky{greeting: "+OK\r\n", answers: map[string]string{"CAPA": "-"}}
	c := config(listen(t, q.serve))
	c.TLS = TLSStart
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e, err := pool(t, c).Examine(ctx, c.Servers[0].Address, &DoctorOptions{Timeout: 30 * time.Second, Progress: func(what string) {
		if what == "capabilities" {
			cancel()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if f := finding(t, e, "examination"); f.Level != LevelOdd || e.Worst() != LevelOdd {
		t.Errorf("got %+v of %+v", f, e.Findings)
	}
}

func TestDoctorNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	e := examined(t, config(l.Addr().String()), DoctorOptions{})
	if f := finding(t, e, "greeting"); f.Level != LevelBad || !strings.Contains(f.Why, "refused") || e.Worst() != LevelBad {
		t.Errorf("got %+v", f)
	}
}

// A login that cannot go as it is configured says so, and the password stays here.
func TestDoctorLogin(t *testing.T) {
	ca := newCA(t, ecKey(t), "127.0.0.1")
	q := &quirky{greeting: "+OK\r\n", secure: ca.config, answers: map[string]string{
		"CAPA": sound, "USER": "+OK\r\n", "PASS": "+OK\r\n", "STAT": "+OK 2 10\r\n", "UIDL": "+OK\r\n1 a\r\n2 a\r\n.\r\n", "TOP": "+OK\r\n\r\n.\r\n",
	}}
	c := config(listen(t, q.serve))
	c.TLS = TLSStart // and nobody vouches for the certificate
	o := DoctorOptions{WrongAs: "alice", Login: &auth.BackendLogin{User: "alice", Secret: auth.NewSecret([]byte("secret"))}}
	e := examined(t, c, o)
	if f := finding(t, e, "login"); f.Level != LevelBad || !strings.Contains(f.Why, "certificate") {
		t.Errorf("got %+v", f)
	}
	q.mu.Lock()
	if text := strings.Join(q.said, "\n"); strings.Contains(text, "PASS") {
		t.Errorf("the server was told %q", text)
	}
	q.mu.Unlock()

	c.TLSCA = ca.file
	e = examined(t, c, o)
	if f := finding(t, e, "UIDL"); f.Level != LevelBad || !strings.Contains(f.Found, "same id") {
		t.Errorf("got %+v", f)
	}
	if f := finding(t, e, "wrong password"); f.Level != LevelBad || f.Found != "taken!" {
		t.Errorf("got %+v", f)
	}
	text, _ := json.Marshal(e)
	if bytes.Contains(text, []byte("secret")) {
		t.Errorf("the password is in %s", text)
	}
}
