package limit_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

var perMinute = limit.Rate{Count: 2, Per: time.Minute}

const minute = int64(time.Minute)

func TestRatesTake(t *testing.T) {
	r := limit.NewRates(1000)
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
	r := limit.NewRates(0)
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
	r := limit.NewRates(1000)
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

// TestRatesReuse: keys whose turns are free again make room, so a table need not grow.
func TestRatesReuse(t *testing.T) {
	r := limit.NewRates(1 << 20)
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
	r := limit.NewRates(1000)
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
	r := limit.NewRates(1 << 20)
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
