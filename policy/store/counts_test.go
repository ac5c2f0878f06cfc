package store_test

import (
	"net/netip"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/policy/store"
)

func TestCountsAdd(t *testing.T) {
	tests := []struct {
		name string
		most int
		want []bool
	}{
		{"no bound", 0, []bool{true, true, true, true}},
		{"negative is no bound", -1, []bool{true, true, true, true}},
		{"one", 1, []bool{true, false, false, false}},
		{"three", 3, []bool{true, true, true, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := store.NewCounts()
			added := 0
			for i, want := range tt.want {
				got := c.Add(7, tt.most)
				if got != want {
					t.Errorf("add %d: got %v, want %v", i+1, got, want)
				}
				if got {
					added++
				}
			}
			if !c.Add(8, tt.most) {
				t.Error("another key: got refused, want it counted by itself")
			}
			for range added {
				c.Remove(7)
			}
			c.Remove(8)
			if c.Len() != 0 {
				t.Errorf("after all were removed: got %d keys, want 0", c.Len())
			}
		})
	}
}

// TestCountsModel compares with a plain map, through any adds and removes of a few keys.
func TestCountsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, model := store.NewCounts(), map[store.Key]int{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			k := store.Key(rapid.Uint64Range(0, 5).Draw(t, "key") * 64) // all in one shard
			if most := rapid.IntRange(0, 4).Draw(t, "most"); rapid.Bool().Draw(t, "add") {
				want := most == 0 || model[k] < most
				if got := c.Add(k, most); got != want {
					t.Fatalf("add %d to %d, at most %d: got %v, want %v", k, model[k], most, got, want)
				}
				if want {
					model[k]++
				}
			} else if model[k] > 0 {
				c.Remove(k)
				if model[k]--; model[k] == 0 {
					delete(model, k)
				}
			}
			if c.Len() != len(model) {
				t.Fatalf("keys: got %d, want %d", c.Len(), len(model))
			}
		}
	})
}

func TestCountsTogether(t *testing.T) {
	const most, callers = 5, 50
	c := store.NewCounts()
	var wg sync.WaitGroup
	granted := make(chan bool, callers)
	for range callers {
		wg.Go(func() { granted <- c.Add(1, most) })
	}
	wg.Wait()
	close(granted)
	n := 0
	for ok := range granted {
		if ok {
			n++
		}
	}
	if n != most {
		t.Errorf("granted: got %d, want %d", n, most)
	}
}

func TestHasher(t *testing.T) {
	h := store.NewHasher()
	prefix := netip.MustParsePrefix
	keys := map[store.Key]string{}
	for name, k := range map[string]store.Key{
		"192.0.2.1/32":      h.Network(prefix("192.0.2.1/32")),
		"192.0.2.0/24":      h.Network(prefix("192.0.2.0/24")),
		"192.0.2.0/32":      h.Network(prefix("192.0.2.0/32")),
		"2001:db8::/64":     h.Network(prefix("2001:db8::/64")),
		"2001:db8:0:1::/64": h.Network(prefix("2001:db8:0:1::/64")),
		"ab, c":             h.Pair("ab", "c"),
		"a, bc":             h.Pair("a", "bc"),
		"abc":               h.Pair("abc", ""),
	} {
		if other, ok := keys[k]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		keys[k] = name
	}
	if name := keys[h.Network(prefix("192.0.2.1/32"))]; name != "192.0.2.1/32" {
		t.Errorf("the key of 192.0.2.1/32 once more: got that of %q", name)
	}
	if name := keys[h.Pair("a", "bc")]; name != "a, bc" {
		t.Errorf("the key of a, bc once more: got that of %q", name)
	}
	if _, ok := keys[store.NewHasher().Pair("a", "bc")]; ok {
		t.Error("two hashers: got one key, want each its own seed")
	}
}

func BenchmarkCounts(b *testing.B) {
	c := store.NewCounts()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		k := store.Key(0)
		for pb.Next() {
			k = k*6364136223846793005 + 1442695040888963407
			c.Add(k, 10)
			c.Remove(k)
		}
	})
}

func BenchmarkHasher(b *testing.B) {
	h := store.NewHasher()
	p := netip.MustParsePrefix("2001:db8::/64")
	b.ReportAllocs()
	for b.Loop() {
		h.Network(p)
		h.Pair("backend", "somebody@example.org")
	}
}
