package certs

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"
)

// TestNeverAnOlderOne: what a visit has read long ago does not take the place of what is shown by now.
func TestNeverAnOlderOne(t *testing.T) {
	now := time.Now()
	made := func(issuer string, age, left time.Duration) *site {
		certPEM, keyPEM := pemPair(nil, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-age), now.Add(left) }, "mail.example.org")
		return &site{place: place{issuer: issuer, name: "mail.example.org"}, cert: new(must(tls.X509KeyPair(certPEM, keyPEM)))}
	}
	old, fresh := made("a", 24*time.Hour, time.Hour), made("a", time.Hour, 90*24*time.Hour)
	other, ended := made("b", 48*time.Hour, time.Hour), made("a", time.Minute, -time.Second)
	for _, tt := range []struct {
		name                string
		before, read, shown *site
		revoked             bool
	}{
		{name: "renewed", before: old, read: fresh, shown: fresh},
		{name: "read before it was renewed", before: fresh, read: old, shown: fresh},
		{name: "another issuer's stands in", before: fresh, read: other, shown: other},
		{name: "the newer one has ended", before: ended, read: old, shown: old},
		{name: "the newer one is revoked", before: fresh, read: old, shown: old, revoked: true},
	} {
		m := newManager(nil, newOrderMetrics())
		e := &managed{name: "mail.example.org", origin: configured}
		m.all[e.name] = e
		m.install(e, []*site{tt.before})
		if tt.revoked {
			e.revoked = []string{serialOf(tt.before.cert)}
		}
		m.install(e, []*site{tt.read})
		if got := m.find(e.name)[0]; got != tt.shown.cert || e.shown.Load().sites[0] != tt.shown {
			t.Errorf("%s: got the certificate of %v", tt.name, got.Leaf.NotBefore)
		}
	}
}
