package storage

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// table is a leaser in memory, as the shared storages have one; it can be away.
type table struct {
	mu    sync.Mutex
	all   map[string]row
	asked int
	away  error
}

type row struct {
	token   string
	expires time.Time
}

func (tb *table) hold(_ context.Context, name, token string, ttl time.Duration) (bool, error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.asked++
	if tb.away != nil {
		return false, tb.away
	}
	if r, ok := tb.all[name]; ok && r.token != token && time.Now().Before(r.expires) {
		return false, nil
	}
	tb.all[name] = row{token, time.Now().Add(ttl)}
	return true, nil
}

func (tb *table) release(_ context.Context, name, token string) (bool, error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if tb.away != nil {
		return false, tb.away
	}
	had := tb.all[name].token == token
	if had {
		delete(tb.all, name)
	}
	return had, nil
}

func (tb *table) set(away error) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.away = away
}

// inBubble runs test with two nodes that share a table, in time that costs none.
func inBubble(t *testing.T, test func(t *testing.T, tb *table, a, b *locks)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tb := &table{all: map[string]row{}}
		a, b := newLocks(tb, leaseTime, slog.New(slog.DiscardHandler)), newLocks(tb, leaseTime, slog.New(slog.DiscardHandler))
		defer b.close()
		defer a.close()
		test(t, tb, a, b)
	})
}

func TestLockIsHeldForDays(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *table, a, b *locks) {
		if ok, err := a.lock(t.Context(), "x", true); !ok || err != nil {
			t.Fatal(ok, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 48*time.Hour)
		defer cancel()
		if ok, err := b.lock(ctx, "x", true); ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v", ok, err)
		}
		must(t, a.unlock(t.Context(), "x"))
		begun := time.Now()
		if ok, err := b.lock(t.Context(), "x", true); !ok || err != nil || time.Since(begun) > time.Second {
			t.Errorf("got %v, %v after %v", ok, err, time.Since(begun))
		}
	})
}

func TestLockOfDeadNode(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *table, a, b *locks) {
		_, err := a.lock(t.Context(), "x", true)
		must(t, err)
		a.close() // which does not release
		died := time.Now()
		if ok, err := b.lock(t.Context(), "x", true); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if took := time.Since(died); took < leaseTime-leaseTime/5 || took > leaseTime+time.Second {
			t.Errorf("taken over after %v, want about %v", took, leaseTime)
		}
	})
}

// A short absence of the storage costs nobody a lock, a long one does, and the holder hears of it.
func TestLockWhileStorageIsAway(t *testing.T) {
	for _, tt := range []struct {
		away time.Duration
		lost bool
	}{{20 * time.Second, false}, {2 * time.Minute, true}} {
		inBubble(t, func(t *testing.T, tb *table, a, b *locks) {
			_, err := a.lock(t.Context(), "x", true)
			must(t, err)
			tb.set(errors.New("away"))
			if ok, err := b.lock(t.Context(), "y", true); ok || err == nil {
				t.Errorf("lock without storage: %v, %v", ok, err)
			}
			<-time.After(tt.away)
			if err := a.check(t.Context(), "x"); err == nil {
				t.Error("renewed without storage")
			}
			tb.set(nil)
			if ok, err := b.lock(t.Context(), "x", false); ok != tt.lost || err != nil {
				t.Errorf("after %v: the other got the lock: %v, %v", tt.away, ok, err)
			}
			<-time.After(time.Minute)
			if err := a.check(t.Context(), "x"); errors.Is(err, errLost) != tt.lost {
				t.Errorf("after %v: check: %v", tt.away, err)
			}
			if err := a.unlock(t.Context(), "x"); errors.Is(err, errLost) != tt.lost {
				t.Errorf("after %v: unlock: %v", tt.away, err)
			}
			// What was lost is not taken from who has it now.
			if ok, err := a.lock(t.Context(), "x", false); ok == tt.lost || err != nil {
				t.Errorf("after %v: lock again: %v, %v", tt.away, ok, err)
			}
			if tt.lost {
				must(t, b.unlock(t.Context(), "x"))
			}
		})
	}
}

// Of many that want one lock, one asks the storage.
func TestLockAsksOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, tb *table, a, b *locks) {
		_, err := a.lock(t.Context(), "x", true)
		must(t, err)
		tb.asked = 0
		var wg sync.WaitGroup
		got := 0
		for range 1000 {
			wg.Go(func() {
				if _, err := b.lock(t.Context(), "x", true); err != nil {
					t.Error(err)
				}
				got++
				if err := b.unlock(t.Context(), "x"); err != nil {
					t.Error(err)
				}
			})
		}
		<-time.After(10 * time.Second)
		tb.mu.Lock()
		if tb.asked > 60 {
			t.Errorf("the storage was asked %d times in ten seconds", tb.asked)
		}
		tb.mu.Unlock()
		must(t, a.unlock(t.Context(), "x"))
		wg.Wait()
		if got != 1000 {
			t.Errorf("%d got the lock", got)
		}
		if len(b.gates) != 0 || len(b.held) != 0 {
			t.Errorf("%d gates and %d leases are left", len(b.gates), len(b.held))
		}
	})
}

func TestUnlockWithoutStorage(t *testing.T) {
	inBubble(t, func(t *testing.T, tb *table, a, b *locks) {
		_, err := a.lock(t.Context(), "x", true)
		must(t, err)
		tb.set(errors.New("away"))
		if a.unlock(t.Context(), "x") == nil {
			t.Error("nothing was said")
		}
		if err := a.unlock(t.Context(), "x"); !errors.Is(err, errNotHeld) {
			t.Errorf("second unlock: %v", err)
		}
		tb.set(nil)
		if ok, _ := b.lock(t.Context(), "x", false); ok {
			t.Error("the lease has not run out yet")
		}
		<-time.After(leaseTime)
		if ok, err := b.lock(t.Context(), "x", false); !ok || err != nil {
			t.Errorf("got %v, %v", ok, err)
		}
	})
}

// tardy is a leaser whose connections end at the caller's deadline, before the context says so.
type tardy struct{ *table }

func (tardy) hold(ctx context.Context, _, _ string, _ time.Duration) (bool, error) {
	until, _ := ctx.Deadline()
	<-time.After(time.Until(until))
	return false, os.ErrDeadlineExceeded
}

// TestLockEndsWithItsContext: whoever asks can tell the end of his own patience from trouble with the storage.
func TestLockEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ls := newLocks(tardy{&table{all: make(map[string]row)}}, leaseTime, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if ok, err := ls.lock(ctx, "work", true); ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, %v", ok, err)
		}
	})
}
