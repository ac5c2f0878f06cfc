package store

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// What the script in Redis is asked for, one at a time. Each ask is askSize bytes: its kind, the key and two numbers.
const (
	askPlace  = iota // a place, if fewer than the first number are taken
	askTurn          // a turn of the first number of microseconds, if the turns out stay within the second; answered by how long they are out
	tellPlace        // so many places more, or fewer
	tellTurn         // so many microseconds of turns more, up to the second number, or fewer; answered likewise

	askSize = 1 + 8 + 8 + 8
)

// mostWaiting bounds what waits to be sent. A Redis so far behind is away.
const mostWaiting = 1 << 16

// change is what has become of asks.
type change struct {
	places float64 // how many more there are of each
	turns  int64   // the sign of what is paid for turns
	now    int64   // when
}

var (
	taken    = change{places: 1, turns: 1}
	given    = change{places: -1, turns: -1}
	unplaced = change{places: -1} // of turns Redis knows
)

func (c change) at(now int64) change {
	c.now = now
	return c
}

// paid is what the change comes to for a turn, in microseconds: of one given back, what time has not brought back yet.
func (c change) paid(a *Ask) float64 {
	if c.turns < 0 {
		return -micros(min(max(a.Paid-c.now, 0), a.Turn))
	}
	return micros(a.Turn * c.turns)
}

// micros is nanoseconds in what Redis reckons with.
func micros(ns int64) float64 { return float64(ns) / 1000 }

// full is how far off the turns of a may be, in microseconds.
func full(a *Ask) float64 {
	if a.Most <= 0 {
		return micros(maxSpan)
	}
	return micros(span(a.Turn, a.Most))
}

// queue is what waits to be sent to Redis, in order.
type queue struct {
	mu    sync.Mutex
	batch batch
	over  bool          // there was too much; what came then is lost
	wake  chan struct{} // says that there is something that somebody waits for
	later chan struct{} // says that there is something else
}

// batch is some entries and what they ask for.
type batch struct {
	blob    []byte
	entries []entry
}

// entry is one decision or message; its bytes in the blob end at end.
type entry struct {
	end   int
	order *order  // who waits for the answer, or nil
	lump  *lump   // what is paid for, or nil
	out   float64 // for how many microseconds it is then paid for, by the answer
}

func (b *batch) reset() {
	clear(b.entries)
	b.blob, b.entries = b.blob[:0], b.entries[:0]
}

// add makes an entry of what was put into the blob behind a byte for the number of asks.
func (b *batch) add(begin int, e entry) {
	b.blob[begin] = byte((len(b.blob) - begin - 1) / askSize)
	e.end = len(b.blob)
	b.entries = append(b.entries, e)
}

// put writes one ask.
func (b *batch) put(kind byte, k Key, x, y float64) {
	b.blob = append(b.blob, kind)
	b.blob = binary.LittleEndian.AppendUint64(b.blob, uint64(k))
	b.blob = binary.LittleEndian.AppendUint64(b.blob, math.Float64bits(x))
	b.blob = binary.LittleEndian.AppendUint64(b.blob, math.Float64bits(y))
}

// putChange writes what has become of a.
func (b *batch) putChange(a *Ask, c change) {
	if a.Place() {
		b.put(tellPlace, a.Key, c.places, 0)
	} else if paid := c.paid(a); paid != 0 {
		b.put(tellTurn, a.Key, paid, full(a))
	}
}

// open begins an entry, if there is room. The queue is locked; close ends it.
func (q *queue) open() (begin int, ok bool) {
	q.mu.Lock()
	if len(q.batch.entries) >= mostWaiting {
		q.over = true
	}
	if q.over {
		q.mu.Unlock()
		return 0, false
	}
	begin = len(q.batch.blob)
	q.batch.blob = append(q.batch.blob, 0)
	return begin, true
}

func (q *queue) close(begin int, e entry) {
	asked := len(q.batch.blob) > begin+1
	if asked {
		q.batch.add(begin, e)
	} else {
		q.batch.blob = q.batch.blob[:begin]
	}
	q.mu.Unlock()
	if !asked {
		return
	}
	wake := q.wake
	if e.order == nil {
		wake = q.later
	}
	select {
	case wake <- struct{}{}:
	default:
	}
}

// ask queues a decision. It is nil if there is no room.
func (q *queue) ask(asks []Ask) *order {
	begin, ok := q.open()
	if !ok {
		return nil
	}
	o := newOrder()
	for i := range asks {
		switch a := &asks[i]; {
		case a.Most <= 0:
			q.batch.putChange(a, taken)
			if a.Turn > 0 {
				o.skip |= 1 << i
			}
		case a.Place():
			q.batch.put(askPlace, a.Key, float64(a.Most), 0)
		default:
			q.batch.put(askTurn, a.Key, micros(a.Turn), full(a))
		}
	}
	q.close(begin, entry{order: o})
	return o
}

// tell queues what has become of asks already.
func (q *queue) tell(asks []Ask, c change) {
	begin, ok := q.open()
	if !ok {
		return
	}
	for i := range asks {
		q.batch.putChange(&asks[i], c)
	}
	q.close(begin, entry{})
}

// pay queues what is paid for a lump.
func (q *queue) pay(a *Ask, n int64, l *lump) bool {
	begin, ok := q.open()
	if !ok {
		return false
	}
	q.batch.put(tellTurn, a.Key, micros(span(a.Turn, n)), micros(maxSpan))
	q.close(begin, entry{lump: l})
	return true
}

// take swaps what waits with b, which is empty. It is false if something was lost for want of room.
func (q *queue) take(b *batch) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	over := q.over
	q.batch, *b, q.over = *b, q.batch, false
	return !over
}

// The verdicts on an order beside the index of what refused.
const (
	granted = -1
	alone   = -2
)

// The states of an order.
const (
	waiting  = iota
	answered // its asker has the verdict
	leftover // nobody waits any more
)

// order is a decision that somebody waits for.
type order struct {
	state   atomic.Int32
	done    chan struct{}
	timer   *time.Timer
	verdict int
	skip    uint64    // which asks are no turn to set the price of, a bit each
	out     []float64 // for how many microseconds the turns are paid for, in the order of asks
}

var orders = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &order{done: make(chan struct{}, 1), timer: t}
}}

func newOrder() *order {
	o := orders.Get().(*order)
	o.state.Store(waiting)
	o.skip, o.out = 0, o.out[:0]
	return o
}

// release is for whoever of the two sees it last.
func (o *order) release() { orders.Put(o) }

// wait is true if there is a verdict in time; else the order is no longer the caller's.
func (o *order) wait(ctx context.Context, limit time.Duration) bool {
	o.timer.Reset(limit)
	select {
	case <-o.done:
		o.timer.Stop()
		return true
	case <-o.timer.C:
	case <-ctx.Done():
		o.timer.Stop()
	}
	if o.state.CompareAndSwap(waiting, leftover) {
		return false
	}
	<-o.done
	return true
}

// answer gives the verdict. It is false if nobody waits for it any more.
func (o *order) answer(verdict int) bool {
	o.verdict = verdict
	if !o.state.CompareAndSwap(waiting, answered) {
		return false
	}
	o.done <- struct{}{}
	return true
}

// price sets until when turns are paid for, as Redis has it, by this node's clock.
func (o *order) price(asks []Ask, now int64) {
	out := o.out
	for i := range asks {
		a := &asks[i]
		if a.Place() || len(out) == 0 {
			continue
		}
		if o.skip&(1<<i) == 0 {
			a.Paid = now + int64(out[0]*1000)
		}
		out = out[1:]
	}
}
