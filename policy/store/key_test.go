package store_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/popgate/popgate/policy/store"
)

// TestSharedHasher: nodes with one secret have the same keys, and others, or other things, have others.
func TestSharedHasher(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	a, b := store.NewSharedHasher(secret), store.NewSharedHasher(bytes.Clone(secret))
	other := store.NewSharedHasher(bytes.Repeat([]byte{8}, 32))
	long := strings.Repeat("x", 2000)
	made := map[string]func(h store.Hasher) store.Key{
		"192.0.2.1/32":  func(h store.Hasher) store.Key { return h.Network(netip.MustParsePrefix("192.0.2.1/32")) },
		"192.0.2.0/24":  func(h store.Hasher) store.Key { return h.Network(netip.MustParsePrefix("192.0.2.0/24")) },
		"2001:db8::/64": func(h store.Hasher) store.Key { return h.Network(netip.MustParsePrefix("2001:db8::/64")) },
		"ab, c":         func(h store.Hasher) store.Key { return h.Pair("ab", "c") },
		"a, bc":         func(h store.Hasher) store.Key { return h.Pair("a", "bc") },
		"abc, ":         func(h store.Hasher) store.Key { return h.Pair("abc", "") },
		"abc":           func(h store.Hasher) store.Key { return h.Text("abc") },
		"":              func(h store.Hasher) store.Key { return h.Text("") },
		"long":          func(h store.Hasher) store.Key { return h.Text(long) },
		"long, more":    func(h store.Hasher) store.Key { return h.Pair(long, "a") },
		"long, other":   func(h store.Hasher) store.Key { return h.Pair(long, "b") },
	}
	keys := map[store.Key]string{}
	for name, key := range made {
		k := key(a)
		if first, ok := keys[k]; ok {
			t.Errorf("%q and %q have one key", name, first)
		}
		keys[k] = name
		if key(b) != k {
			t.Errorf("%q: got another key with the same secret", name)
		}
		if key(other) == k {
			t.Errorf("%q: got the same key with another secret", name)
		}
	}
	p := netip.MustParsePrefix("2001:db8::/64")
	if got := testing.AllocsPerRun(100, func() {
		a.Network(p)
		a.Pair("backend", "somebody@example.org")
		a.Text("pop3s")
	}); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

// TestKeyOf: one thing's quantities and classes do not meet.
func TestKeyOf(t *testing.T) {
	keys := map[store.Key]bool{}
	n := 0
	for k := range store.Key(100) {
		for q := range uint8(64) {
			for _, c := range []store.Class{store.Strangers, store.Users, store.Fixed} {
				keys[k.Of(c, q)] = true
				n++
			}
		}
	}
	if len(keys) != n {
		t.Errorf("got %d keys of %d things", len(keys), n)
	}
}

func BenchmarkSharedHasher(b *testing.B) {
	h := store.NewSharedHasher(make([]byte, 32))
	p := netip.MustParsePrefix("2001:db8::/64")
	b.ReportAllocs()
	for b.Loop() {
		h.Network(p)
	}
}
