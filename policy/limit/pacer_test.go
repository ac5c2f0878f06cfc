package limit_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// TestPacer holds that of many who come at once each has its turn, one after the other, and none beyond the longest wait.
func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limit.NewPacer(10)
		start := time.Now()
		var mu sync.Mutex
		var turns []time.Duration
		refused := 0
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				err := p.Wait(t.Context(), 2*time.Second)
				mu.Lock()
				defer mu.Unlock()
				if errors.Is(err, limit.ErrTooFast) {
					refused++
					return
				}
				turns = append(turns, time.Since(start))
			})
		}
		synctest.Wait()
		if got := p.Ahead(); got != 2*time.Second {
			t.Errorf("Ahead: got %v, want 2s", got)
		}
		all.Wait()
		slices.Sort(turns)
		if len(turns) != 21 || refused != 79 {
			t.Fatalf("got %d turns and %d refusals, want 21 and 79", len(turns), refused)
		}
		for i, at := range turns {
			if want := time.Duration(i) * 100 * time.Millisecond; at != want {
				t.Errorf("turn %d came after %v, want %v", i, at, want)
			}
		}
		// Those that were refused took nobody's turn.
		if err := p.Wait(t.Context(), 100*time.Millisecond); err != nil || time.Since(start) != 2100*time.Millisecond {
			t.Errorf("the next turn: got %v after %v, want it after 2.1s", err, time.Since(start))
		}
		if got := p.Ahead(); got != 0 {
			t.Errorf("Ahead of an idle pacer: got %v, want 0", got)
		}
	})
}

// TestPacerAtOnce holds that who cannot wait at all gets each turn that is there, and keeps nobody from his.
func TestPacerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limit.NewPacer(10)
		let := 0
		for range 1001 { // ten seconds
			if p.Wait(t.Context(), 0) == nil {
				let++
			}
			<-time.After(10 * time.Millisecond)
		}
		if let != 101 {
			t.Errorf("got %d turns in 10s, want 101", let)
		}
	})
}

// TestPacerPause holds how much a pause may be made up for.
func TestPacerPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limit.NewPacer(50)
		_ = p.Wait(t.Context(), 0)
		<-time.After(time.Hour)
		let := 0
		for p.Wait(t.Context(), 0) == nil {
			let++
		}
		if let != 6 {
			t.Errorf("after a pause: got %d at once, want a tenth of a second's 5 and the one that is due", let)
		}
	})
}

func TestPacerCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limit.NewPacer(1)
		if err := p.Wait(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := p.Wait(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("got %v after %v, want the context's end", err, time.Since(start))
		}
	})
}

func TestNoPacer(t *testing.T) {
	p := limit.NewPacer(0)
	if err := p.Wait(t.Context(), 0); p != nil || err != nil || p.Ahead() != 0 || p.PerSecond() != 0 {
		t.Errorf("got %v, %v, want nobody to wait", p, err)
	}
	if got := limit.NewPacer(7).PerSecond(); got != 7 {
		t.Errorf("got %d a second, want 7", got)
	}
}

func BenchmarkPacer(b *testing.B) {
	p := limit.NewPacer(1_000_000_000)
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Wait(b.Context(), time.Hour)
	}
}
