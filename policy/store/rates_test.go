package store_test

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

var perMinute = limit.Rate{Count: 2, Per: time.Minute}

const minute = int64(time.Minute)

func TestRatesTake(t *testing.T) {
	r := store.NewRates(1000)
	for i, want := range []bool{true, true, false} {
		if _, ok := r.Take(1, perMinute, 5); ok != want {
			t.Errorf("take %d: got %v, want %v", i+1, ok, want)
		}
	}
	if _, ok := r.Take(2, perMinute, 5); !ok {
		t.Error("another key: got refused, want a turn of its own")
	}
	if _, ok := r.Take(1, perMinute, 5+minute/2); !ok {
		t.Error("half a minute later: got refused, want the turn that came back")
	}
	if got := r.Len(5 + 2*minute); got != 0 {
		t.Errorf("two minutes later: got %d keys with turns out, want 0", got)
	}
}

func TestRatesOff(t *testing.T) {
	r := store.NewRates(0)
	for range 100 {
		if _, ok := r.Take(1, limit.Rate{}, 1); !ok {
			t.Fatal("a rate that is off: got refused")
		}
	}
	if got := r.Len(0); got != 0 {
		t.Errorf("keys kept: got %d, want 0", got)
	}
}

func TestRatesGive(t *testing.T) {
	r := store.NewRates(1000)
	r.Give(1, perMinute, minute, 5) // never taken: nothing happens
	first, _ := r.Take(1, perMinute, 5)
	r.Take(1, perMinute, 5)
	r.Give(1, perMinute, first, 5)
	if _, ok := r.Take(1, perMinute, 5); !ok {
		t.Error("after one was given back: got refused, want its turn")
	}
	if _, ok := r.Take(1, perMinute, 5); ok {
		t.Error("after it was taken again: got a turn, want none")
	}
}

// TestRatesBounded is the attacker with a network for every login: the memory stays, and what is forgotten is what
// would have been free soonest.
func TestRatesBounded(t *testing.T) {
	r := store.NewRates(10_000)
	rng := rand.New(rand.NewPCG(1, 2))
	const victims = 100
	now := int64(1)
	for k := range store.Key(victims) {
		for range 2 {
			r.Take(k*0x9e3779b97f4a7c15+1, limit.Rate{Count: 2, Per: time.Hour}, now)
		}
	}
	for range 10 * r.Bound() {
		now++
		r.Take(store.Key(rng.Uint64()), perMinute, now)
	}
	if got := r.Len(now); got > r.Bound() {
		t.Errorf("keys: got %d, want at most %d", got, r.Bound())
	}
	kept := 0
	for k := range store.Key(victims) {
		if _, ok := r.Take(k*0x9e3779b97f4a7c15+1, limit.Rate{Count: 2, Per: time.Hour}, now); !ok {
			kept++
		}
	}
	if kept != victims {
		t.Errorf("keys that hold longest: got %d still refused, want all %d", kept, victims)
	}
}

// TestRatesMemory holds the promised bytes a key at every size, and that the table grows only with use.
func TestRatesMemory(t *testing.T) {
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	r := store.NewRates(1 << 20)
	if got := heap() - before; got > 64<<10 {
		t.Errorf("before any use: got %d bytes, want at most 64 KiB", got)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for keys := 0; keys < 600_000; {
		for range 50_000 {
			r.Take(store.Key(rng.Uint64()), perMinute, 1)
			keys++
		}
		if got := r.Len(1); got != keys {
			t.Errorf("keys: got %d, want all %d", got, keys)
		}
		if got := (heap() - before) / keys; got > 60 {
			t.Errorf("%d keys: got %d bytes each, want at most 60", keys, got)
		}
	}
	runtime.KeepAlive(r)
}

// TestRatesReuse: keys whose turns are free again make room, so a table need not grow.
func TestRatesReuse(t *testing.T) {
	r := store.NewRates(1 << 20)
	rng := rand.New(rand.NewPCG(5, 6))
	for i := range int64(1000) {
		r.Take(store.Key(rng.Uint64()), perMinute, 1+i*2*minute)
	}
	allocs := testing.AllocsPerRun(1000, func() {
		r.Take(store.Key(rng.Uint64()), perMinute, 3000*minute)
		r.Take(1, perMinute, 6000*minute)
	})
	if allocs != 0 {
		t.Errorf("got %v allocations for keys that come and go, want 0", allocs)
	}
}

func TestRatesTogether(t *testing.T) {
	r := store.NewRates(1000)
	var wg sync.WaitGroup
	rate := limit.Rate{Count: 1_000, Per: time.Hour}
	for range 8 {
		wg.Go(func() {
			for k := range store.Key(500) {
				paid, ok := r.Take(k, rate, 1)
				if ok {
					r.Give(k, rate, paid, 1)
				}
			}
		})
	}
	wg.Wait()
	if got := r.Len(1); got != 0 {
		t.Errorf("all given back: got %d keys with turns out, want 0", got)
	}
}

func BenchmarkRates(b *testing.B) {
	r := store.NewRates(1 << 20)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		k, now := store.Key(rand.Uint64()), int64(1)
		for pb.Next() {
			k = k*6364136223846793005 + 1442695040888963407
			now += 1000
			paid, _ := r.Take(k, perMinute, now)
			r.Give(k, perMinute, paid, now)
		}
	})
}
