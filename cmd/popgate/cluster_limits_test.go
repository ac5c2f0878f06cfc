//go:build unix

package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sharedLimits has a limit of each kind, each for clients of its own. The deadline leaves room for a machine that is busy: what is to be seen
// is what the nodes hold together, and a node that did not wait would decide alone.
const sharedLimits = `
lockout: {enabled: false}
limits:
  failure_delay: 10ms
  all: {sessions: 150}
  overrides:
    - {name: ip-sessions, networks: [127.0.1.1/32], per_ip: {sessions: 100}}
    - {name: ip-failures, networks: [127.0.1.2/32], per_ip: {failures: 100/d}}
    - {name: ip-connections, networks: [127.0.1.3/32], per_ip: {connections: 20/s burst 100}}
    - {name: user-few, users: [few@example.org], per_user: {sessions: 10}}
    - {name: user-sessions, users: [sessions@example.org], per_user: {sessions: 50}}
    - {name: user-logins, users: [logins@example.org], per_user: {logins: 100/d}}
`

// within1 holds what all nodes let in together against the limit, to the hundredth. What a node that could not wait let in by itself is not counted against it.
func (f *farm) within1(t *testing.T, what string, got, limit, before int) {
	t.Helper()
	alone := f.alone() - before
	t.Logf("%s: %d, the limit is %d; decisions made alone: %d", what, got, limit, alone)
	if slack := limit / 100; got > limit+slack+alone || got < limit-slack-alone {
		t.Errorf("%s: got %d, want %d ± %d", what, got, limit, slack)
	}
}

// crowd has n clients do the same, a few dozen at once, each at the next node.
func (f *farm) crowd(t *testing.T, n int, do func(i int, m *member) error) {
	t.Helper()
	var wg sync.WaitGroup
	room := make(chan struct{}, 48)
	for i := range n {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if err := do(i, f.nodes[i%len(f.nodes)]); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

// loopback is the address of the nth of many clients.
func loopback(n int) string { return fmt.Sprintf("127.0.%d.%d", 10+n/250, 1+n%250) }

func TestClusterLimits(t *testing.T) {
	f := newFarm(t, startRedis(t).section(), "deadline: 1s", sharedLimits)
	f.grow(3)
	t.Run("sessions of a user", f.userSessions)
	t.Run("sessions of an address", f.addressSessions)
	t.Run("sessions of all", f.allSessions)
	t.Run("logins of a user", f.userLogins)
	t.Run("failures of an address", f.addressFailures)
	t.Run("connections of an address", f.addressConnections)
}

// held are sessions that stay, to the end of the test at most, of clients that may call at once.
type held struct {
	mu      sync.Mutex
	callers []*caller
}

// hold makes a held, which also keeps connections that nobody looks at any more from being closed by the garbage collector.
func hold(t *testing.T) *held {
	h := &held{}
	t.Cleanup(func() {
		for _, c := range h.callers {
			_ = c.conn.Close()
		}
	})
	return h
}

func (h *held) add(c *caller) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.callers = append(h.callers, c)
}

func (h *held) quit(t *testing.T) int {
	for _, c := range h.callers {
		if err := c.quit(); err != nil {
			t.Error(err)
		}
	}
	return len(h.callers)
}

// comeAndGo has the sessions of a user come and go at all nodes, and says how many there were at once for certain.
func (f *farm) comeAndGo(t *testing.T, user string) (most, refused int) {
	var now, seen, busy atomic.Int64
	f.crowd(t, 400, func(i int, m *member) error {
		c, err := f.call(m, loopback(i))
		if err != nil {
			return err
		}
		defer c.conn.Close()
		reply, err := c.login(user, password)
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(reply, "-ERR [IN-USE]"):
			busy.Add(1)
			return nil
		case !strings.HasPrefix(reply, "+OK"):
			return fmt.Errorf("got %q", reply)
		}
		n := now.Add(1)
		for old := seen.Load(); n > old && !seen.CompareAndSwap(old, n); old = seen.Load() {
		}
		if _, err := c.say("STAT"); err != nil {
			return err
		}
		now.Add(-1) // before it ends: never more are counted than there are
		return c.quit()
	})
	return int(seen.Load()), int(busy.Load())
}

// userSessions first has what is given back taken by others, and then fills all there is.
func (f *farm) userSessions(t *testing.T) {
	const few, user, limit = 10, "sessions@example.org", 50
	before := f.alone()
	most, refused := f.comeAndGo(t, "few@example.org")
	t.Logf("coming and going: %d at once, the limit is %d; %d refused", most, few, refused)
	if most > few+f.alone()-before || refused == 0 {
		t.Errorf("%d sessions at once and %d refused, the limit is %d", most, refused, few)
	}
	h := f.fill(t, "few@example.org", 40)
	f.within1(t, "sessions of a user whose sessions came and went", h.quit(t), few, before)
	before = f.alone()
	h = f.fill(t, user, 120)
	f.within1(t, "sessions of a user", h.quit(t), limit, before)
	h = f.fill(t, user, 120) // those places are there again
	f.within1(t, "sessions of a user, again", h.quit(t), limit, before)
}

// fill has n clients of a user log in and stay.
func (f *farm) fill(t *testing.T, user string, n int) *held {
	t.Helper()
	h := hold(t)
	f.crowd(t, n, func(i int, m *member) error {
		c, err := f.call(m, loopback(i))
		if err != nil {
			return err
		}
		reply, err := c.login(user, password)
		if err == nil && strings.HasPrefix(reply, "+OK") {
			h.add(c)
			return nil
		}
		_ = c.conn.Close()
		if err == nil && !strings.HasPrefix(reply, "-ERR [IN-USE]") {
			err = fmt.Errorf("got %q", reply)
		}
		return err
	})
	return h
}

func (f *farm) addressSessions(t *testing.T) {
	before, h := f.alone(), hold(t)
	f.crowd(t, 180, func(i int, m *member) error {
		if c, err := f.call(m, "127.0.1.1"); err == nil { // else it was turned away
			h.add(c)
		}
		return nil
	})
	f.within1(t, "sessions of an address", h.quit(t), 100, before)
}

func (f *farm) allSessions(t *testing.T) {
	before, h := f.alone(), hold(t)
	f.crowd(t, 240, func(i int, m *member) error {
		if c, err := f.call(m, loopback(i)); err == nil {
			h.add(c)
		}
		return nil
	})
	f.within1(t, "sessions of all", h.quit(t), 150, before)
}

func (f *farm) userLogins(t *testing.T) {
	var accepted atomic.Int64
	before := f.alone()
	f.crowd(t, 200, func(i int, m *member) error {
		c, err := f.call(m, loopback(i))
		if err != nil {
			return err
		}
		defer c.conn.Close()
		reply, err := c.login("logins@example.org", password)
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(reply, "+OK"):
			accepted.Add(1)
			return c.quit()
		case !strings.HasPrefix(reply, "-ERR [LOGIN-DELAY]"):
			return fmt.Errorf("got %q", reply)
		}
		return nil
	})
	f.within1(t, "logins of a user", int(accepted.Load()), 100, before)
}

func (f *farm) addressFailures(t *testing.T) {
	var failed, refused atomic.Int64
	before := f.alone()
	f.crowd(t, 24, func(i int, m *member) error {
		c, err := f.call(m, "127.0.1.2")
		if err != nil {
			return err
		}
		defer c.conn.Close()
		for try := range 10 {
			reply, err := c.login(fmt.Sprintf("u%d@example.org", try), fmt.Sprint("wrong", i))
			switch {
			case err != nil:
				return err
			case strings.HasPrefix(reply, "-ERR [AUTH]"):
				failed.Add(1)
			case strings.HasPrefix(reply, "-ERR [SYS/TEMP]"):
				refused.Add(1)
			default:
				return fmt.Errorf("got %q", reply)
			}
		}
		return nil
	})
	if n := failed.Load() + refused.Load(); n != 240 {
		t.Errorf("%d logins were answered, want 240", n)
	}
	f.within1(t, "failures of an address", int(failed.Load()), 100, before)
}

// addressConnections has turns come back while they are taken.
func (f *farm) addressConnections(t *testing.T) {
	const burst, rate = 100, 20
	var in atomic.Int64
	before, begun := f.alone(), time.Now()
	f.crowd(t, 400, func(i int, m *member) error {
		c, err := f.call(m, "127.0.1.3")
		if err == nil {
			in.Add(1)
			err = c.quit()
		} else {
			err = nil // it was turned away
		}
		return err
	})
	took, alone := time.Since(begun), f.alone()-before
	most := burst + int64(took.Seconds()*rate)
	t.Logf("connections of an address in %v: %d, the limit is %d; decisions made alone: %d", took.Round(time.Millisecond), in.Load(), most, alone)
	if got := in.Load(); got > most+most/100+1+int64(alone) || got < burst-1-int64(alone) {
		t.Errorf("%d connections in %v, want %d to %d", got, took, burst, most)
	}
}
