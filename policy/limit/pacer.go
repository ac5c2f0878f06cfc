package limit

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/ratelimit"
)

// ErrTooFast is what Pacer.Wait returns where a turn would come later than the caller can wait.
var ErrTooFast = errors.New("more are waiting for their turn than there are turns in the time")

// A Pacer lets through so many a second, one after the other, and has the others wait for their turn. It is for callers
// of which all are wanted, only not all at once; what shall be refused is for a Rate. Any goroutine may use it; a nil
// Pacer lets everybody through.
type Pacer struct {
	perSecond int
	clock     monotonic
	turns     ratelimit.Limiter

	mu     sync.Mutex
	next   time.Time // when the turn comes that nobody has taken yet; zero where none was asked for
	booked time.Time // when the last turn comes that somebody has taken
}

// NewPacer makes a pacer of so many turns a second, nil for 0. A tenth of a second's turns may be made up for after a
// pause, one at least.
func NewPacer(perSecond int) *Pacer {
	if perSecond <= 0 {
		return nil
	}
	p := &Pacer{perSecond: perSecond, clock: monotonic{time.Now()}}
	p.turns = ratelimit.New(perSecond, ratelimit.WithClock(p.clock), ratelimit.WithSlack(max(perSecond/10, 1)))
	return p
}

// PerSecond is how many the pacer lets through in a second, 0 for a nil one.
func (p *Pacer) PerSecond() int {
	if p == nil {
		return 0
	}
	return p.perSecond
}

// Wait waits for the caller's turn. It returns ErrTooFast at once where that is more than most away, which costs nobody's
// turn, and the context's error when that ends first; the turn is lost then.
func (p *Pacer) Wait(ctx context.Context, most time.Duration) error {
	if p == nil {
		return nil
	}
	wait, ok := p.take(most)
	switch {
	case !ok:
		return ErrTooFast
	case wait <= 0:
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take gives the next turn to the caller, and says how far away it is. One that is further away than most is left for the
// next caller.
func (p *Pacer) take(most time.Duration) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next.IsZero() {
		p.next = p.turns.Take()
	}
	wait = p.next.Sub(p.clock.Now())
	if wait > most && wait > 0 {
		return 0, false
	}
	p.booked, p.next = p.next, time.Time{}
	return wait, true
}

// Ahead is how far away the last turn is that somebody waits for, 0 where nobody does.
func (p *Pacer) Ahead() time.Duration {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.booked.Sub(p.clock.Now()), 0)
}

// A monotonic clock is the limiter's. It never goes back, and its Sleep does not, so that Take only says when a turn
// comes: Take cannot be cancelled, and with the wall's clock would sleep for an hour where that is set back by one.
type monotonic struct{ base time.Time }

// Now is the time, as the base and what has passed since.
func (m monotonic) Now() time.Time { return m.base.Add(time.Since(m.base)) }

// Sleep returns at once.
func (monotonic) Sleep(time.Duration) {}
