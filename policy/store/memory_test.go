package store_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/policy/store"
)

const second = int64(time.Second)

// key is one of few, of any class.
func key(n uint8) store.Key { return store.Key(n).Of(store.Class(n%3), n) }

// taken says that m grants all of asks.
func taken(m *store.Memory, asks ...store.Ask) bool { return m.Take(context.Background(), asks) < 0 }

// bucket is a rate as everybody explains it: it holds so many turns, one drips in each so often, and each take needs a whole one.
type bucket struct{ tokens, at float64 }

func (b *bucket) fill(a store.Ask, now int64) (tokens float64) {
	b.tokens = min(float64(a.Most), b.tokens+(float64(now)-b.at)/float64(a.Turn))
	b.at = float64(now)
	return b.tokens
}

// bubbled keeps rapid from asking for the test's deadline, which nobody may in a bubble.
type bubbled struct{ testing.TB }

// A model is what Memory must do, kept in plain maps.
type model struct {
	buckets map[store.Key]*bucket
	places  map[store.Key]int64
}

// take decides as Memory has to, one decision after the other.
func (m *model) take(asks []store.Ask, now int64) (refused int) {
	for i, a := range asks {
		if a.Place() {
			if m.places[a.Key] >= a.Most {
				return i
			}
		} else if b := m.buckets[a.Key]; b.fill(a, now) < 1-1e-9 {
			return i
		}
	}
	for _, a := range asks {
		if a.Place() {
			m.places[a.Key]++
		} else {
			m.buckets[a.Key].tokens--
		}
	}
	return -1
}

// TestMemoryModel compares decisions of several asks with the model's.
func TestMemoryModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubbled{t}, func(t *rapid.T) {
			m, start := store.NewMemory(1000), time.Now()
			want := model{map[store.Key]*bucket{}, map[store.Key]int64{}}
			limits := make([]store.Ask, 6)
			for i := range limits {
				limits[i] = store.Ask{Key: key(uint8(i)), Most: rapid.Int64Range(1, 5).Draw(t, "most"), Tag: uint8(i)}
				if i%2 == 0 {
					limits[i].Turn = rapid.Int64Range(1, 4).Draw(t, "turn") * second
					want.buckets[limits[i].Key] = &bucket{tokens: float64(limits[i].Most)}
				}
			}
			var held [][]store.Ask
			for range rapid.IntRange(1, 100).Draw(t, "steps") {
				<-time.After(time.Duration(rapid.Int64Range(0, 3).Draw(t, "passes")) * time.Second / 2)
				if len(held) > 0 && rapid.Bool().Draw(t, "give") {
					i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
					give(m, held[i], want.places)
					held = append(held[:i], held[i+1:]...)
					continue
				}
				asks := rapid.SliceOfNDistinct(rapid.SampledFrom(limits), 1, 4, func(a store.Ask) store.Key { return a.Key }).Draw(t, "asks")
				now := int64(time.Since(start))
				refused := want.take(asks, now)
				if got := m.Take(context.Background(), asks); got != refused {
					t.Fatalf("at %v, %v: got %d refusing, want %d", time.Duration(now), asks, got, refused)
				}
				if refused < 0 {
					held = append(held, asks)
				}
			}
			for k, n := range m.Places() {
				if want.places[k] != n || m.Count(k) != n {
					t.Fatalf("%d: got %d places, by itself %d, want %d", k, n, m.Count(k), want.places[k])
				}
			}
			for _, asks := range held {
				give(m, asks, want.places)
			}
			if n, _ := m.Len(); n != 0 {
				t.Fatalf("all given back: got places of %d keys, want 0", n)
			}
		})
	})
}

// give gives the places back; what time brings back is left to it.
func give(m *store.Memory, asks []store.Ask, places map[store.Key]int64) {
	var back []store.Ask
	for _, a := range asks {
		if a.Place() {
			places[a.Key]--
			back = append(back, a)
		}
	}
	m.Give(back)
}

// TestMemoryGive: turns that are given back are there again, but for what time has brought back already.
func TestMemoryGive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(bubbled{t}, func(t *rapid.T) {
			m := store.NewMemory(1000)
			ask := store.Ask{Key: key(0), Turn: second, Most: rapid.Int64Range(1, 5).Draw(t, "most")}
			var held []store.Ask
			start, spent := time.Now(), int64(0)
			for range rapid.IntRange(1, 100).Draw(t, "steps") {
				<-time.After(time.Duration(rapid.Int64Range(0, 4).Draw(t, "passes")) * time.Second / 4)
				if a := ask; taken(m, a) {
					spent++
				}
				if a := []store.Ask{ask}; m.Take(context.Background(), a) < 0 {
					held = append(held, a...)
				}
				if len(held) > 0 && rapid.Bool().Draw(t, "give") {
					m.Give(held[len(held)-1:])
					held = held[:len(held)-1]
				}
				// Those that are spent are never paid for by those that are given back.
				if most := ask.Most + int64(time.Since(start))/second; spent+int64(len(held)) > most {
					t.Fatalf("after %v: got %d turns, %d of them spent, want at most %d", time.Since(start), spent+int64(len(held)), spent, most)
				}
			}
		})
	})
}

// TestMemoryAfterReload: what a slow rate left behind must not outlast the faster one that replaced it, nor what nothing bounded.
func TestMemoryAfterReload(t *testing.T) {
	for name, before := range map[string]store.Ask{
		"slow":      {Key: key(1), Turn: 3600 * second, Most: 2},
		"unbounded": {Key: key(1), Turn: 3600 * second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := store.NewMemory(1000)
				for range 2 {
					taken(m, before)
				}
				fast := store.Ask{Key: key(1), Turn: second, Most: 3}
				if taken(m, fast) {
					t.Error("at once: got a turn, want none, for all were taken")
				}
				<-time.After(time.Second)
				if !taken(m, fast) || taken(m, fast) {
					t.Error("when one is back: want that one")
				}
				<-time.After(3 * time.Second)
				for i := range 4 {
					if got, want := taken(m, fast), i < 3; got != want {
						t.Errorf("when all are back, take %d: got %v, want %v", i+1, got, want)
					}
				}
			})
		})
	}
}

// TestMemoryTogether: of many decisions at once, each takes all it asks for or nothing, and none is refused for what
// another took in passing.
func TestMemoryTogether(t *testing.T) {
	const callers, rounds, most = 16, 300, 40
	m := store.NewMemory(1000)
	all, full := store.Ask{Key: key(1), Most: callers}, store.Ask{Key: key(2), Most: 1}
	if !taken(m, full) {
		t.Fatal("the one place was refused")
	}
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			own := store.Ask{Key: store.Key(100+i).Of(store.Strangers, 3), Most: 1}
			for n := range rounds {
				if n%2 == 0 {
					if got := m.Take(context.Background(), []store.Ask{all, own, full}); got != 2 {
						t.Errorf("with a full one: got %d refusing, want 2", got)
					}
					continue
				}
				asks := []store.Ask{own, all}
				if got := m.Take(context.Background(), asks); got >= 0 {
					t.Errorf("with room for everybody: got %d refusing", got)
					continue
				}
				m.Give(asks)
			}
		})
	}
	wg.Wait()
	if got := m.Count(all.Key); got != 0 {
		t.Errorf("places left: got %d, want 0", got)
	}

	granted := make(chan bool, 4*most)
	rate := store.Ask{Key: key(4), Turn: 3600 * second, Most: most}
	for range cap(granted) {
		wg.Go(func() { granted <- taken(m, rate) })
	}
	wg.Wait()
	n := 0
	for range cap(granted) {
		if <-granted {
			n++
		}
	}
	if n != most {
		t.Errorf("turns: got %d, want %d", n, most)
	}
}

// TestMemorySpend: whoever spends goes on at the rate, however many spend, and after a pause has the burst again.
func TestMemorySpend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory(1000)
		asks := []store.Ask{
			{Key: key(0), Turn: second / 100, Most: 200},
			{Key: key(1), Turn: second, Most: 0}, // counted, and never waited for
			{Key: key(2), Most: 1},               // a place is nothing to spend
		}
		spend := func(n int64) time.Duration { return m.Spend(context.Background(), asks, n) }
		if got := spend(200); got != 0 {
			t.Errorf("the burst: got a wait of %v, want none", got)
		}
		if got := spend(50); got != time.Second/2 {
			t.Errorf("50 more: got %v, want 500ms", got)
		}
		if got := spend(50); got != time.Second {
			t.Errorf("another's 50: got %v, want 1s", got)
		}
		<-time.After(time.Second)
		if got := spend(0); got != 0 {
			t.Errorf("when the time has passed: got %v, want none", got)
		}
		start, sent := time.Now(), int64(0)
		for range 100 {
			sent += 30
			<-time.After(spend(30))
		}
		if got, want := time.Since(start), time.Duration(sent)*time.Second/100; got != want {
			t.Errorf("%d turns: took %v, want %v", sent, got, want)
		}
		<-time.After(time.Hour)
		if a, b := spend(200), spend(1); a != 0 || b != time.Second/100 {
			t.Errorf("after a pause: got %v and %v, want the burst and 10ms", a, b)
		}
		if got := spend(1 << 62); got <= 0 || got > 120*24*time.Hour {
			t.Errorf("more than can be: got %v, want a long time", got)
		}
		if places, _ := m.Len(); places != 0 {
			t.Errorf("places: got %d, want 0", places)
		}
	})
}

// TestMemoryHold: places are counted whatever there are, by Hold and by an ask without a bound.
func TestMemoryHold(t *testing.T) {
	m := store.NewMemory(0)
	one := store.Ask{Key: key(1), Most: 1}
	asks := []store.Ask{one, {Key: key(2), Turn: second, Most: 1}}
	m.Hold(asks)
	m.Hold(asks)
	if !taken(m, store.Ask{Key: key(1)}) {
		t.Error("without a bound: got refused")
	}
	if got := m.Count(one.Key); got != 3 {
		t.Errorf("places: got %d, want 3", got)
	}
	if taken(m, one) || !taken(m, asks[1]) {
		t.Error("want the places full, and the turn not taken")
	}
	for range 3 {
		m.Give(asks[:1])
	}
	if !taken(m, one) {
		t.Error("all given back: got refused")
	}
}

// TestMemoryBounded is the attacker with a network for each connection: the memory stays, and neither the limits of all, nor
// those of users, nor whoever has to wait longer than the attacker is forgotten.
func TestMemoryBounded(t *testing.T) {
	const most, users = 1 << 14, 1000
	rng := rand.New(rand.NewPCG(1, 2))
	m := store.NewMemory(most)
	hour := 3600 * second
	all := store.Ask{Key: store.Key(7).Of(store.Fixed, 1), Turn: 1, Most: 1 << 40} // soonest to pass of all
	user := func(i int) store.Ask {
		return store.Ask{Key: store.Key(i).Of(store.Users, 2), Turn: hour, Most: 1}
	}
	known := store.Ask{Key: store.Key(8).Of(store.Strangers, 3), Turn: 100 * hour, Most: 1}
	full := store.Ask{Key: store.Key(9).Of(store.Fixed, 1), Turn: hour, Most: 1}
	if !taken(m, known, full) {
		t.Fatal("refused at first")
	}
	for i := range users {
		if !taken(m, user(i)) {
			t.Fatalf("user %d was refused at first", i)
		}
	}
	for range 20 * most {
		taken(m, store.Ask{Key: store.Key(rng.Uint64()).Of(store.Strangers, 3), Turn: 10 * hour, Most: 1}, all)
	}
	if _, rates := m.Len(); rates > most+users+2 {
		t.Errorf("keys: got %d, want at most %d", rates, most+users+2)
	}
	if taken(m, known) || taken(m, full) {
		t.Error("what holds longest, or is fixed, was forgotten")
	}
	for i := range users {
		if taken(m, user(i)) {
			t.Fatalf("user %d was forgotten", i)
		}
	}
}

// TestMemoryRefusalCostsNothing: who is refused takes nobody's place in the memory.
func TestMemoryRefusalCostsNothing(t *testing.T) {
	m := store.NewMemory(1000)
	full := store.Ask{Key: key(1), Most: 1}
	taken(m, full)
	for i := range 10_000 {
		taken(m, store.Ask{Key: store.Key(i).Of(store.Strangers, 1), Turn: second, Most: 1}, full)
	}
	if places, rates := m.Len(); places != 1 || rates != 0 {
		t.Errorf("got places of %d keys and turns of %d, want 1 and 0", places, rates)
	}
}

// TestMemorySize holds the promised bytes a key, for rates and for places.
func TestMemorySize(t *testing.T) {
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	const keys = 600_000
	for _, tt := range []struct {
		name string
		ask  store.Ask
		most int
	}{
		{"rates", store.Ask{Turn: 3600 * second, Most: 10}, 60},
		{"places", store.Ask{Most: 10}, 60},
	} {
		before := heap()
		m := store.NewMemory(1 << 20)
		if got := heap() - before; got > 64<<10 {
			t.Errorf("before any use: got %d bytes, want at most 64 KiB", got)
		}
		for i := range keys {
			a := tt.ask
			a.Key = store.Key(i).Of(store.Strangers, 1)
			taken(m, a)
		}
		got := (heap() - before) / keys
		t.Logf("%s: %d bytes a key", tt.name, got)
		if got > tt.most {
			t.Errorf("%s: got %d bytes a key, want at most %d", tt.name, got, tt.most)
		}
		runtime.KeepAlive(m)
	}
}

// attempt is what a login asks for that four limits hold for: two keys of its own, and two that all have.
func attempt(asks []store.Ask, i uint64) {
	ip, network := store.Key(i*0x9e3779b97f4a7c15), store.Key((i>>8)*0xbf58476d1ce4e5b9)
	asks[0] = store.Ask{Key: ip.Of(store.Strangers, 1), Turn: second, Most: 60}
	asks[1] = store.Ask{Key: network.Of(store.Strangers, 2), Turn: second / 5, Most: 300}
	asks[2] = store.Ask{Key: store.Key(1).Of(store.Fixed, 3), Turn: 1000, Most: 1 << 30}
	asks[3] = store.Ask{Key: store.Key(2).Of(store.Fixed, 4), Turn: 1000, Most: 1 << 30}
}

// million is a Memory that keeps a million keys for as long as a benchmark takes.
func million() *store.Memory {
	m := store.NewMemory(1 << 21)
	for i := range uint64(1_000_000) {
		taken(m, store.Ask{Key: store.Key(i*0x9e3779b97f4a7c15).Of(store.Strangers, 1), Turn: 3600 * second, Most: 1 << 10})
	}
	return m
}

// TestMemoryAllocs: a decision allocates nothing, at whatever number of keys.
func TestMemoryAllocs(t *testing.T) {
	m := million()
	asks, i := make([]store.Ask, 5), uint64(0)
	asks[4] = store.Ask{Key: key(2), Most: 100}
	if got := testing.AllocsPerRun(1000, func() {
		i += 997
		attempt(asks, i%1_000_000)
		m.Take(t.Context(), asks)
		m.Spend(t.Context(), asks, 1)
		m.Give(asks)
	}); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

// BenchmarkMemoryTake is the attempt of a login at a million tracked keys.
func BenchmarkMemoryTake(b *testing.B) {
	m := million()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		asks, i := make([]store.Ask, 4), rand.Uint64()
		for pb.Next() {
			i = i*6364136223846793005 + 1442695040888963407
			attempt(asks, (i>>20)%1_000_000)
			m.Take(context.Background(), asks)
		}
	})
}

// BenchmarkMemoryTakeGive is the same with what a success gives back.
func BenchmarkMemoryTakeGive(b *testing.B) {
	m := million()
	asks, i := make([]store.Ask, 4), uint64(1)
	b.ReportAllocs()
	for b.Loop() {
		i = i*6364136223846793005 + 1442695040888963407
		attempt(asks, (i>>20)%1_000_000)
		m.Take(context.Background(), asks)
		m.Give(asks)
	}
}
