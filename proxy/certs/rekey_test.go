package certs

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// kinds gives the kinds of keys that the names' certificates have, sorted.
func (r *rig) kinds(names ...string) (all []string) {
	r.t.Helper()
	for _, name := range names {
		for _, st := range r.status(name) {
			all = append(all, st.KeyType)
		}
	}
	slices.Sort(all)
	return all
}

// TestKeyChanges: another `key` in the configuration is another certificate soon, and as many at once as there are turns.
func TestKeyChanges(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	c := p.config("a.example.org", "b.example.org")
	c.ACME.Orders = limit.Rate{Count: 3, Per: 24 * time.Hour}
	r, v := startRig(t, t.TempDir(), c, nil)
	for _, name := range c.ACME.Domains {
		shaken(t, v.TLS("pop3s"), p.clientFor(name))
	}
	c.ACME.Key = keyP384
	v = r.use(c, Listener{Name: "pop3s"})
	one := []string{"ECDSA P-256", "ECDSA P-384"}
	eventually(t, "one certificate with the other kind of key", func() bool { return slices.Equal(r.kinds(c.ACME.Domains...), one) })
	for _, name := range c.ACME.Domains { // there is no turn left for the second
		r.due(name)
		shaken(t, v.TLS("pop3s"), p.clientFor(name)) // nobody waits for one
	}
	if got := r.kinds(c.ACME.Domains...); !slices.Equal(got, one) || p.orders() != 3 {
		t.Errorf("got %v after %d orders, want one of each after 3", got, p.orders())
	}

	c.ACME.Orders = limit.Rate{}
	r.use(c, Listener{Name: "pop3s"})
	eventually(t, "the other one too", func() bool { return slices.Equal(r.kinds(c.ACME.Domains...), []string{"ECDSA P-384", "ECDSA P-384"}) })
	r.use(c, Listener{Name: "pop3s"})
	for _, name := range c.ACME.Domains {
		r.due(name)
	}
	if got := p.orders(); got != 4 {
		t.Errorf("got %d orders, want 4", got)
	}
}

// TestKeysDiffer: two gateways with one storage and different kinds of keys do not order for ever.
func TestKeysDiffer(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	dir := t.TempDir()
	c := p.config("mail.example.org")
	a, va := startRig(t, dir, c, nil)
	shaken(t, va.TLS("pop3s"), p.clientFor("mail.example.org"))
	c.ACME.Issuers[0].Key = keyRSA2048
	b, vb := startRig(t, dir, c, nil)
	eventually(t, "an RSA certificate", func() bool {
		return shaken(t, vb.TLS("pop3s"), p.clientFor("mail.example.org")).PublicKeyAlgorithm == x509.RSA
	})
	for range 3 {
		a.due("mail.example.org")
		b.due("mail.example.org")
	}
	if got := p.orders(); got != 2 {
		t.Errorf("got %d orders, want one for each gateway", got)
	}
}
