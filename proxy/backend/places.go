package backend

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

var (
	errQueueFull = errors.New("the server has max_sessions sessions, and its queue is full")
	errNoPlace   = errors.New("the server has max_sessions sessions, and none ended within queue_timeout")
	errPace      = errors.New("more logins come than logins_per_second lets through within queue_timeout")
)

// stepQueue is the step before a connection: a place among max_sessions, and a turn by logins_per_second.
const stepQueue = "queue"

// Places are a server's sessions. Without a limit they are only counted. Any goroutine may use them.
type places struct {
	taken   atomic.Int64
	waiting atomic.Int64

	mu    sync.Mutex
	queue list.List // of *waiter, who came first in front
}

// A waiter is a login that waits for a place.
type waiter struct {
	most  int64
	ready chan struct{} // closed when it has its place
}

// take takes a place if there is one, and nobody waits for it. 0 is no limit.
func (p *places) take(most int64) bool {
	if most == 0 {
		p.taken.Add(1)
		return true
	}
	return p.waiting.Load() == 0 && p.fill(most)
}

// fill takes a place if there is one.
func (p *places) fill(most int64) bool {
	for {
		n := p.taken.Load()
		if most > 0 && n >= most {
			return false
		}
		if p.taken.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// give gives a place back, to who waits for it first.
func (p *places) give() {
	p.taken.Add(-1)
	// A waiter counts itself before it looks for a place once more: either it sees this one, or it is seen here.
	if p.waiting.Load() > 0 {
		p.call()
	}
}

// call gives places to those who wait, as far as there are any.
func (p *places) call() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.queue.Front(); e != nil && p.fill(e.Value.(*waiter).most); e = p.queue.Front() {
		close(e.Value.(*waiter).ready)
		p.queue.Remove(e)
		p.waiting.Add(-1)
	}
}

// raise has those who wait go by a limit that has changed.
func (p *places) raise(most int64) {
	if p.waiting.Load() == 0 {
		return
	}
	p.mu.Lock()
	for e := p.queue.Front(); e != nil; e = e.Next() {
		e.Value.(*waiter).most = most
	}
	p.mu.Unlock()
	p.call()
}

// wait takes a place, and waits for one until timeout, or ctx, ends: behind those who wait already, of whom there may be
// length, the caller included.
func (p *places) wait(ctx context.Context, most int64, length int, timeout time.Duration) error {
	w := &waiter{most: most, ready: make(chan struct{})}
	p.mu.Lock()
	if p.queue.Len() >= length {
		p.mu.Unlock()
		return errQueueFull
	}
	e := p.queue.PushBack(w)
	p.waiting.Add(1)
	p.mu.Unlock()
	p.call()
	t := time.NewTimer(timeout)
	defer t.Stop()
	err := errNoPlace
	select {
	case <-w.ready:
		return nil
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	select {
	case <-w.ready: // it came meanwhile
		p.mu.Unlock()
		return nil
	default:
	}
	p.queue.Remove(e)
	p.waiting.Add(-1)
	p.mu.Unlock()
	p.call() // those behind may be under another limit, from behind a reload
	return err
}

// enter takes a place at m's server and waits for the login's turn there, for the time that the backend allows; without
// patience not at all. Who has entered gives the place back.
func (p *Pool) enter(ctx context.Context, m *member, patient bool) *Error {
	s := m.server
	timeout, length := p.config.QueueTimeout, p.config.Queue
	if !patient {
		timeout, length = 0, 0
	}
	if !s.places.take(m.maxSessions) {
		came := p.backends.now()
		if err := s.places.wait(ctx, m.maxSessions, length, timeout); err != nil {
			return p.turnedAway(m, err, patient)
		}
		waited := p.backends.now() - came
		s.tally().waited(waited)
		timeout = max(timeout-waited, 0)
	}
	if m.pacer == nil {
		return nil
	}
	came := p.backends.now()
	if err := m.pacer.Wait(ctx, timeout); err != nil {
		s.places.give()
		return p.turnedAway(m, err, patient)
	}
	if waited := p.backends.now() - came; waited > time.Millisecond {
		s.tally().waited(waited)
	}
	return nil
}

// turnedAway makes an Error of why a login could not begin at m.
func (p *Pool) turnedAway(m *member, err error, patient bool) *Error {
	e := &Error{Kind: Busy, Server: m.address.text, Step: stepQueue, Err: err}
	r := turnedQueue
	switch {
	case errors.Is(err, limit.ErrTooFast):
		e.Err, r = errPace, turnedPace
	case errors.Is(err, errNoPlace), errors.Is(err, errQueueFull):
	default: // the login's context
		e.Kind = Local
		return e
	}
	if patient {
		m.server.tally().turned[r].Add(1)
		m.server.failed(e)
	}
	return e
}
