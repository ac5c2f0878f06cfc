package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestMissingOnDemand: with `missing: local_ca` a customer's name is served, by the local CA, as long as its own certificate is to come. No
// other name is.
func TestMissingOnDemand(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	p.dns.set(p.dns.addrs, "mail.example.org", "192.0.2.1") // not here yet
	dir := t.TempDir()
	c := p.demanding("mail.{domain}")
	c.ACME.Missing = missingLocalCA
	r, v := startRig(t, dir, c, knowing("example.org"))
	trusting := func(name string) *tls.Config {
		roots := x509.NewCertPool()
		roots.AddCert(must(openAuthority(dir)).cert)
		return &tls.Config{ServerName: name, RootCAs: roots}
	}
	for _, name := range []string{"mail.example.org", "MAIL.example.org"} {
		cs, err := shakeOverTCP(t, v.TLS("pop3s"), trusting(name))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := cs.PeerCertificates[0].DNSNames; len(got) != 1 || got[0] != "mail.example.org" {
			t.Errorf("%s: the certificate is for %v", name, got)
		}
	}
	for _, name := range []string{"mail.example.net", "imap.example.org", "example.org"} {
		client := trusting(name)
		client.InsecureSkipVerify = true // whatever it is, it would be too much
		if cs, err := shakeOverTCP(t, v.TLS("pop3s"), client); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: got %v and the certificate for %v, want the alert", name, err, cs.PeerCertificates[0].DNSNames)
		}
	}

	// Once the name leads here, the next try gets the issuer's.
	p.dns.set(p.dns.addrs, "mail.example.org", "127.0.0.1")
	r.k.acme.mu.Lock()
	r.k.acme.recall.drop("mail.example.org")
	r.k.acme.mu.Unlock()
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
}

// TestSpares: they are made once, renewed in time, and bounded.
func TestSpares(t *testing.T) {
	ca := must(openAuthority(t.TempDir()))
	synctest.Test(t, func(t *testing.T) {
		// In the bubble it is the year 2000, before the CA's time.
		s := newSpares(&authority{cert: &x509.Certificate{RawSubject: ca.cert.RawSubject, NotAfter: time.Now().Add(caLife), PublicKey: ca.cert.PublicKey, SubjectKeyId: ca.cert.SubjectKeyId}, key: ca.key})
		first := must(s.find("a.example"))
		time.Sleep(leafLife / 2)
		if again := must(s.find("a.example")); again != first {
			t.Error("made again before its time")
		}
		time.Sleep(leafLife / 2)
		if again := must(s.find("a.example")); again == first || !time.Now().Before(again.Leaf.NotAfter) {
			t.Error("not made again though it has run out")
		}
		kept := must(s.find("a.example"))
		var many sync.WaitGroup
		for n := range 2*spareNames + 10 {
			if n%100 == 0 { // somebody asks for it now and then
				if must(s.find("a.example")) != kept {
					t.Fatal("a name in use was forgotten")
				}
			}
			many.Go(func() { must(s.find(fmt.Sprintf("n%d.example", n))) })
			if n%100 == 99 {
				many.Wait()
			}
		}
		many.Wait()
		if got := len(s.young) + len(s.old); got > 2*spareNames {
			t.Errorf("%d are kept, want %d at most", got, 2*spareNames)
		}
	})
}
