package proxy

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/popgate/popgate/auth"
)

// pace makes refusals look alike in time. A refusal that came from a backend leaves at the next tick after it, and
// the number of ticks is remembered; one that no backend had a part in leaves after as many ticks as a recent one
// that did: of the user's own backend, as far as anybody knows which that is.
type pace struct {
	mu       sync.Mutex
	backends map[string]*ticks
	all      []*ticks // of backends
	homes    homes
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

// due says when a refusal leaves, for credentials that came at the time came. backend names who was to take the
// user, "" when nobody was or nobody has looked; asked says that the backend itself has refused.
func (p *pace) due(came time.Time, tick time.Duration, user auth.Name, backend string, asked bool) time.Time {
	if tick <= 0 {
		return came
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Even the answer that is due now waits for a tick: a difference of microseconds would tell.
	n := int(time.Since(came)/tick) + 1
	if asked {
		t := p.of(backend)
		t.add(n)
		p.homes.moved(user, t)
		return came.Add(time.Duration(n) * tick)
	}
	t := p.backends[backend]
	if backend == "" {
		t = p.homes.of(user, p.all)
	}
	return came.Add(time.Duration(max(n, t.any())) * tick)
}

// of is what is remembered of a backend.
func (p *pace) of(backend string) *ticks {
	t := p.backends[backend]
	if t == nil {
		if p.backends == nil {
			p.backends = make(map[string]*ticks)
		}
		t = new(ticks)
		p.backends[backend] = t
		p.all = append(p.all, t)
	}
	return t
}
