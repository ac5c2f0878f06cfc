package lockout

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestTable checks one shard against a list: the same keys with the same values in the same order, whatever is done, and
// the oldest goes first.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type item struct {
			key   Key
			value int
		}
		most := rapid.IntRange(1, 40).Draw(t, "most")
		tab := newTable[int](most * tableShards)
		var model []item
		for i := range rapid.IntRange(1, 300).Draw(t, "steps") {
			// Keys of shard 0 with few different chains.
			n := rapid.IntRange(0, 60).Draw(t, "key")
			key := Key(n%5<<8 | n<<30)
			at := slices.IndexFunc(model, func(m item) bool { return m.key == key })
			s := tab.lock(key)
			switch rapid.IntRange(0, 3).Draw(t, "do") {
			case 0:
				s.remove(key)
				if at >= 0 {
					model = slices.Delete(model, at, at+1)
				}
			case 1:
				got := s.get(key)
				if (got != nil) != (at >= 0) || got != nil && *got != model[at].value {
					t.Fatalf("get %d: got %v, want %v at %d", key, got, model, at)
				}
			default:
				v := s.use(key)
				switch {
				case at >= 0:
					if *v != model[at].value {
						t.Fatalf("use %d: got %d, want %d", key, *v, model[at].value)
					}
					model = slices.Delete(model, at, at+1)
				case *v != 0:
					t.Fatalf("use of a new key: got %d, want 0", *v)
				case len(model) == most:
					model = model[1:]
				}
				*v = i
				model = append(model, item{key, i})
			}
			s.mu.Unlock()
			var got []item
			tab.each(func(k Key, v *int) { got = append(got, item{k, *v}) })
			if !slices.Equal(got, model) || tab.len() != len(model) {
				t.Fatalf("step %d: got %v, want %v", i, got, model)
			}
		}
	})
}

// TestDigest: what is digested, its kind and the key all matter; a long secret is not cut off.
func TestDigest(t *testing.T) {
	a, b := newHasher(), newHasher()
	long := make([]byte, 5000)
	longer := append(slices.Clone(long), 0)
	keys := []Key{
		a.user.digest([]byte("x")), a.network.digest([]byte("x")), a.secret.digest([]byte("x")), b.user.digest([]byte("x")),
		a.user.digest(nil), a.user.digest(long), a.user.digest(longer), a.user.digest(long[:255]), a.user.digest(long[:256]),
	}
	slices.Sort(keys)
	if n := len(slices.Compact(keys)); n != 9 {
		t.Errorf("got %d different keys, want 9", n)
	}
	if a.user.digest(long) != a.ofUser(string(long)) {
		t.Error("the same data gave two keys")
	}
	if text, err := Key(0xabc).MarshalText(); string(text) != "0000000000000abc" || err != nil {
		t.Errorf("text: got %s, %v", text, err)
	}
	if pair(1, 2) == pair(2, 1) {
		t.Error("a pair and its reverse are one key")
	}
}
