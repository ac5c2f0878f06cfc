package certs

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/popgate/popgate/policy/audit"
)

// A responder says of certificates whether they are revoked.
type responder struct {
	issuer func() (*x509.Certificate, crypto.Signer)

	mu      sync.Mutex
	revoked map[string]bool // by serial number
	broken  bool
	asked   int
	life    time.Duration // of its answers
}

func startResponder(t *testing.T) (*responder, string) {
	t.Helper()
	o := &responder{revoked: make(map[string]bool), life: time.Hour}
	o.issuer = func() (*x509.Certificate, crypto.Signer) { return testIssuer().cert, testIssuer().key }
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	return o, server.URL
}

func (o *responder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, ok := o.answer(must(io.ReadAll(r.Body)))
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(raw)
}

func (o *responder) answer(request []byte) (raw []byte, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	if o.broken {
		return nil, false
	}
	req := must(ocsp.ParseRequest(request))
	issuer, key := o.issuer()
	now := time.Now()
	reply := ocsp.Response{Status: ocsp.Good, SerialNumber: req.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(o.life)}
	if o.revoked[req.SerialNumber.Text(16)] {
		reply.Status, reply.RevokedAt = ocsp.Revoked, now
	}
	return must(ocsp.CreateResponse(issuer, issuer, reply, key)), true
}

// with changes o while it may be asked.
func (o *responder) with(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func (o *responder) asks() (n int) {
	o.with(func() { n = o.asked })
	return n
}

// dueNow has the responders asked at the next round, as if it were time.
func (s *stapler) dueNow() {
	again := make(map[string]*staple)
	for key, st := range *s.now.Load() {
		next := *st
		next.next = time.Time{}
		again[key] = &next
	}
	s.now.Store(&again)
}

// stapledPair is a pair, with its issuer's certificate, whose responder is at url.
func stapledPair(key crypto.Signer, url string, names ...string) (certPEM, keyPEM []byte) {
	certPEM, keyPEM = pemPair(key, func(c *x509.Certificate) { c.OCSPServer = []string{url} }, names...)
	return append(certPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: testIssuer().cert.Raw})...), keyPEM
}

// rsaOnly is a client that cannot do ECDSA.
func rsaOnly(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	return c
}

// stapled waits until a client is shown a good answer, and gives the connection.
func stapled(t *testing.T, server, client *tls.Config, issuer *x509.Certificate) tls.ConnectionState {
	t.Helper()
	var cs tls.ConnectionState
	eventually(t, "a staple", func() bool {
		var err error
		if cs, err = shakeOverTCP(t, server, client); err != nil {
			t.Fatal(err)
		}
		return len(cs.OCSPResponse) > 0
	})
	if reply, err := ocsp.ParseResponseForCert(cs.OCSPResponse, cs.PeerCertificates[0], issuer); err != nil || reply.Status != ocsp.Good {
		t.Errorf("the staple: %v, %v", reply, err)
	}
	return cs
}

func TestStapleAndRevocation(t *testing.T) {
	o, url := startResponder(t)
	p := startPebble(t, pebbleOptions{config: map[string]any{"ocspResponderURL": url, "keyAlgorithm": "rsa"}})
	issuer, key := p.intermediate()
	o.with(func() { o.issuer = func() (*x509.Certificate, crypto.Signer) { return issuer, key } })
	c := p.config("mail.example.org")
	c.ACME.Issuers[0].RSAToo = true
	r, v := startRig(t, t.TempDir(), c, func(r *rig) { r.k.every = 50 * time.Millisecond })
	client := p.clientFor("mail.example.org")
	shaken(t, v.TLS("pop3s"), client)
	eventually(t, "two certificates", func() bool { return len(r.status("mail.example.org")) == 2 })
	// Both of a name's certificates are asked about.
	first := stapled(t, v.TLS("pop3s"), client, issuer).PeerCertificates[0]
	second := stapled(t, v.TLS("pop3s"), rsaOnly(client), issuer).PeerCertificates[0]
	if first.PublicKeyAlgorithm != x509.ECDSA || second.PublicKeyAlgorithm != x509.RSA {
		t.Fatalf("got %v and %v", first.PublicKeyAlgorithm, second.PublicKeyAlgorithm)
	}
	// One of them is revoked: it is replaced, and not the other.
	for _, tt := range []struct {
		revoked *x509.Certificate
		client  *tls.Config
	}{{second, rsaOnly(client)}, {first, client}} {
		o.with(func() { o.revoked[tt.revoked.SerialNumber.Text(16)] = true })
		eventually(t, "another certificate than the revoked one", func() bool {
			r.k.stapler.dueNow() // each time: a round at work may not see it
			cs, err := shakeOverTCP(t, v.TLS("pop3s"), tt.client)
			return err == nil && cs.PeerCertificates[0].SerialNumber.Cmp(tt.revoked.SerialNumber) != 0
		})
		if tt.revoked == second {
			if got := shaken(t, v.TLS("pop3s"), client); got.SerialNumber.Cmp(first.SerialNumber) != 0 {
				t.Error("the certificate that is not revoked was replaced")
			}
		}
	}
	if got := r.told(audit.CertificateRevoked, "mail.example.org"); got != 2 {
		t.Errorf("got %d events of revocations, want two", got)
	}
}

// TestStapleOfFiles: certificates that somebody else renews are stapled too, each of a name's.
func TestStapleOfFiles(t *testing.T) {
	o, url := startResponder(t)
	dir := t.TempDir()
	certPEM, keyPEM := stapledPair(nil, url, "mail.example.org")
	rsaCert, rsaKey := stapledPair(testRSA(), url, "mail.example.org")
	c := withFiles(put(t, dir, "ec", certPEM, keyPEM), put(t, dir, "rsa", rsaCert, rsaKey), issueFiles(t, dir, "plain", "plain.example.org"))
	r, v := startRig(t, "", c, func(r *rig) { r.k.every = 50 * time.Millisecond })
	stapled(t, v.TLS("pop3s"), client("mail.example.org"), testIssuer().cert)
	stapled(t, v.TLS("pop3s"), rsaOnly(client("mail.example.org")), testIssuer().cert)
	if cs, err := shakeOverTCP(t, v.TLS("pop3s"), client("plain.example.org")); err != nil || len(cs.OCSPResponse) > 0 {
		t.Errorf("a certificate without a responder: %v, %d bytes", err, len(cs.OCSPResponse))
	}

	// A renewed file has an answer of its own.
	certPEM, keyPEM = stapledPair(nil, url, "mail.example.org")
	put(t, dir, "ec", certPEM, keyPEM)
	want := serial(t, c.Certificates[0])
	eventually(t, "the renewed certificate with its staple", func() bool {
		cs, err := shakeOverTCP(t, v.TLS("pop3s"), client("mail.example.org"))
		return err == nil && cs.PeerCertificates[0].SerialNumber.String() == want && len(cs.OCSPResponse) > 0
	})

	// A revoked one is the operator's to replace, and said once.
	leaf := must(c.Certificates[0].load("test")).Leaf
	o.with(func() { o.revoked[leaf.SerialNumber.Text(16)] = true })
	for range 3 {
		asked := o.asks()
		eventually(t, "the responder is asked", func() bool { r.k.stapler.dueNow(); return o.asks() > asked })
	}
	eventually(t, "the end of the staple", func() bool {
		r.k.stapler.dueNow()
		cs, err := shakeOverTCP(t, v.TLS("pop3s"), client("mail.example.org"))
		return err == nil && len(cs.OCSPResponse) == 0
	})
	if got := r.told(audit.CertificateRevoked, "mail.example.org"); got != 1 {
		t.Errorf("got %d events of the revocation, want one", got)
	}
}

// answers is a way to the responder without sockets, for bubbles.
type answers struct{ *responder }

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w.Result(), nil
}

// TestStapleEnds: an answer is shown until it ends and no longer, and a responder that is down is asked at ever longer intervals.
func TestStapleEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := &responder{life: time.Hour, issuer: func() (*x509.Certificate, crypto.Signer) { return testIssuer().cert, testIssuer().key }}
		k := New("", slog.New(slog.DiscardHandler), nil)
		k.every = time.Minute
		k.stapler.client = &http.Client{Transport: answers{o}}
		certPEM, keyPEM := stapledPair(nil, "http://ocsp.invalid/", "mail.example.org")
		v := prepare(t, k, withFiles(put(t, dir, "mail", certPEM, keyPEM)))
		shows := func() bool {
			return must(v.TLS("pop3s").GetCertificate(&tls.ClientHelloInfo{ServerName: "mail.example.org"})).OCSPStaple != nil
		}
		if shows() {
			t.Error("a staple out of nothing")
		}
		run(t, k)
		synctest.Wait()
		if !shows() {
			t.Fatal("no staple")
		}
		// Asked again at half of its life, so that there is always one.
		time.Sleep(3 * time.Hour)
		if got := o.asks(); !shows() || got < 5 || got > 8 {
			t.Errorf("asked %d times in three hours", got)
		}

		o.with(func() { o.broken, o.asked = true, 0 })
		time.Sleep(20 * time.Minute)
		if !shows() {
			t.Error("an answer that holds is not shown")
		}
		time.Sleep(40 * time.Minute)
		if shows() {
			t.Error("an answer that has ended is shown")
		}
		time.Sleep(23 * time.Hour)
		if got := o.asks(); got < 20 || got > 40 {
			t.Errorf("a responder that is down was asked %d times in a day", got)
		}
		o.with(func() { o.broken = false })
		time.Sleep(time.Hour + time.Minute)
		if !shows() {
			t.Error("no staple though the responder is back")
		}
	})
}

// TestStapleIsNotWaitedFor: a responder that never answers holds up neither a handshake nor those of another one.
func TestStapleIsNotWaitedFor(t *testing.T) {
	_, good := startResponder(t)
	asked, ends := make(chan struct{}, 100), make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-ends:
		case <-r.Context().Done():
		}
	}))
	defer silent.Close()
	defer close(ends)
	dir := t.TempDir()
	certPEM, keyPEM := stapledPair(nil, silent.URL, "slow.example.org")
	otherPEM, otherKey := stapledPair(nil, good, "quick.example.org")
	_, v := startRig(t, "", withFiles(put(t, dir, "slow", certPEM, keyPEM), put(t, dir, "quick", otherPEM, otherKey)), func(r *rig) { r.k.every = 50 * time.Millisecond })
	<-asked
	if cs, err := shakeOverTCP(t, v.TLS("pop3s"), client("slow.example.org")); err != nil || len(cs.OCSPResponse) > 0 {
		t.Errorf("got %v and %d bytes", err, len(cs.OCSPResponse))
	}
	stapled(t, v.TLS("pop3s"), client("quick.example.org"), testIssuer().cert)
}
