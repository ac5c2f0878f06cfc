package wforce

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestWait: a pause is kept, and bounded.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &View{config: Config{MaxWait: 5 * time.Second}}
		for seconds, want := range map[int64]time.Duration{0: 0, 3: 3 * time.Second, 9: 5 * time.Second, 1 << 62: 5 * time.Second} {
			begin := time.Now()
			if err := v.wait(t.Context(), seconds); err != nil || time.Since(begin) != want {
				t.Errorf("%d: waited %s, %v, want %s", seconds, time.Since(begin), err, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := v.wait(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the client left: got %v", err)
		}
		begin := time.Now()
		v.config.MaxWait = 0
		if err := v.wait(t.Context(), 3); err != nil || time.Since(begin) != 0 {
			t.Errorf("off: waited %s, %v", time.Since(begin), err)
		}
	})
}

// TestHealth: one that is down is probed once a second by one login, and is well with its first answer.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, cause := &health{}, errors.New("hangs")
		for i := range downAfter {
			if err := h.ask(time.Now()); err != nil {
				t.Fatal(err)
			}
			if got, want := h.silent(cause, time.Now()), i == downAfter-1; got != want {
				t.Errorf("failure %d: down is %v", i+1, got)
			}
		}
		for range 3 {
			if err := h.ask(time.Now()); !errors.Is(err, cause) {
				t.Errorf("while down: got %v, want %v", err, cause)
			}
			<-time.After(probeEvery)
			if err := h.ask(time.Now()); err != nil {
				t.Errorf("a second later: got %v, want a probe", err)
			}
			if h.silent(cause, time.Now()) {
				t.Error("it went down twice")
			}
		}
		if !h.answered() || h.answered() || h.ask(time.Now()) != nil || h.trouble() != nil {
			t.Error("an answer does not make it well")
		}
	})
}
