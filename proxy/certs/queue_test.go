package certs

import (
	"context"
	"slices"
	"sync"
	"testing"
)

// TestQueueServesTheUrgentFirst: a long list of domains must not hold up a renewal.
func TestQueueServesTheUrgentFirst(t *testing.T) {
	q := newQueue(new(sync.Mutex))
	served := &managed{name: "renewal", origin: listed}
	served.shown.Store(&shown{})
	for _, o := range []*order{
		newOrder(&managed{name: "listed", origin: listed}, false),
		newOrder(&managed{name: "demanded", origin: demanded}, false),
		newOrder(&managed{name: "listed, later", origin: listed}, false),
		newOrder(&managed{name: "configured", origin: configured}, false),
		newOrder(served, false),
		newOrder(&managed{name: "forced", origin: listed}, true),
	} {
		q.push(o)
	}
	if got := len(q.line); got != 6 {
		t.Errorf("got %d queued, want 6", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var got []string
	q.each(ctx, 0, q.pop, func(_ context.Context, o *order) {
		if got = append(got, o.m.name); len(got) == 6 {
			stop()
		}
	})
	if want := []string{"forced", "renewal", "configured", "demanded", "listed", "listed, later"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if q.pop() != nil || len(q.line) != 0 {
		t.Error("the queue is not empty")
	}
}
