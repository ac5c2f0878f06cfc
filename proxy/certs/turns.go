package certs

import (
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// lookEvery is how soon the storage is read once more for a client that waits.
const lookEvery = 10 * time.Second

// turns are those of orders (tls.acme.orders). The manager's lock guards them.
type turns struct {
	tat  int64
	owed int  // taken before their time
	told bool // that orders wait
}

// take takes a turn if one has come.
func (t *turns) take(rate limit.Rate, now int64) (ok bool) {
	for {
		if t.tat, ok = rate.Take(t.tat, now); !ok || t.owed == 0 {
			return ok
		}
		t.owed--
	}
}

// owe takes a turn, whether one has come or not: those to come are later for it. What is owed is bounded by what the rate lets happen at once.
func (t *turns) owe(rate limit.Rate, now int64) {
	if !t.take(rate, now) {
		t.owed = min(t.owed+1, rate.Count)
	}
}

// nextOrder gives the order whose turn it is: only then it has a worker, so that none is held by an order that waits. What an operator asks
// for never waits.
func (m *manager) nextOrder() *order {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.orders.first()
	if o == nil {
		m.turns.told = false
		return nil
	}
	if !o.force {
		rate := m.rate()
		if !m.turns.take(rate, m.now()) {
			if !m.turns.told {
				m.turns.told = true
				m.log.Info("orders wait for their turn", "orders", rate.String(), "waiting", m.orders.line.Len())
			}
			return nil
		}
		o.turn, o.paid = true, m.turns.tat
	}
	m.orders.drop(o)
	return o
}

// nextForced gives only what an operator asks for, to a worker that no issuer's slowness can keep from it.
func (m *manager) nextForced() *order {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.orders.first()
	if o == nil || !o.force {
		return nil
	}
	m.orders.drop(o)
	return o
}

// rate is how many orders there may be. The lock is held.
func (m *manager) rate() limit.Rate {
	if v := m.view.Load(); v != nil {
		return v.section.Orders
	}
	return limit.Rate{}
}

// spend uses up the turn of an order that an issuer is asked for now. Where one visit needs several, the later ones wait for nothing and
// are owed.
func (m *manager) spend(o *order) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.turn {
		o.turn = false
		return
	}
	m.turns.owe(m.rate(), m.now())
}

// refund gives back the turn of an order for which nobody was asked. The lock is held.
func (m *manager) refund(o *order) {
	if o.turn {
		o.turn = false
		m.turns.tat = m.rate().Give(m.turns.tat, o.paid, m.now())
	}
}

// hurry is called when a client waits for an order: one that is queued goes before those that nobody waits for, and the storage is read once
// more, where another node may have put what it obtained. The lock is held.
func (m *manager) hurry(o *order) {
	now := time.Now()
	if o == nil || o.queue == nil || now.Sub(o.looked) < lookEvery {
		return
	}
	o.asked, o.looked = true, now
	o.queue.drop(o)
	m.loads.push(o)
}
