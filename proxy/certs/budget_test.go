package certs

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// TestBudgetIsTheStrangersOwn: one who has used up what his network may ask for keeps no name from anybody else.
func TestBudgetIsTheStrangersOwn(t *testing.T) {
	c := offDemand()
	c.ACME.OnDemand.PerNetwork = limit.Rate{Count: 1, Per: time.Hour}
	m, v := unrun(t, c, Deps{Knows: func(string) bool { return true }})
	const name = "mail.example.org"
	stranger, neighbour := from("192.0.2.7", name), from("198.51.100.7", name)

	// Begun while there was budget, and refused since: the race that expected cannot close.
	o, _ := m.expected(stranger, name)
	if o == nil {
		t.Fatal("no order within the budget")
	}
	m.budgets.networks.Take(o.m.network, v.acme.section.OnDemand.PerNetwork, m.now())
	err := m.allowed(t.Context(), v.acme, o)
	if !fleeting(err) {
		t.Fatalf("got %v, want a refusal that says nothing about the name", err)
	}
	m.fail(o, err)
	if m.recall.len() != 0 || len(m.all) != 0 {
		t.Errorf("%d names are noted, %d have a place", m.recall.len(), len(m.all))
	}

	for range 3 {
		if o, ours := m.expected(stranger, name); o != nil || !ours || len(m.all) != 0 {
			t.Errorf("without budget: order %v, ours %v, %d names", o, ours, len(m.all))
		}
	}
	o, _ = m.expected(neighbour, name)
	if o == nil {
		t.Fatal("another network's client gets no order")
	}
	// What the stranger cannot have ordered he may have all the same.
	if joined, _ := m.expected(stranger, name); joined != o {
		t.Error("the order at work is kept from the stranger")
	}
	m.fail(o, &refusal{reason: "of the name's own"})
	if o, _ := m.expected(neighbour, name); o != nil {
		t.Error("what a refusal says about the name is forgotten")
	}
}

// TestLookTakesNoBudget: names that lie in the storage cost a network nothing.
func TestLookTakesNoBudget(t *testing.T) {
	b, rate := newBudgets(), limit.Rate{Count: 2, Per: time.Hour}
	key := b.hasher.Network(netip.MustParsePrefix("192.0.2.7/32"))
	for n := range int64(2) {
		for range 5 {
			if !b.left(key, rate, n) {
				t.Fatalf("after %d orders and some looks nothing is left", n)
			}
		}
		if _, ok := b.networks.Take(key, rate, n); !ok {
			t.Fatalf("looks took the turn of order %d", n)
		}
	}
	if b.left(key, rate, 2) {
		t.Error("more is left than the rate has")
	}
	if !b.left(key, limit.Rate{}, 2) {
		t.Error("a rate that is off leaves nothing")
	}
}

// TestRenewalIsFree: only the first order of a name that a client brings up is charged to that client and its domain.
func TestRenewalIsFree(t *testing.T) {
	z := startZone(t)
	c := offDemand()
	c.ACME.OnDemand.Resolver, c.ACME.OnDemand.Addresses = z.address, []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	one := limit.Rate{Count: 1, Per: time.Hour}
	c.ACME.OnDemand.PerNetwork, c.ACME.OnDemand.PerDomain = one, one
	m, v := unrun(t, c, Deps{Knows: func(string) bool { return true }})
	key := m.budgets.hasher.Network(netip.MustParsePrefix("192.0.2.7/32"))
	held := &managed{name: "mail.example.org", network: key}
	held.shown.Store(&shown{})
	for range 3 {
		if err := m.allowed(t.Context(), v.acme, newOrder(held, false)); err != nil {
			t.Errorf("a renewal: %v", err)
		}
	}
	if err := m.allowed(t.Context(), v.acme, newOrder(&managed{name: "mail.example.org", network: key}, false)); err != nil {
		t.Errorf("renewals took the budget of the first order: %v", err)
	}
	// Those whose domains are listed neither.
	for _, name := range []string{"mail.example.com", "mail.sub.example.com", "mail.sub.example.org"} {
		if err := m.allowed(t.Context(), v.acme, newOrder(&managed{name: name, origin: listed}, false)); err != nil {
			t.Errorf("a listed name: %v", err)
		}
	}
	stranger := m.budgets.hasher.Network(netip.MustParsePrefix("198.51.100.7/32"))
	err := m.allowed(t.Context(), v.acme, newOrder(&managed{name: "mail.sub.example.org", network: stranger}, false))
	if _, ok := errors.AsType[*refusal](err); !ok || fleeting(err) {
		t.Errorf("a second name below the domain: %v", err)
	}
	if err := m.allowed(t.Context(), v.acme, newOrder(&managed{name: "mail.example.net", network: key}, false)); !fleeting(err) {
		t.Errorf("a second name for the network: %v", err)
	}
	if err := m.allowed(t.Context(), v.acme, newOrder(held, false)); err != nil {
		t.Errorf("a renewal once all budgets are used up: %v", err)
	}
	// It must still lead here.
	z.set(z.addrs, "mail.example.org", "192.0.2.9")
	if err := m.allowed(t.Context(), v.acme, newOrder(held, false)); err == nil {
		t.Error("a renewal of a name that leads elsewhere")
	}
}

func TestServedNamesWaitForMinutes(t *testing.T) {
	m, _ := unrun(t, offDemand(), Deps{})
	passing := &refusal{reason: "x", fleeting: true}
	e := &managed{name: "mail.example.org"}
	if got := m.pause(e, passing); got > 10*time.Second {
		t.Errorf("without a certificate it waits for %v", got)
	}
	e.shown.Store(&shown{})
	if got := m.pause(e, passing); got < time.Minute {
		t.Errorf("a served name is tried again after %v", got)
	}
}

func TestReachable(t *testing.T) {
	for _, tt := range []struct {
		name      string
		all, want []string
	}{
		{"public", []string{"127.0.0.1", "::1", "169.254.1.1", "fe80::1", "10.0.0.1", "fd00::1", "192.0.2.1", "2001:db8::1"},
			[]string{"192.0.2.1", "2001:db8::1"}},
		{"on a network of its own", []string{"127.0.0.1", "::1", "169.254.1.1", "fe80::1", "10.0.0.1", "fd00::1"},
			[]string{"10.0.0.1", "fd00::1"}},
		{"alone", []string{"127.0.0.1", "::1", "fe80::1"}, nil},
	} {
		var all, want []netip.Addr
		for _, a := range tt.all {
			all = append(all, netip.MustParseAddr(a))
		}
		for _, a := range tt.want {
			want = append(want, netip.MustParseAddr(a))
		}
		if got := reachable(all); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, want)
		}
	}
	v := &acmeView{}
	for _, a := range must(v.here()) {
		if a.IsLoopback() || a.IsLinkLocalUnicast() {
			t.Errorf("%s counts as ours", a)
		}
	}
	loop := netip.MustParseAddr("127.0.0.1")
	v.section.OnDemand.Addresses = []netip.Addr{loop}
	if got := must(v.here()); !slices.Equal(got, []netip.Addr{loop}) {
		t.Errorf("got %v, want what is configured", got)
	}
}
