package certs

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
)

// shows is a client that shows a certificate for name, of the test CA or of nobody.
func shows(t *testing.T, config *tls.Config) *tls.Config {
	t.Helper()
	certPEM, keyPEM := pemPair(nil, func(c *x509.Certificate) {
		c.Subject.CommonName, c.ExtKeyUsage = "anna", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	config.Certificates = []tls.Certificate{must(tls.X509KeyPair(certPEM, keyPEM))}
	return config
}

func withClientCA(t *testing.T, mode string) (string, Config) {
	t.Helper()
	dir := t.TempDir()
	c := withFiles(issueFiles(t, dir, "mail", "mail.example.org", "vip.example.org"))
	c.ClientCA = ClientCA{File: filepath.Join(dir, "clients.pem"), Mode: mode}
	write(t, c.ClientCA.File, testCAPEM())
	return dir, c
}

func TestClientCertificates(t *testing.T) {
	for _, tt := range []struct {
		name             string
		edit             func(*ClientCA)
		listener, server string
		shown, refused   bool // refused without a certificate
	}{
		{"require", func(c *ClientCA) { c.Mode = "require" }, "pop3s", "mail.example.org", true, true},
		{"request", func(*ClientCA) {}, "pop3s", "mail.example.org", true, false},
		{"another listener", func(c *ClientCA) { c.Mode, c.Listeners = "require", []string{"vip"} }, "pop3s", "mail.example.org", false, false},
		{"its listener", func(c *ClientCA) { c.Mode, c.Listeners = "require", []string{"vip"} }, "vip", "mail.example.org", true, true},
		{"another name", func(c *ClientCA) { c.Mode, c.ServerNames = "require", []string{"vip.example.org"} }, "pop3s", "mail.example.org", false, false},
		{"its name", func(c *ClientCA) { c.Mode, c.ServerNames = "require", []string{"VIP.example.org"} }, "pop3s", "vip.example.org", true, true},
		{"its wildcard", func(c *ClientCA) { c.Mode, c.ServerNames = "require", []string{"*.example.org"} }, "pop3s", "vip.example.org", true, true},
	} {
		for _, lenient := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				dir, c := withClientCA(t, "request")
				tt.edit(&c.ClientCA)
				v := prepare(t, New(dir, nil, nil), c, Listener{Name: "pop3s", LenientALPN: lenient}, Listener{Name: "vip", LenientALPN: lenient})
				with, without := shows(t, client(tt.server)), client(tt.server)
				if lenient {
					with.NextProtos, without.NextProtos = []string{"imap"}, []string{"imap"}
				}
				seen := serverSees(t, v.TLS(tt.listener), with)
				if (len(seen) == 1) != tt.shown || tt.shown && seen[0].Subject.CommonName != "anna" {
					t.Errorf("the server sees %d certificates", len(seen))
				}
				if _, err := shake(v.TLS(tt.listener), without); (err != nil) != tt.refused {
					t.Errorf("without a certificate: %v", err)
				}
			})
		}
	}
}

func TestClientCertificateOfNobody(t *testing.T) {
	dir, c := withClientCA(t, "request")
	_, key := pemPair(nil, nil, "x")
	ca := must(openAuthority(t.TempDir()))
	own := must(ca.issue([]string{"anna"}))
	stranger := client("mail.example.org")
	stranger.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	_ = key
	if _, err := shake(prepare(t, New(dir, nil, nil), c).TLS("pop3s"), stranger); err == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
}

// serverSees gives the certificates that the server is shown.
func serverSees(t *testing.T, server, client *tls.Config) (seen []*x509.Certificate) {
	t.Helper()
	spy := server.Clone()
	spy.VerifyConnection = func(cs tls.ConnectionState) error { seen = cs.PeerCertificates; return nil }
	if inner := server.GetConfigForClient; inner != nil {
		spy.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := inner(hello)
			if c == nil {
				return nil, err
			}
			c = c.Clone()
			c.VerifyConnection = spy.VerifyConnection
			return c, err
		}
	}
	if _, err := shake(spy, client); err != nil {
		t.Fatal(err)
	}
	return seen
}

// TestTicketsNeverCrossClientPolicy: a session from where nobody asked for a certificate is not taken up where one is wanted.
func TestTicketsNeverCrossClientPolicy(t *testing.T) {
	dir, c := withClientCA(t, "request")
	k := New(dir, nil, nil)
	for _, version := range versions {
		here := shows(t, resumer(version))
		policies := []func(){
			func() { c.ClientCA = ClientCA{} },
			func() { c.ClientCA = ClientCA{File: filepath.Join(dir, "clients.pem"), Mode: "request"} },
			func() { c.ClientCA.Mode = "require" },
			func() { write(t, c.ClientCA.File, append(testCAPEM(), '\n')) }, // another file of CAs
			func() { c.ClientCA.ServerNames = []string{"mail.example.org"} },
		}
		for i, change := range policies {
			change()
			v := prepare(t, k, c)
			// The last one differs only in whom it holds for.
			if got, want := resumesOverTCP(t, v.TLS("pop3s"), here), i == len(policies)-1; got != want {
				t.Errorf("%s, policy %d: resumed %v", tls.VersionName(version), i, got)
			}
			if !resumesOverTCP(t, v.TLS("pop3s"), here) {
				t.Errorf("%s, policy %d: never resumes", tls.VersionName(version), i)
			}
		}
		write(t, filepath.Join(dir, "clients.pem"), testCAPEM())
	}
}

func resumesOverTCP(t *testing.T, server, client *tls.Config) bool {
	t.Helper()
	cs, err := shakeOverTCP(t, server, client)
	if err != nil {
		t.Fatal(err)
	}
	return cs.DidResume
}

func TestClientCAFaults(t *testing.T) {
	dir, c := withClientCA(t, "request")
	for _, tt := range []struct {
		edit func(*ClientCA)
		want string
	}{
		{func(c *ClientCA) { c.File = filepath.Join(dir, "none") }, "tls.client_ca.file: read"},
		{func(c *ClientCA) { c.File = filepath.Join(dir, "mail.key") }, "are cert and key exchanged"},
		{func(c *ClientCA) { c.Listeners = []string{"odd"} }, "tls.client_ca.listeners[0]"},
	} {
		bad := c
		tt.edit(&bad.ClientCA)
		_, err := New(dir, nil, nil).Prepare(bad, nil, []Listener{{Name: "pop3s"}}, Deps{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

func TestUnknownNameGetsAnAlert(t *testing.T) {
	dir := t.TempDir()
	c := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
	v := prepare(t, New(dir, nil, nil), c, Listener{Name: "pop3s", AlertUnknown: true}, Listener{Name: "other"})
	for _, tt := range []struct {
		listener, name string
		refused        bool
	}{
		{"pop3s", "mail.example.org", false}, {"pop3s", "", false}, {"pop3s", "nobody.example.org", true}, {"other", "nobody.example.org", false},
	} {
		config := client(tt.name)
		config.InsecureSkipVerify = true
		_, err := shake(v.TLS(tt.listener), config)
		if (err != nil) != tt.refused || err != nil && !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s asked for %q: %v, want refused %v", tt.listener, tt.name, err, tt.refused)
		}
	}
}
