package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// What keeps a record from being queued or written, beside the errors of the file itself.
var (
	errFull    = errors.New("too many records wait to be written")
	errStopped = errors.New("the audit has ended")
	errSlow    = errors.New("it was not written in time")
	errHangs   = errors.New("a write that began earlier does not end")
)

// Whether an entry is still its maker's to take back, or in the writer's hands.
const (
	queued int32 = iota
	taken
	withdrawn
)

// An entry is one record on its way to the file. Entries are used again: whoever holds one last, the Record that
// waited for it or else the writer, puts it back.
type entry struct {
	name  Name
	text  bytes.Buffer
	json  *json.Encoder
	line  line
	end   int // where its line ends in the batch that is being written
	wait  bool
	state atomic.Int32
	done  chan error // holds one, so the writer never waits for anybody who has gone
	timer *time.Timer
}

func newEntry() any {
	e := &entry{done: make(chan error, 1), timer: time.NewTimer(time.Hour)}
	e.timer.Stop()
	e.json = e.encoder()
	return e
}

// A queue is what waits for the writer.
type queue struct {
	mu      sync.Mutex
	pending []*entry
	spare   []*entry // what the writer had last, to be filled again
	closed  bool
	wake    chan struct{} // holds one: there is something to do
	soon    *time.Timer   // rouses the writer for records that nobody waits for
}

// postDelay lets records that nobody waits for come together, mostly with one that somebody does: a wake-up and a
// write of the file for each would cost as much as the record itself.
const postDelay = 50 * time.Millisecond

// push adds e, unless most entries are there already.
func (q *queue) push(e *entry, most int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errStopped
	case len(q.pending) >= most:
		return errFull
	}
	q.pending = append(q.pending, e)
	switch {
	case e.wait:
		q.rouse()
	case len(q.pending) > 1: // the first one has seen to it
	case q.soon == nil:
		q.soon = time.AfterFunc(postDelay, q.rouse)
	default:
		q.soon.Reset(postDelay)
	}
	return nil
}

// rouse tells the writer that there is something to do.
func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take empties the queue. What it returns is the writer's until it calls take or close again.
func (q *queue) take() []*entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.pending
	q.pending, q.spare = q.spare[:0], out
	return out
}

// close empties the queue for the last time.
func (q *queue) close() []*entry {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	return q.take()
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.pending)
}
