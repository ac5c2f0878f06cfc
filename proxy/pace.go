package proxy

import (
	"math/rand/v2"
	"sync"
	"time"
)

// pace makes refusals look alike in time. A refusal that came from a backend leaves at the next tick after it, and
// the number of ticks is remembered; one that no backend had a part in leaves after as many ticks as a recent one
// that did.
type pace struct {
	mu       sync.Mutex
	backends map[string]*ticks
}

// ticks remembers how many ticks the last refusals took.
type ticks struct {
	last [32]int
	n    int
}

func (t *ticks) add(n int) {
	t.last[t.n%len(t.last)] = n
	t.n++
}

// any picks one of the last refusals, one tick when there was none.
func (t *ticks) any() int {
	if t == nil || t.n == 0 {
		return 1
	}
	return t.last[rand.IntN(min(t.n, len(t.last)))]
}

// anyBackend keys the refusals of all backends together, for users who have none.
const anyBackend = ""

// due says when a refusal leaves, for credentials that came at the time came. backend names who was to take the
// user, "" when nobody was; asked says that the backend itself has refused.
func (p *pace) due(came time.Time, tick time.Duration, backend string, asked bool) time.Time {
	if tick <= 0 {
		return came
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.backends == nil {
		p.backends = make(map[string]*ticks)
	}
	// Even the answer that is due now waits for a tick: a difference of microseconds would tell.
	n := int(time.Since(came)/tick) + 1
	if !asked {
		return came.Add(time.Duration(max(n, p.backends[backend].any())) * tick)
	}
	for _, key := range []string{backend, anyBackend} {
		if p.backends[key] == nil {
			p.backends[key] = new(ticks)
		}
		p.backends[key].add(n)
	}
	return came.Add(time.Duration(n) * tick)
}
