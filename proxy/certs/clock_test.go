package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/policy/audit"
)

// keep puts a certificate of the test CA with such a life into a storage in files, as if the issuer of c had given it.
func keep(t *testing.T, stateDir string, c Config, name string, from, to time.Time) string {
	t.Helper()
	iss := &certmagic.ACMEIssuer{CA: c.ACME.issuers()[0].CA}
	p := place{issuer: iss.IssuerKey(), name: name}
	certPEM, keyPEM := pemPair(nil, func(leaf *x509.Certificate) { leaf.NotBefore, leaf.NotAfter = from, to }, name)
	files := &certmagic.FileStorage{Path: filepath.Join(stateDir, "acme")}
	for key, data := range map[string][]byte{
		p.certKey(): certPEM, p.keyKey(): keyPEM, p.metaKey(): must(json.Marshal(certmagic.CertificateResource{})),
	} {
		if err := files.Store(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	return must(tls.X509KeyPair(certPEM, keyPEM)).Leaf.SerialNumber.String()
}

// heedless is a client that takes whatever it is shown, to look at it.
func heedless(name string) *tls.Config {
	return &tls.Config{ServerName: name, InsecureSkipVerify: true}
}

// TestClocks starts gateways with what lay in the storage for so long that only little of its life is left, or nothing, or with a clock
// that is behind the issuer's.
func TestClocks(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	p := startPebble(t, pebbleOptions{})
	for _, tt := range []struct {
		name     string
		from, to time.Duration // from now
		served   bool          // while it is renewed; else the first client waits
		renewed  bool
	}{
		{"fresh", -10 * day, 80 * day, true, false},
		{"near its end", -90*day + time.Minute, time.Minute, true, true},
		{"expired", -91 * day, -day, false, true},
		{"not valid yet", time.Hour, 90 * day, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := p.config("mail.example.org")
			now := time.Now()
			old := keep(t, dir, c, "mail.example.org", now.Add(tt.from), now.Add(tt.to))
			before := p.orders()
			if tt.served {
				p.dns.mu.Lock() // no order comes to its end
			}
			r, v := startRig(t, dir, c, nil)
			first, err := shake(v.TLS("pop3s"), heedless("mail.example.org"))
			if tt.served {
				p.dns.mu.Unlock()
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := first.PeerCertificates[0]; tt.served != (got.SerialNumber.String() == old) {
				t.Errorf("the first client got one until %v", got.NotAfter)
			}
			if !tt.renewed {
				if st := r.status("mail.example.org"); len(st) != 1 || p.orders() != before {
					t.Errorf("it was ordered anew: %+v", st)
				}
				return
			}
			again := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
			if again.SerialNumber.String() == old || time.Until(again.NotAfter) < 80*day {
				t.Errorf("got one until %v, want a new one", again.NotAfter)
			}
			if got := r.told(audit.CertificateIssued, "mail.example.org"); got != 1 || p.orders() != before+1 {
				t.Errorf("got %d events after %d orders, want one each", got, p.orders()-before)
			}
		})
	}
}

// TestLifeWithoutIssuer lets a certificate's whole life go by, and half as much again, while the issuer is away: it is served all the time,
// the alert comes once two thirds are over, the tries keep their distance, and one that comes into the storage by another way is taken.
func TestLifeWithoutIssuer(t *testing.T) {
	const (
		life = 9 * time.Hour
		name = "mail.example.org"
	)
	dir := t.TempDir()
	c := DefaultConfig()
	c.ACME.Domains, c.ACME.Agree = []string{name}, true
	c.ACME.Issuers = []Issuer{{CA: "https://" + freeAddress(t) + "/dir"}}
	// No port: a bubble's time stands still while something in it waits for a network.
	c.ACME.HTTPAddress, c.ACME.TLSALPNAddress = "", ""
	c.ACME.DNS.Provider, c.ACME.DNS.Exec.Command = "exec", []string{"/bin/false"}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		old := keep(t, dir, c, name, began, began.Add(life))
		reg := prometheus.NewPedanticRegistry()
		r, v := startRig(t, dir, c, func(r *rig) { r.k = New(dir, r.k.log, reg) })
		for _, tt := range []struct {
			at      time.Duration
			overdue float64
			least   int // tries so far, which come every ten minutes at the latest
			most    int // and not much more often
		}{
			{life/3*2 - time.Minute, 0, 0, 0},
			{life / 4 * 3, 1, 4, 12},
			{life - time.Minute, 1, 16, 32},
			{life / 2 * 3, 1, 40, 64},
		} {
			<-time.After(time.Until(began.Add(tt.at)))
			synctest.Wait()
			if got := served(t, v.TLS("pop3s"), heedless(name)); got != old {
				t.Errorf("after %v another certificate is served", tt.at)
			}
			if got := gauge(t, reg, "popgate_certificates_overdue"); got != tt.overdue {
				t.Errorf("after %v %v are overdue, want %v", tt.at, got, tt.overdue)
			}
			if got := len(r.failed(name)); got < tt.least || got > tt.most {
				t.Errorf("after %v %d orders have failed, want %d to %d", tt.at, got, tt.least, tt.most)
			}
		}
		if st := r.status(name)[0]; st.LastError == "" || time.Since(st.LastErrorAt) > 11*time.Minute {
			t.Errorf("status: %+v", st)
		}
		// Another node has had more luck.
		now := time.Now()
		fresh := keep(t, dir, c, name, now, now.Add(life))
		<-time.After(recheck + time.Minute)
		synctest.Wait()
		if got := served(t, v.TLS("pop3s"), heedless(name)); got != fresh || gauge(t, reg, "popgate_certificates_overdue") != 0 {
			t.Errorf("what came into the storage is not served")
		}
	})
}

// gauge is the value of a metric without labels.
func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	for _, family := range must(reg.Gather()) {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
