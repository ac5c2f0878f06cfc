//go:build unix

package directory

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/peers"
)

// An nginx is the real one, as a mail proxy and as a service for mail proxies.
type nginx struct {
	*peers.Daemon
	plain, secure, certified, proxied string // ports of its POP3 listeners
	auth                              string // the port of its own service
}

// newNginx starts nginx's mail proxy with a service that it asks.
func newNginx(t *testing.T, asked net.Addr, backend, caFile string, server tls.Certificate) *nginx {
	t.Helper()
	path := peers.Program(t, "nginx", "nginx")
	module := ""
	for _, dir := range []string{"/usr/lib/nginx/modules", "/usr/share/nginx/modules", "/usr/lib64/nginx/modules"} {
		if _, err := os.Stat(dir + "/ngx_mail_module.so"); err == nil {
			module = dir + "/ngx_mail_module.so"
		}
	}
	if module == "" {
		peers.Missing(t, "there is no mail module of nginx: install Debian's libnginx-mod-mail")
	}
	cert, key := writePair(t, server)
	dir := peers.Dir(t)
	n := &nginx{plain: peers.Port(t), secure: peers.Port(t), certified: peers.Port(t), proxied: peers.Port(t), auth: peers.Port(t)}
	host, port, _ := net.SplitHostPort(backend)
	conf := writeText(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`
load_module %s;
daemon off;
master_process off;
pid %[2]s/pid;
error_log stderr info;
events {}
http {
	access_log off;
	client_body_temp_path %[2]s/a; proxy_temp_path %[2]s/b; fastcgi_temp_path %[2]s/c; uwsgi_temp_path %[2]s/d; scgi_temp_path %[2]s/e;
	# As nginx's own documentation has it for one backend.
	server {
		listen 127.0.0.1:%[3]s;
		location = /auth { add_header Auth-Status OK; add_header Auth-Server %[4]s; add_header Auth-Port %[5]s; return 204; }
		location = /no { add_header Auth-Status "Invalid login or password"; add_header Auth-Wait 3; return 204; }
	}
}
mail {
	auth_http %[6]s/auth?v=1;
	auth_http_header X-Auth-Key "s3cret, and: more";
	auth_http_header X-Other other;
	server_name gate.example.org;
	pop3_auth plain;
	ssl_certificate %[7]s;
	ssl_certificate_key %[8]s;
	ssl_protocols TLSv1.2 TLSv1.3;
	ssl_ciphers ALL:@SECLEVEL=0;
	server { protocol pop3; listen 127.0.0.1:%[9]s; }
	server { protocol pop3; listen 127.0.0.1:%[10]s ssl; }
	server { protocol pop3; listen 127.0.0.1:%[11]s ssl; ssl_verify_client on; ssl_client_certificate %[12]s; }
	server { protocol pop3; listen 127.0.0.1:%[13]s proxy_protocol; set_real_ip_from 127.0.0.1; }
}
`, module, dir, n.auth, host, port, asked, cert, key, n.plain, n.secure, n.certified, caFile, n.proxied))
	if out, err := exec.CommandContext(t.Context(), path, "-t", "-p", dir, "-c", conf).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n.Daemon = &peers.Daemon{
		Start: func() *exec.Cmd { return exec.Command(path, "-p", dir, "-c", conf) },
		Ready: func() error {
			c, err := net.Dial("tcp", "127.0.0.1:"+n.plain)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = bufio.NewReader(c).ReadString('\n')
			return err
		},
	}
	n.Run(t)
	return n
}

// TestBesideNginx has nginx and popgate ask one service about the same logins: their questions are the same, octet by octet.
func TestBesideNginx(t *testing.T) {
	caFile, server, client, pool := newCertificates(t)
	s := newService(t, nil, saying("Auth-Status: Invalid login or password"))
	n := newNginx(t, s.listener.Addr(), "127.0.0.1:1", caFile, server)
	c := nginxForm(s)
	c.URL += "?v=1"
	c.Headers = []HTTPHeader{{Name: "X-Auth-Key", Value: "s3cret, and: more"}, {Name: "X-Other", Value: "other"}}
	ours := openHTTP(t, c)

	plain := func(user, secret string) []string {
		return []string{"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+secret))}
	}
	login := func(user, secret string) []string {
		return []string{"AUTH LOGIN", base64.StdEncoding.EncodeToString([]byte(user)), base64.StdEncoding.EncodeToString([]byte(secret))}
	}
	user := func(user, secret string) []string { return []string{"USER " + user, "PASS " + secret} }
	over := func(version uint16, suite uint16, pair ...tls.Certificate) *tls.Config {
		c := &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: version, MaxVersion: version, Certificates: pair}
		if suite != 0 {
			c.CipherSuites = []uint16{suite}
		}
		return c
	}
	for _, tt := range []struct {
		name, port   string
		tls          *tls.Config
		dialogue     func(user, secret string) []string
		user, secret string
	}{
		{"USER", n.plain, nil, user, "alice@example.org", "secret"},
		{"PLAIN", n.plain, nil, plain, "alice@example.org", "secret"},
		{"LOGIN", n.plain, nil, login, "Alice@Example.ORG", "secret"},
		{"USER with odd characters", n.plain, nil, user, "a%l+i=ce&b@example.org", testPassword},
		{"PLAIN with odd characters", n.plain, nil, plain, "j\xf6rg\xc3@example.org", "\x01\t %25\xff\u2028 \"\\"},
		{"LOGIN with odd characters", n.plain, nil, login, "J\u00f6rg@example.org", " lead and trail "},
		{"USER over TLS 1.3", n.secure, over(tls.VersionTLS13, 0), user, "alice@example.org", "secret"},
		{"PLAIN over TLS 1.3", n.secure, over(tls.VersionTLS13, 0), plain, "alice@example.org", "secret"},
		{"PLAIN over TLS 1.2", n.secure, over(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256), plain, "alice@example.org", "secret"},
		{"USER over old TLS 1.2", n.secure, over(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA), user, "alice@example.org", "secret"},
		{"PLAIN with a certificate", n.certified, over(tls.VersionTLS13, 0, client), plain, "alice@example.org", "secret"},
		{"USER behind a PROXY header", n.proxied, nil, user, "alice@example.org", "secret"},
		{"USER behind a PROXY header of IPv6", n.proxied, nil, user, "alice@example.org", "secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := asks(t, tt.user, tt.secret)
			proxy := ""
			q.Client.Addr = netip.AddrPort{}
			if tt.port == n.proxied {
				q.Client.Proxied = true
				q.Client.Addr, q.Client.Local = netip.MustParseAddrPort("192.0.2.77:40123"), netip.MustParseAddrPort("198.51.100.3:995")
				proxy = "PROXY TCP4 192.0.2.77 198.51.100.3 40123 995\r\n"
				if strings.HasSuffix(tt.name, "IPv6") {
					q.Client.Addr, q.Client.Local = netip.MustParseAddrPort("[2001:db8::77]:40123"), netip.MustParseAddrPort("[2001:db8::3]:995")
					proxy = "PROXY TCP6 2001:db8::77 2001:db8::3 40123 995\r\n"
				}
			}
			pop := dialPOP(t, "127.0.0.1:"+tt.port, tt.tls, proxy)
			for _, line := range tt.dialogue(tt.user, tt.secret) {
				pop.say(t, line)
			}
			theirs := <-s.asked
			if !q.Client.Addr.IsValid() {
				q.Client.Addr, q.Client.Local = netip.MustParseAddrPort(pop.LocalAddr().String()), netip.MustParseAddrPort(pop.RemoteAddr().String())
			}
			if tt.tls != nil {
				state := pop.Conn.(*tls.Conn).ConnectionState()
				state.PeerCertificates = nil // the server's; its side sees the client's
				if len(tt.tls.Certificates) > 0 {
					leaf, err := x509.ParseCertificate(client.Certificate[0])
					if err != nil {
						t.Fatal(err)
					}
					state.PeerCertificates = []*x509.Certificate{leaf}
				}
				q.Client.TLS = auth.TLSFrom(&state)
			}
			_, err := ours.Lookup(t.Context(), q)
			if !errors.Is(err, auth.ErrWrongPassword) {
				t.Errorf("Lookup = %v", err)
			}
			if got := <-s.asked; got != theirs {
				t.Errorf("asked\n%q, and nginx\n%q", got, theirs)
			}
			if !strings.Contains(theirs, "Auth-Method: plain\r\n") || !strings.Contains(theirs, "X-Other: other\r\n") {
				t.Errorf("nginx asked %q", theirs)
			}
		})
	}

	t.Run("attempts", func(t *testing.T) {
		s.will(saying("Auth-Status: no", "Auth-Wait: 1")) // with 0 nginx would hang up
		pop := dialPOP(t, "127.0.0.1:"+n.plain, nil, "")
		for attempt := 1; attempt <= 2; attempt++ {
			pop.say(t, "USER alice")
			if reply := pop.say(t, "PASS wrong"); reply != "-ERR no\r\n" {
				t.Errorf("nginx says %q", reply)
			}
			q := asks(t, "alice", "wrong")
			q.Client.Addr, q.Attempt = netip.MustParseAddrPort(pop.LocalAddr().String()), attempt
			theirs := <-s.asked
			_, _ = ours.Lookup(t.Context(), q)
			if got := <-s.asked; got != theirs {
				t.Errorf("asked\n%q, and nginx\n%q", got, theirs)
			}
		}
	})
}

// A popConn is a client's connection to a POP3 server that has greeted.
type popConn struct {
	net.Conn
	r *bufio.Reader
}

func dialPOP(t *testing.T, addr string, c *tls.Config, before string) *popConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write([]byte(before)); err != nil {
		t.Fatal(err)
	}
	if c != nil {
		conn = tls.Client(conn, c)
	}
	p := &popConn{conn, bufio.NewReader(conn)}
	if line, err := p.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK") {
		t.Fatalf("greeting %q, %v", line, err)
	}
	return p
}

// say sends a line and gives the reply.
func (p *popConn) say(t *testing.T, line string) string {
	t.Helper()
	if _, err := p.Write([]byte(line + "\r\n")); err != nil {
		t.Fatal(err)
	}
	reply, err := p.r.ReadString('\n')
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return reply
}

// TestServiceForNginx asks the service of nginx's own documentation, one that was written for nginx: nginx itself.
func TestServiceForNginx(t *testing.T) {
	caFile, server, _, _ := newCertificates(t)
	s := newService(t, nil, saying("Auth-Status: no"))
	n := newNginx(t, s.listener.Addr(), "10.0.0.5:110", caFile, server)
	for _, keep := range []bool{false, true} {
		c := defaultHTTP()
		c.URL, c.KeepAlive = "http://127.0.0.1:"+n.auth+"/auth", keep
		o := openHTTP(t, c)
		for range 3 {
			got, err := o.Lookup(t.Context(), asks(t, "alice@example.org", testPassword))
			if want := (Answer{Server: "10.0.0.5:110", Verified: true}); fmt.Sprint(got) != fmt.Sprint(want) || err != nil {
				t.Errorf("Lookup = %v, %v, want %v", got, err, want)
			}
		}
		c.URL = "http://127.0.0.1:" + n.auth + "/no"
		if got, err := openHTTP(t, c).Lookup(t.Context(), asks(t, "alice", "x")); !errors.Is(err, auth.ErrWrongPassword) || got.Wait == 0 {
			t.Errorf("Lookup = %v, %v", got, err)
		}
		c.URL = "http://127.0.0.1:" + n.auth + "/none" // 404 without a word to us
		if _, err := openHTTP(t, c).Lookup(t.Context(), asks(t, "alice", "x")); err == nil || errors.Is(err, auth.ErrWrongPassword) {
			t.Errorf("Lookup = %v", err)
		}
		n.Down(t)
		if _, err := o.Lookup(t.Context(), asks(t, "alice", "x")); err == nil || errors.Is(err, auth.ErrWrongPassword) {
			t.Errorf("while nginx is down: %v", err)
		}
		n.Up(t)
		if _, err := o.Lookup(t.Context(), asks(t, "alice", "x")); err != nil {
			t.Errorf("when nginx is back: %v", err)
		}
	}
}

// TestCipherNames holds our names of cipher suites to OpenSSL's own.
func TestCipherNames(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), peers.Program(t, "openssl", "openssl"), "ciphers", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 2 {
			names[f[0]] = f[2]
		}
	}
	checked := 0
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		want, ok := names[suite.Name]
		if !ok {
			continue // Debian builds OpenSSL without RC4 and 3DES
		}
		if got := opensslCipher(suite.Name); got != want {
			t.Errorf("%s is %s, want %s", suite.Name, got, want)
		}
		checked++
	}
	if checked < 15 {
		t.Errorf("checked %d suites", checked)
	}
}
