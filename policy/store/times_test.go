package store_test

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/policy/store"
)

// keep sets the time of k.
func keep(s *store.Times, k store.Key, now, until int64) {
	s.Update(k, now, func(int64) int64 { return until })
}

// kept is the time that s has for k, which stays as it is.
func kept(s *store.Times, k store.Key, now int64) (until int64) {
	s.Update(k, now, func(old int64) int64 {
		until = old
		return old
	})
	return until
}

// TestTimesModel compares with a plain map, through any updates of a few keys as time passes.
func TestTimesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model, now := store.NewTimes(1000), map[store.Key]int64{}, int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += rapid.Int64Range(0, 3).Draw(t, "passes")
			for k, until := range model {
				if until <= now {
					delete(model, k)
				}
			}
			k := store.Key(rapid.Uint64Range(0, 20).Draw(t, "key") << 6) // all in one shard, which has to grow
			if got := kept(s, k, now); got != model[k] {
				t.Fatalf("at %d, key %d: got %d, want %d", now, k, got, model[k])
			}
			until := now + rapid.Int64Range(-2, 10).Draw(t, "for")
			keep(s, k, now, until)
			if delete(model, k); until > now {
				model[k] = until
			}
			if s.Len(now) != len(model) {
				t.Fatalf("at %d: got %d keys, want %d", now, s.Len(now), len(model))
			}
		}
	})
}

// TestTimesBounded is the attacker with a network for every login: the memory stays, and what is forgotten is what
// would have passed soonest.
func TestTimesBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const most, victims, long = 1 << 14, 100, 1 << 40
	s := store.NewTimes(most)
	victim := func(i int) store.Key { return store.Key(i)*0x9e3779b97f4a7c15 + 1 }
	now := int64(1)
	for i := range victims {
		keep(s, victim(i), now, long)
	}
	for range 10 * most {
		now++
		keep(s, store.Key(rng.Uint64()), now, now+1<<30)
	}
	if got := s.Len(now); got > most {
		t.Errorf("keys: got %d, want at most %d", got, most)
	}
	for i := range victims {
		if got := kept(s, victim(i), now); got != long {
			t.Errorf("key %d, that holds longest: got %d, want it kept", i, got)
		}
	}
	// A key that is to pass at once must not push another out.
	before := s.Len(now)
	for range 1000 {
		keep(s, store.Key(rng.Uint64()), now, now)
	}
	if got := s.Len(now); got != before {
		t.Errorf("after keys that nothing is kept of: got %d keys, want %d as before", got, before)
	}
}

// TestTimesMemory holds the promised bytes a key at every size, and that the table grows only with use.
func TestTimesMemory(t *testing.T) {
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	s := store.NewTimes(1 << 20)
	if got := heap() - before; got > 64<<10 {
		t.Errorf("before any use: got %d bytes, want at most 64 KiB", got)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for keys := 0; keys < 600_000; {
		for range 50_000 {
			keep(s, store.Key(rng.Uint64()), 1, 100)
			keys++
		}
		if got := s.Len(1); got != keys {
			t.Errorf("keys: got %d, want all %d", got, keys)
		}
		if got := (heap() - before) / keys; got > 60 {
			t.Errorf("%d keys: got %d bytes each, want at most 60", keys, got)
		}
	}
	runtime.KeepAlive(s)
}

// TestTimesTogether: no update is lost between others.
func TestTimesTogether(t *testing.T) {
	const callers, keys, each = 8, 50, 20
	s := store.NewTimes(1000)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				for k := range store.Key(keys) {
					s.Update(k, 0, func(until int64) int64 { return until + 1 })
				}
			}
		})
	}
	wg.Wait()
	for k := range store.Key(keys) {
		if got := kept(s, k, 0); got != callers*each {
			t.Errorf("key %d: got %d, want %d", k, got, callers*each)
		}
	}
}
