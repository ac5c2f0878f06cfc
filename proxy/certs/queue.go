package certs

import (
	"context"
	"sync"
)

// A queue holds orders for its workers, the oldest first.
type queue struct {
	mu   *sync.Mutex
	list *[]*order
	wake chan struct{}
}

func newQueue() queue {
	return queue{mu: new(sync.Mutex), list: new([]*order), wake: make(chan struct{}, 1)}
}

func (q queue) push(o *order) {
	q.mu.Lock()
	*q.list = append(*q.list, o)
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
	return len(*q.list)
}

func (q queue) pop() *order {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(*q.list) == 0 {
		return nil
	}
	o := (*q.list)[0]
	(*q.list)[0] = nil
	*q.list = (*q.list)[1:]
	if len(*q.list) > 0 {
		q.signal()
	}
	return o
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
