package certs

import (
	"context"
	"sync"
)

// urgency is which orders go before others.
type urgency int

const (
	byForce       urgency = iota // an operator waits for it
	forRenewal                   // clients are served with what runs out, or is revoked
	forConfigured                // the operator's own names
	forDemand                    // a client waits for it
	ahead                        // listed domains that nobody has asked for yet
	urgencies
)

// urgency of an order. The manager's lock is held.
func (o *order) urgency() urgency {
	switch {
	case o.force:
		return byForce
	case o.m.shown.Load() != nil:
		return forRenewal
	case o.m.origin == configured:
		return forConfigured
	case o.m.origin == demanded:
		return forDemand
	}
	return ahead
}

// A queue holds orders for its workers, the most urgent first, and of those the oldest.
type queue struct {
	mu    *sync.Mutex
	lists *[urgencies][]*order
	wake  chan struct{}
}

func newQueue() queue {
	return queue{mu: new(sync.Mutex), lists: new([urgencies][]*order), wake: make(chan struct{}, 1)}
}

// push queues an order. The manager's lock is held.
func (q queue) push(o *order) {
	q.mu.Lock()
	list := &q.lists[o.urgency()]
	*list = append(*list, o)
	q.mu.Unlock()
	q.signal()
}

func (q queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held()
}

// held is how many there are. The lock is held.
func (q queue) held() (n int) {
	for _, list := range q.lists {
		n += len(list)
	}
	return n
}

func (q queue) pop() *order {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n := range q.lists {
		list := &q.lists[n]
		if len(*list) == 0 {
			continue
		}
		o := (*list)[0]
		(*list)[0] = nil
		*list = (*list)[1:]
		if q.held() > 0 {
			q.signal()
		}
		return o
	}
	return nil
}

// each does work on the orders until ctx ends. What is still queued then ends unserved.
func (q queue) each(ctx context.Context, work func(context.Context, *order)) {
	for {
		if ctx.Err() != nil {
			return
		}
		if o := q.pop(); o != nil {
			work(ctx, o)
			continue
		}
		select {
		case <-ctx.Done():
		case <-q.wake:
		}
	}
}
