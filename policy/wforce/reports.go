package wforce

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// maxReports bounds what waits to be sent: some 4 MiB.
	maxReports = 8192
	// reportSenders is how many reports are under way at once.
	reportSenders = 4
	// reportAge is how long a report is worth sending: weakforced takes it for news when it comes.
	reportAge = time.Minute
	// reportPause is how long a sender that could not connect waits before it tries again.
	reportPause = time.Second
)

// A report waits to be sent.
type report struct {
	view *View
	body []byte
	made time.Time
}

// reports are those that wait, the oldest first.
type reports struct {
	wake chan struct{} // holds a token when somebody may have to look

	mu     sync.Mutex
	ring   []report // grows up to maxReports
	first  int
	count  int
	closed bool
}

// push adds r, and throws the oldest out where there is no room.
func (q *reports) push(r report, m *metrics) {
	q.mu.Lock()
	switch {
	case q.closed:
		m.lost.Inc()
	case q.count == maxReports:
		q.ring[q.first] = r
		q.first = (q.first + 1) % maxReports
		m.lost.Inc()
	default:
		if q.count == len(q.ring) {
			q.grow()
		}
		q.ring[(q.first+q.count)%len(q.ring)] = r
		q.count++
	}
	q.mu.Unlock()
	q.wakeOne()
}

// grow doubles the ring. The caller holds mu.
func (q *reports) grow() {
	ring := make([]report, min(maxReports, max(16, 2*len(q.ring))))
	n := copy(ring, q.ring[q.first:])
	copy(ring[n:], q.ring[:q.first])
	q.ring, q.first = ring, 0
}

func (q *reports) wakeOne() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// pop takes the oldest, and wakes another sender where there are more.
func (q *reports) pop() (report, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.count == 0 {
		return report{}, false
	}
	r := q.ring[q.first]
	q.ring[q.first] = report{}
	q.first = (q.first + 1) % len(q.ring)
	if q.count--; q.count > 0 {
		q.wakeOne()
	}
	return r, true
}

func (q *reports) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

// close counts what is left as lost, and what comes from now on.
func (q *reports) close(m *metrics) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m.lost.Add(float64(q.count))
	q.ring, q.first, q.count, q.closed = nil, 0, 0, true
}

// send is one sender: it sends until ctx ends, and then what is left, for as long as one report may take.
func (k *Keeper) send(ctx context.Context) {
	for ctx.Err() == nil {
		r, ok := k.reports.pop()
		if !ok {
			select {
			case <-ctx.Done():
			case <-k.reports.wake:
			}
			continue
		}
		k.deliver(ctx, r)
	}
	r, ok := k.reports.pop()
	if !ok {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.view.config.Timeout)
	defer cancel()
	for ; ok; r, ok = k.reports.pop() {
		if last.Err() != nil || !k.try(last, r) {
			k.metrics.lost.Inc()
		}
	}
}

// deliver sends r. A report that did not leave for want of a connection is tried again until it is too old; one that left
// is not, whatever came back: it must not count twice.
func (k *Keeper) deliver(ctx context.Context, r report) {
	for time.Since(r.made) <= reportAge {
		// What is under way when popgate stops may end, within its own time.
		if k.try(context.WithoutCancel(ctx), r) {
			return
		}
		pause := time.NewTimer(reportPause)
		select {
		case <-pause.C:
			continue
		case <-ctx.Done():
			pause.Stop()
		}
		break
	}
	k.metrics.lost.Inc()
}

// try sends r, and says whether that is over with.
func (k *Keeper) try(ctx context.Context, r report) bool {
	begin := time.Now()
	answer, err := r.view.post(ctx, commandReport, r.body, false)
	if err == nil {
		err = parseOK(answer)
	}
	r.view.judge(ctx, commandReport, err, time.Since(begin))
	if err != nil && !errors.Is(err, errUnsent) {
		k.metrics.lost.Inc()
		return true
	}
	return err == nil
}

// isDial says that err is about a connection that did not come about.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
