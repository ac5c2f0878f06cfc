package store

import (
	"encoding/binary"
	"math"
	"sync"
)

// mostOwed bounds the keys of which turns are owed to Redis. Beyond it turns that this node granted alone stay its own.
const mostOwed = 1 << 16

// owed is what Redis has to be told when it is back.
type owed struct {
	mu      sync.Mutex
	debts   map[Key]debt
	changed map[Key]struct{} // keys of places that changed while the counts are being written
}

// debt is the turns of one key, in microseconds: how many, and how many may be out.
type debt struct {
	paid, full float64
}

func (o *owed) reset() {
	o.debts, o.changed = map[Key]debt{}, map[Key]struct{}{}
}

// add keeps what has become of asks: of places only that there was a change, and only if they are being written now.
func (o *owed) add(asks []Ask, c change, writing bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range asks {
		a := &asks[i]
		if !a.Place() {
			o.owe(a.Key, c.paid(a), full(a))
		} else if writing {
			o.changed[a.Key] = struct{}{}
		}
	}
}

// spend keeps that n turns of each were spent.
func (o *owed) spend(asks []Ask, n int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range asks {
		if a := &asks[i]; !a.Place() && a.Most > 0 {
			o.owe(a.Key, micros(span(a.Turn, n)), full(a))
		}
	}
}

// addSent keeps the turns among asks as they were to be sent.
func (o *owed) addSent(asks []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for ; len(asks) >= askSize; asks = asks[askSize:] {
		if asks[0] == askTurn || asks[0] == tellTurn {
			number := func(at int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(asks[at:])) }
			o.owe(Key(binary.LittleEndian.Uint64(asks[1:])), number(9), number(17))
		}
	}
}

func (o *owed) owe(k Key, paid, full float64) {
	d, ok := o.debts[k]
	if paid == 0 || !ok && len(o.debts) >= mostOwed {
		return
	}
	o.debts[k] = debt{min(d.paid+paid, full), full}
}

// take gives what is owed, and keeps no more of it.
func (o *owed) take() (debts map[Key]debt, changed map[Key]struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	debts, changed = o.debts, o.changed
	o.reset()
	return debts, changed
}

// forgetChanges drops what changed before the counts are written.
func (o *owed) forgetChanges() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed = map[Key]struct{}{}
}

// back puts debts back that could not be told.
func (o *owed) back(debts map[Key]debt) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, d := range debts {
		o.owe(k, d.paid, d.full)
	}
}

// until is the time until which k's turns are paid for; 0 if nothing is kept.
func (m *Memory) until(k Key, now int64) int64 {
	s := m.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rates[k.class()].until(k, now)
}
