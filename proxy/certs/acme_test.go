package certs

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/audit"
)

func TestChallenges(t *testing.T) {
	p := startPebble(t, pebbleOptions{env: []string{"PEBBLE_WFE_NONCEREJECT=30"}})
	for _, tt := range []struct {
		name   string
		edit   func(*testing.T, *Config)
		domain string
		ask    string
	}{
		{"HTTP-01", func(*testing.T, *Config) {}, "mail.example.org", "mail.example.org"},
		{"TLS-ALPN-01", func(_ *testing.T, c *Config) {
			c.ACME.HTTPAddress, c.ACME.TLSALPNAddress = "", p.alpn
		}, "pop.example.org", "pop.example.org"},
		{"DNS-01", func(t *testing.T, c *Config) {
			c.ACME.HTTPAddress = ""
			key := filepath.Join(t.TempDir(), "key")
			write(t, key, []byte(tsigSecret))
			d := &c.ACME.DNS
			d.Provider, d.Resolver, d.Propagation.Resolvers = "rfc2136", p.dns.address, []string{p.dns.address}
			d.RFC2136.Server, d.RFC2136.KeyFile, d.RFC2136.KeyName, d.RFC2136.Algorithm = p.dns.address, key, "popgate", "hmac-sha256"
		}, "*.example.net", "any.example.net"},
		{"an address", func(*testing.T, *Config) {}, "127.0.0.1", "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := p.config(tt.domain)
			tt.edit(t, &c)
			r, v := startRig(t, t.TempDir(), c, nil)
			eventually(t, "a certificate", func() bool {
				st := r.status(tt.domain)
				return len(st) == 1 && !st[0].NotAfter.IsZero()
			})
			// For an address crypto/tls sends no name: it is that which the client came to.
			cert := shaken(t, v.TLS("pop3s"), p.clientFor(tt.ask))
			if err := cert.VerifyHostname(tt.ask); err != nil {
				t.Error(err)
			}
			if _, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok {
				t.Errorf("got a key of type %T, want the default, ECDSA", cert.PublicKey)
			}
			if got := r.told(audit.CertificateIssued, tt.domain); got != 1 {
				t.Errorf("got %d events, want one", got)
			}
			st := r.status(tt.domain)[0]
			if st.Source != SourceACME || st.KeyType != "ECDSA P-256" || !strings.Contains(st.Issuer, "Pebble") ||
				st.NextRenewal.Before(time.Now()) || st.NextRenewal.After(st.NotAfter) || st.LastError != "" {
				t.Errorf("status: %+v", st)
			}
		})
	}
}

func TestAccountsProfilesAndSecondKeys(t *testing.T) {
	mac := base64.RawURLEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	p := startPebble(t, pebbleOptions{config: map[string]any{
		"externalAccountBindingRequired": true, "externalAccountMACKeys": map[string]string{"kid-1": mac},
		"profiles": map[string]any{"default": profile(90 * 24 * time.Hour), "shortlived": profile(6 * 24 * time.Hour)},
	}})
	key := filepath.Join(t.TempDir(), "hmac")
	write(t, key, []byte(mac+"\n"))
	c := p.config("mail.example.org")
	c.ACME.Key = keyP384
	iss := &c.ACME.Issuers[0]
	iss.Profile, iss.RSAToo = "shortlived", true
	iss.ExternalAccount = ExternalAccount{KeyID: "kid-1", HMACKeyFile: key}
	r, v := startRig(t, t.TempDir(), c, nil)
	eventually(t, "two certificates", func() bool { return len(r.status("mail.example.org")) == 2 })

	cert := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	if k, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || k.Params().BitSize != 384 {
		t.Errorf("got a key %T, want P-384", cert.PublicKey)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore).Round(time.Hour); life != 6*24*time.Hour {
		t.Errorf("got a life of %v, want the profile's six days", life)
	}
	old := p.clientFor("mail.example.org")
	old.MaxVersion, old.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	if k, ok := shaken(t, v.TLS("pop3s"), old).PublicKey.(*rsa.PublicKey); !ok || k.Size() != 256 {
		t.Errorf("an old client got another key than RSA 2048")
	}

	for _, what := range []string{"the RSA one too, after a restart"} {
		before := p.orders()
		r.stop()
		r, v = startRig(t, r.k.stateDir, c, nil)
		shaken(t, v.TLS("pop3s"), old)
		if p.orders() != before {
			t.Errorf("%s: ordered anew", what)
		}
	}
}

func TestIssuersInOrder(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	c := p.config("mail.example.org")
	dead := "https://" + freeAddress(t) + "/dir"
	c.ACME.Issuers = []Issuer{{CA: dead}, c.ACME.Issuers[0]}
	r, v := startRig(t, t.TempDir(), c, nil)
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	if got := r.told(audit.CertificateFailed, "mail.example.org"); got != 1 {
		t.Errorf("got %d events of failure, want one for the issuer that is dead", got)
	}
}

// TestDoorsServeNothingElse: the port is open to the world.
func TestDoorsServeNothingElse(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	c := p.config("mail.example.org")
	c.ACME.TLSALPNAddress = p.alpn
	r, _ := startRig(t, t.TempDir(), c, nil)
	r.log.wait(t, "certificate obtained")
	for _, path := range []string{"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/x", "/.well-known/acme-challenge/../../etc/passwd"} {
		resp, err := http.Get("http://" + p.http + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: got %s, want 404", path, resp.Status)
		}
	}
	for _, protos := range [][]string{nil, {"h2"}, {"pop3"}, {"acme-tls/1"}, {"acme-tls/1", "h2"}} {
		_, err := tls.Dial("tcp", p.alpn, &tls.Config{ServerName: "mail.example.org", NextProtos: protos, InsecureSkipVerify: true})
		if err == nil {
			t.Errorf("%v: a handshake without a challenge went well", protos)
		}
	}
	r.stop()
	for _, address := range []string{p.http, p.alpn} {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Errorf("%s is open after the end", address)
		}
	}
}

// TestStartWithoutIssuer: popgate starts, serves what it has, and goes on trying.
func TestStartWithoutIssuer(t *testing.T) {
	listen := freeAddress(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	c := DefaultConfig()
	c.Certificates = []Files{issueFiles(t, t.TempDir(), "file", "file.example.org")}
	c.ACME.Domains, c.ACME.Agree = []string{"mail.example.org"}, true
	c.ACME.Issuers = []Issuer{{CA: "https://" + listen + "/dir", CARoot: ca}}
	write(t, ca, testCAPEM())
	c.ACME.HTTPAddress, c.ACME.TLSALPNAddress = freeAddress(t), ""
	r, v := startRig(t, t.TempDir(), c, func(r *rig) {
		r.k.acme.backoff = func(error, int) time.Duration { return 100 * time.Millisecond }
		r.k.acme.wait = 300 * time.Millisecond
	})
	rec, _ := r.log.wait(t, "no certificate for now")
	if line := text(rec); !strings.Contains(line, "mail.example.org") || !strings.Contains(line, "connection refused") {
		t.Errorf("the log says %q", line)
	}
	if _, err := shake(v.TLS("pop3s"), client("file.example.org")); err != nil {
		t.Errorf("the file's name: %v", err)
	}
	began := time.Now()
	_, err := shake(v.TLS("pop3s"), client("mail.example.org"))
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("got %v, want the alert", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the handshake took %v", took)
	}
	st := r.status("mail.example.org")[0]
	if st.LastError == "" || st.LastErrorAt.IsZero() || !st.NotAfter.IsZero() {
		t.Errorf("status: %+v", st)
	}
	c.ACME.Missing = missingLocalCA
	v = r.use(c, Listener{Name: "pop3s"})
	spare := client("mail.example.org")
	spare.RootCAs = must(readPool("", filepath.Join(r.k.stateDir, caFile)))
	if _, err := shake(v.TLS("pop3s"), spare); err != nil {
		t.Errorf("with missing: local_ca: %v", err)
	}

	p := startPebble(t, pebbleOptions{listen: listen, config: map[string]any{"httpPort": portOf(c.ACME.HTTPAddress)}})
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	if st := r.status("mail.example.org")[0]; st.LastError != "" {
		t.Errorf("after it went well the status still has %q", st.LastError)
	}
}

// TestValidationRejected: a refusal is the operator's to hear, and the issuer is not asked again at once.
func TestValidationRejected(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	p.dns.set(p.dns.addrs, "mail.example.org", "127.9.9.9") // where nobody listens
	r, v := startRig(t, t.TempDir(), p.config("mail.example.org"), nil)
	rec, _ := r.log.wait(t, "no certificate for now")
	if line := text(rec); !strings.Contains(line, "connection") || !strings.Contains(line, "only DNS-01 works") {
		t.Errorf("the log says %q", line)
	}
	before := p.orders()
	for range 20 {
		if _, err := shake(v.TLS("pop3s"), client("mail.example.org")); err == nil {
			t.Error("a handshake without a certificate went well")
		}
	}
	if got := p.orders(); got != before || before != 1 {
		t.Errorf("got %d and then %d orders, want one", before, got)
	}
	// An operator who has put it right need not wait.
	p.dns.set(p.dns.addrs, "mail.example.org", "127.0.0.1")
	if err := r.k.Renew(t.Context(), "mail.example.org"); err != nil {
		t.Error(err)
	}
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
}

// TestRenewalsSpareSessions: 50 sessions go on, new handshakes show the new certificate.
func TestRenewalsSpareSessions(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	r, v := startRig(t, t.TempDir(), p.config("mail.example.org"), nil)
	first := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))

	ln, err := tls.Listen("tcp", "127.0.0.1:0", v.TLS("pop3s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	var sessions []*tls.Conn
	for range 50 {
		c, err := tls.Dial("tcp", ln.Addr().String(), p.clientFor("mail.example.org"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sessions = append(sessions, c)
	}
	if err := r.k.Renew(t.Context(), "mail.example.org"); err != nil {
		t.Fatal(err)
	}
	second := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	if first.SerialNumber.Cmp(second.SerialNumber) == 0 {
		t.Error("new handshakes show the old certificate")
	}
	for i, c := range sessions {
		line := fmt.Sprintf("STAT %d\r\n", i)
		got := make([]byte, len(line))
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
		if _, err := io.ReadFull(c, got); err != nil || string(got) != line {
			t.Fatalf("session %d: got %q, %v", i, got, err)
		}
	}
	if got := r.told(audit.CertificateIssued, "mail.example.org"); got != 2 {
		t.Errorf("got %d events, want two", got)
	}
	for name, want := range map[string]error{"nobody.example.org": ErrUnknownName} {
		if err := r.k.Renew(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("renew %s: got %v, want %v", name, err, want)
		}
	}
}

// TestRenewalInTime: certificates of 20 seconds are renewed before they run out, without anybody asking.
func TestRenewalInTime(t *testing.T) {
	p := startPebble(t, pebbleOptions{config: map[string]any{"profiles": map[string]any{"default": profile(20 * time.Second)}}})
	_, v := startRig(t, t.TempDir(), p.config("mail.example.org"), nil)
	first := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	eventually(t, "a renewal", func() bool {
		cs, err := shake(v.TLS("pop3s"), p.clientFor("mail.example.org"))
		if err != nil {
			t.Fatalf("between the certificates: %v", err)
		}
		return cs.PeerCertificates[0].SerialNumber.Cmp(first.SerialNumber) != 0
	})
	if time.Now().After(first.NotAfter) {
		t.Error("the first certificate ran out before there was another")
	}
}

func TestDamagedInStorage(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	dir := t.TempDir()
	c := p.config("mail.example.org")
	r, v := startRig(t, dir, c, nil)
	first := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	r.stop()
	for _, ext := range []string{".crt", ".key", ".json"} {
		files, err := filepath.Glob(filepath.Join(dir, "acme/certificates/*/mail.example.org/mail.example.org"+ext))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %v, %v", ext, files, err)
		}
		if err := os.WriteFile(files[0], []byte("half a wri"), 0o600); err != nil {
			t.Fatal(err)
		}
		r, v = startRig(t, dir, c, nil)
		again := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
		if again.SerialNumber.Cmp(first.SerialNumber) == 0 {
			t.Errorf("%s: the damaged one is served", ext)
		}
		first = again
		r.stop()
	}
}

func TestOffline(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	c := p.config("mail.example.org", "pop.example.org")
	r, v := startRig(t, t.TempDir(), c, nil)
	for _, name := range c.ACME.Domains {
		shaken(t, v.TLS("pop3s"), p.clientFor(name))
	}
	certPEM, keyPEM, err := r.k.Export(t.Context(), "mail.example.org")
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	s, err := Offline(c, r.k.stateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	list, err := s.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Name != "mail.example.org" || list[1].Name != "pop.example.org" ||
		list[0].NotAfter.IsZero() || list[0].NextRenewal.IsZero() || list[0].Source != SourceACME {
		t.Errorf("list: %+v, %v", list, err)
	}
	gotCert, gotKey, err := s.Export(t.Context(), "mail.example.org")
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2][]byte{{certPEM, gotKey}, {gotCert, keyPEM}} {
		if _, err := tls.X509KeyPair(pair[0], pair[1]); err != nil {
			t.Errorf("what was exported is not what lies there: %v", err)
		}
	}
	if _, _, err := s.Export(t.Context(), "nobody.example.org"); !errors.Is(err, ErrUnknownName) {
		t.Errorf("export an unknown name: %v", err)
	}
}

// TestTakenPort: where another program has one of the two ports, the other one is used, and no validation fails for it.
func TestTakenPort(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	other, err := net.Listen("tcp", p.alpn)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	c := p.config("a.example.org", "b.example.org", "c.example.org", "d.example.org", "e.example.org", "f.example.org")
	c.ACME.TLSALPNAddress = p.alpn
	r, _ := startRig(t, t.TempDir(), c, nil)
	for range c.ACME.Domains {
		r.log.wait(t, "certificate obtained")
	}
	if said := p.log.String(); strings.Contains(said, "INVALID") || strings.Contains(said, "TLS-ALPN") {
		t.Error("validations were tried on the port of somebody else")
	}
}

func TestCheckReadsWhatACMENames(t *testing.T) {
	c := DefaultConfig()
	c.ACME.Domains, c.ACME.Agree = []string{"mail.example.org"}, true
	c.ACME.Issuers = []Issuer{{CARoot: "/no/ca", ExternalAccount: ExternalAccount{KeyID: "1", HMACKeyFile: "/no/key"}}}
	c.ACME.DNS.Provider, c.ACME.DNS.RFC2136.Server, c.ACME.DNS.RFC2136.KeyFile = "rfc2136", "127.0.0.1", "/no/tsig"
	c.ClientCA = ClientCA{File: "/no/clients", Mode: "require"}
	_, err := Check(c)
	var keys []string
	for _, p := range Problems(err) {
		keys = append(keys, p.Key)
	}
	want := "tls.acme.issuers[0].ca_root tls.acme.issuers[0].external_account.hmac_key_file tls.acme.dns tls.client_ca.file"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	_, err = New(t.TempDir(), nil, nil).Prepare(c, nil, nil, Deps{})
	if len(Problems(err)) == 0 {
		t.Errorf("Prepare: %v", err)
	}
}
