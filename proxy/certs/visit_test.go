package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
)

// TestBetter: what stands in for a certificate that is due or revoked may end before that.
func TestBetter(t *testing.T) {
	now := time.Now()
	made := func(serial int64, age, life time.Duration) *site {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: now.Add(-age), NotAfter: now.Add(life - age)}
		return &site{cert: &tls.Certificate{Leaf: leaf}}
	}
	const day = 24 * time.Hour
	due, short, long := made(1, 80*day, 90*day), made(2, time.Hour, day), made(3, time.Hour, 90*day)
	old, revoked := made(4, 80*day, 85*day), made(5, time.Hour, 90*day)
	for _, tt := range []struct {
		name       string
		good, less *site
	}{
		{"not due before due", short, due},
		{"the later renewal", long, short},
		{"of two that are due the later end", due, old},
		{"not revoked", short, revoked},
		{"due before revoked", due, revoked},
	} {
		if !tt.good.better(tt.less, now, []string{"5"}) || tt.less.better(tt.good, now, []string{"5"}) {
			t.Errorf("%s: the wrong one", tt.name)
		}
	}
}

// TestSecondKeysTakeTurns: each order takes its own turn, and none is placed for what is not due.
func TestSecondKeysTakeTurns(t *testing.T) {
	const name = "mail.example.org"
	p := startPebble(t, pebbleOptions{})
	c := p.config(name)
	c.ACME.Issuers[0].RSAToo = true
	c.ACME.Orders = limit.Rate{Count: 3, Per: time.Hour}
	dir := t.TempDir()
	r, _ := startRig(t, dir, c, nil)
	eventually(t, "two certificates", func() bool { return len(r.status(name)) == 2 })
	if err := os.RemoveAll(filepath.Join(dir, "acme", rsaSiteDir)); err != nil {
		t.Fatal(err)
	}
	r.due(name)
	if got := p.orders(); got != 3 {
		t.Errorf("got %d orders, want two and one for the certificate that is gone", got)
	}
	m := r.k.acme
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := c.ACME.Orders.Take(m.turns.tat, m.now()); ok {
		t.Error("there is a turn left: an order took none")
	}
}

// TestSetback: an issuer that failed is left alone for a while, although the next one succeeded.
func TestSetback(t *testing.T) {
	const name = "mail.example.org"
	p := startPebble(t, pebbleOptions{})
	c := p.config(name)
	c.ACME.Issuers = []Issuer{{CA: "https://" + freeAddress(t) + "/dir"}, c.ACME.Issuers[0]}
	dir := t.TempDir()
	r, v := startRig(t, dir, c, func(r *rig) {
		r.k.acme.backoff = func(error, int) time.Duration { return time.Hour }
	})
	shaken(t, v.TLS("pop3s"), p.clientFor(name))
	if err := os.RemoveAll(filepath.Join(dir, "acme", siteDir)); err != nil {
		t.Fatal(err)
	}
	r.due(name)
	if got := p.orders(); got != 2 {
		t.Errorf("got %d orders at the issuer that works, want two", got)
	}
	if got := r.told(audit.CertificateFailed, name); got != 1 {
		t.Errorf("the issuer that is dead was asked %d times, want once", got)
	}
	if st := r.status(name); len(st) != 1 || st[0].LastError != "" {
		t.Errorf("another issuer helped, and the status still has the failure: %+v", st)
	}
}

// TestRenewalByAnotherAccount: an issuer that will not have a certificate of another account replaced gives one all the same.
func TestRenewalByAnotherAccount(t *testing.T) {
	const name = "mail.example.org"
	p, dir := startPebble(t, pebbleOptions{}), t.TempDir()
	c := p.config(name)
	r, v := startRig(t, dir, c, nil)
	first := shaken(t, v.TLS("pop3s"), p.clientFor(name))
	r.stop()
	if err := os.RemoveAll(filepath.Join(dir, "acme", "acme")); err != nil {
		t.Fatal(err)
	}
	r, v = startRig(t, dir, c, nil)
	shaken(t, v.TLS("pop3s"), p.clientFor(name))
	if err := r.k.Renew(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if second := shaken(t, v.TLS("pop3s"), p.clientFor(name)); second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("the first certificate is served on")
	}
	r.log.wait(t, "an order is refused that names the certificate it replaces: ordered once more without")
	if got := r.told(audit.CertificateFailed, name); got != 0 {
		t.Errorf("got %d events of failure, want none", got)
	}
}

func TestAboutPast(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"an order refused", fmt.Errorf("x: %w", acme.Problem{Type: acme.ProblemTypeUnauthorized}), true},
		{"a validation", fmt.Errorf("x: %w", acme.Problem{Type: acme.ProblemTypeUnauthorized, Resource: acme.Authorization{}}), false},
		{"a limit", acme.Problem{Type: acme.ProblemTypeRateLimited}, false},
		{"the way there", os.ErrDeadlineExceeded, false},
		{"nothing", nil, false},
	} {
		if got := aboutPast(tt.err); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}
