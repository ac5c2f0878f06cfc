package certs

import (
	"errors"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// queued gives a manager that nobody runs whose orders wait for an issuer: those of the names mail.a.example, mail.b.example and
// mail.c.example, that nobody has asked for.
func queued(t *testing.T, orders limit.Rate) (*manager, map[string]*order) {
	t.Helper()
	c := offDemand()
	c.ACME.Orders = orders
	m, _ := unrun(t, c, Deps{
		Domains: func() []string { return []string{"a.example", "b.example", "c.example"} },
		Knows:   func(string) bool { return true },
	})
	all := make(map[string]*order)
	for o := m.loads.pop(); o != nil; o = m.loads.pop() {
		all[o.m.name] = o
		m.mu.Lock()
		m.orders.push(o)
		m.mu.Unlock()
	}
	if len(all) != 3 {
		t.Fatalf("got %d orders, want 3", len(all))
	}
	return m, all
}

// TestTurnComesBeforeTheWorker: what waits for its turn holds no worker, and an operator waits for nobody's turn.
func TestTurnComesBeforeTheWorker(t *testing.T) {
	m, _ := queued(t, limit.Rate{Count: 1, Per: time.Hour})
	first := m.nextOrder()
	if first == nil || m.nextOrder() != nil {
		t.Fatal("of one turn an hour not one was given")
	}
	if m.nextForced() != nil {
		t.Error("an order that nobody forced went past the others")
	}
	m.mu.Lock()
	o := newOrder(first.m, true)
	m.orders.push(o)
	m.mu.Unlock()
	if got := m.nextOrder(); got != o {
		t.Error("what an operator asks for waits for a turn")
	}
	m.mu.Lock()
	m.orders.push(o)
	m.mu.Unlock()
	if got := m.nextForced(); got != o {
		t.Error("what an operator asks for waits for a worker")
	}
	// Another node was faster: nobody was asked.
	m.finish(first, nil)
	second := m.nextOrder()
	if second == nil {
		t.Fatal("a turn that was not used is lost")
	}
	m.spend(second)
	m.fail(second, errors.New("x"))
	if m.nextOrder() != nil {
		t.Error("a turn that was used came back")
	}
}

// TestTurnsOwed: what one visit takes beyond its turn, the next ones wait for.
func TestTurnsOwed(t *testing.T) {
	rate := limit.Rate{Count: 2, Per: 2 * time.Hour}
	var ts turns
	hour := int64(time.Hour)
	for n, want := range []bool{true, true, false} {
		if got := ts.take(rate, 0); got != want {
			t.Fatalf("number %d at once: got %v, want %v", n+1, got, want)
		}
	}
	ts.owe(rate, 0)
	// One comes back each hour, and the first of them is owed.
	if ts.take(rate, hour) {
		t.Error("what was owed is forgotten")
	}
	if !ts.take(rate, 2*hour) {
		t.Error("what was owed is taken twice")
	}
	for range 10 {
		ts.owe(rate, 2*hour)
	}
	if ts.owed > rate.Count {
		t.Errorf("%d turns are owed, of a rate of %d at once", ts.owed, rate.Count)
	}
	var free turns
	free.owe(limit.Rate{}, 0)
	if !free.take(limit.Rate{}, 0) || free.owed != 0 {
		t.Error("a rate that is off has turns")
	}
}

// TestHandshakeHurriesItsOrder: a client's name is read from the storage once more, and goes before those that nobody asks for.
func TestHandshakeHurriesItsOrder(t *testing.T) {
	m, all := queued(t, limit.Rate{})
	o := all["mail.c.example"]
	waits := func(name string) *order {
		got, ours := m.expected(from("192.0.2.7", name), name)
		if !ours {
			t.Errorf("%s is none of ours", name)
		}
		return got
	}
	if got := waits("mail.c.example"); got != o {
		t.Fatalf("the client waits for %v, not the order that was queued", got)
	}
	if got := m.loads.pop(); got != o || m.loads.pop() != nil {
		t.Fatal("the storage is not read for it")
	}
	// It is at work: nobody takes that away.
	if waits("mail.c.example"); m.loads.pop() != nil {
		t.Error("an order at work was queued")
	}
	m.mu.Lock()
	m.orders.push(o)
	m.mu.Unlock()
	// So soon the storage is not asked again.
	if waits("mail.c.example"); m.loads.pop() != nil {
		t.Error("each handshake has the storage read")
	}
	m.mu.Lock()
	o.looked = time.Now().Add(-lookEvery)
	m.mu.Unlock()
	if waits("mail.c.example"); m.loads.pop() != o {
		t.Error("the storage is read once only")
	}
	m.mu.Lock()
	m.orders.push(o)
	m.mu.Unlock()
	if got := m.nextOrder(); got != o {
		t.Errorf("the first to be ordered is %s", got.m.name)
	}
	if len(m.orders.line) != 2 {
		t.Errorf("%d are left, want the two that nobody asks for", len(m.orders.line))
	}
}
