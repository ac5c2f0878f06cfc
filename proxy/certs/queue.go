package certs

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// urgency is which orders go before others.
type urgency int

const (
	byForce       urgency = iota // an operator waits for it
	forRenewal                   // clients are served with what runs out, or is revoked
	forConfigured                // the operator's own names
	forDemand                    // a client waits for it
	ahead                        // listed domains that nobody has asked for yet
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
	case o.m.origin == demanded || o.asked:
		return forDemand
	}
	return ahead
}

// A queue holds orders for its workers, the most urgent first, and of those the one that was queued first, in whichever queue.
type queue struct {
	mu    *sync.Mutex // the manager's
	line  line
	moved chan struct{} // closed at the next push
}

func newQueue(mu *sync.Mutex) *queue { return &queue{mu: mu, moved: make(chan struct{})} }

// push queues an order, at the place it had in a queue before. The manager's lock is held.
func (q *queue) push(o *order) {
	if o.since.IsZero() {
		o.since = time.Now()
	}
	o.queue, o.rank = q, o.urgency()
	heap.Push(&q.line, o)
	close(q.moved)
	q.moved = make(chan struct{})
}

// drop takes an order out that is in the queue. The manager's lock is held.
func (q *queue) drop(o *order) {
	heap.Remove(&q.line, o.index)
	o.queue = nil
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.line.Len()
}

// first is what pop would give, nil where there is nothing. The manager's lock is held.
func (q *queue) first() *order {
	if len(q.line) == 0 {
		return nil
	}
	return q.line[0]
}

func (q *queue) pop() *order {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.first()
	if o != nil {
		q.drop(o)
	}
	return o
}

// each does work on what next gives until ctx ends. It asks again once an order is pushed and, where next left some that wait, once again has
// passed; 0 is never. What is still queued at the end is unserved.
func (q *queue) each(ctx context.Context, again time.Duration, next func() *order, work func(context.Context, *order)) {
	for ctx.Err() == nil {
		q.mu.Lock()
		moved := q.moved
		q.mu.Unlock()
		if o := next(); o != nil {
			work(ctx, o)
			continue
		}
		var later <-chan time.Time
		if again > 0 && q.len() > 0 {
			later = time.After(again)
		}
		select {
		case <-ctx.Done():
		case <-moved:
		case <-later:
		}
	}
}

// line is a heap of orders.
type line []*order

// Len is the number of orders (heap.Interface).
func (l line) Len() int { return len(l) }

// Less says which goes first (heap.Interface).
func (l line) Less(i, j int) bool {
	if l[i].rank != l[j].rank {
		return l[i].rank < l[j].rank
	}
	return l[i].since.Before(l[j].since)
}

// Swap exchanges two (heap.Interface).
func (l line) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}

// Push adds one at the end (heap.Interface).
func (l *line) Push(o any) {
	o.(*order).index = len(*l)
	*l = append(*l, o.(*order))
}

// Pop takes the one at the end (heap.Interface).
func (l *line) Pop() any {
	last := len(*l) - 1
	o := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	return o
}
