package backend

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// open logs in n times, as n accounts, and keeps the connections until the test's end.
func open(t *testing.T, p *Pool, n int) []*Conn {
	t.Helper()
	var conns []*Conn
	for i := range n {
		req := request()
		req.Account = fmt.Sprintf("user%d@example.org", i)
		c, err := p.Login(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		conns = append(conns, c)
	}
	return conns
}

// alwaysOK has every server of a pool take every login.
func alwaysOK(t *testing.T, p *Pool) {
	p.backends.dial = func(context.Context, *dialer, address) (net.Conn, error) { return answer(t, loginScript), nil }
}

func sessions(p *Pool) []int64 {
	var all []int64
	for _, m := range p.members {
		all = append(all, m.server.places.taken.Load())
	}
	return all
}

// TestSessionsAreCounted holds that a session counts from its login to its first Close, and a login that fails not at all.
func TestSessionsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, config("one.example.org"))
		alwaysOK(t, p)
		conns := open(t, p, 3)
		for i, c := range conns {
			for range 2 {
				_ = c.Close()
			}
			if got := sessions(p)[0]; got != int64(2-i) {
				t.Errorf("%d sessions are counted, want %d", got, 2-i)
			}
		}
		for _, s := range []string{"close", "S: -ERR no", "S: +OK\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nS: -ERR no"} {
			piped(t, p, script(s))
			if _, err := p.Login(t.Context(), request()); err == nil {
				t.Fatal("logged in")
			}
			if got := sessions(p)[0]; got != 0 {
				t.Errorf("%q: %d sessions are counted, want 0", s, got)
			}
		}
	})
}

func TestLeastSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config("one.example.org", "two.example.org", "three.example.org", "four.example.org")
		c.Balance = BalanceLeast
		for i, w := range []int{1, 2, 3, 0} {
			c.Servers[i].Weight = w
		}
		p := pool(t, c)
		alwaysOK(t, p)
		conns := open(t, p, 60)
		if got, want := sessions(p), []int64{10, 20, 30, 0}; !slices.Equal(got, want) {
			t.Errorf("got %v sessions, want %v", got, want)
		}
		// Those of one server end: who comes next goes there.
		for _, c := range conns {
			if c.Server == "two.example.org:110" {
				c.Close()
			}
		}
		open(t, p, 20)
		if got, want := sessions(p), []int64{10, 20, 30, 0}; !slices.Equal(got, want) {
			t.Errorf("after one has emptied: got %v sessions, want %v", got, want)
		}
	})
}

// TestLeastSessionsTies holds that where all have as much to do the hash decides.
func TestLeastSessionsTies(t *testing.T) {
	c := config("10.0.0.1", "10.0.0.2", "10.0.0.3")
	byHash := pool(t, c)
	c.Balance = BalanceLeast
	least := pool(t, c)
	for i := range 50 {
		account := fmt.Sprint(i)
		a, b := byHash.order(nil, account), least.order(nil, account)
		for j := range a {
			if a[j].address.text != b[j].address.text {
				t.Fatalf("%s: %s is number %d, want %s", account, b[j].address.text, j, a[j].address.text)
			}
		}
		if got, want := Order(c, account), byHash.order(nil, account)[0].address.text; got[0] != want {
			t.Errorf("Order: got %q, want %s first", got, want)
		}
	}
}

func TestFailoverInOrder(t *testing.T) {
	c := config("10.0.0.3", "10.0.0.1", "10.0.0.4", "10.0.0.2")
	c.Servers[2].Weight, c.Servers[1].Drain = 0, true
	c.Balance = BalanceFailover
	p := pool(t, c)
	var tried []string
	p.backends.dial = func(_ context.Context, _ *dialer, a address) (net.Conn, error) {
		tried = append(tried, a.text)
		return nil, errors.New("no route to host")
	}
	for i := range 20 {
		tried = nil
		req := request()
		req.Account = fmt.Sprint(i)
		_, err := p.Login(t.Context(), req)
		refused(t, err, Down)
		if want := []string{"10.0.0.3:110", "10.0.0.2:110"}; !slices.Equal(tried, want) || !slices.Equal(Order(c, req.Account), want) {
			t.Fatalf("tried %q, explained %q, want %q", tried, Order(c, req.Account), want)
		}
	}
}

// shareOf is the part of the accounts that meets the server called address first.
func shareOf(p *Pool, address string) float64 {
	n := 0
	for _, a := range first(p, 4000) {
		if a == address {
			n++
		}
	}
	return float64(n) / 4000
}

// TestSlowStart holds that a server that is back gets its share little by little, and that no accounts move between others.
func TestSlowStart(t *testing.T) {
	for _, tt := range []struct {
		balance string
		full    float64
		half    float64
	}{{BalanceHash, 0.5, 1.0 / 3}, {BalanceFailover, 1, 0.5}, {BalanceLeast, 0.5, 1.0 / 3}} {
		synctest.Test(t, func(t *testing.T) {
			c := config("10.0.0.1", "10.0.0.2")
			c.Balance, c.SlowStart = tt.balance, time.Minute
			p := pool(t, c)
			is := func(when string, want float64) {
				t.Helper()
				if got := shareOf(p, "10.0.0.1:110"); math.Abs(got-want) > 0.03 {
					t.Errorf("%s, %s: got a share of %.3f, want %.3f", tt.balance, when, got, want)
				}
			}
			is("at the start", tt.full)
			s := p.members[0].server
			s.dead(p.backends.now(), 10*time.Second)
			<-time.After(5 * time.Second)
			s.alive(p.backends.now())
			is("just back", 0.01)
			<-time.After(30 * time.Second)
			is("at half time", tt.half)
			<-time.After(30 * time.Second)
			is("at the end", tt.full)
			s.dead(p.backends.now(), busyFor)
			s.alive(p.backends.now())
			is("after it was busy", tt.full)
		})
	}
}

// TestSlowStartOfNewServers holds that a server that a reload adds starts slowly, and that those of the start do not.
func TestSlowStartOfNewServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(nil, nil)
		c := config("10.0.0.1", "10.0.0.2")
		c.SlowStart = time.Minute
		use(t, b, c)
		more := config("10.0.0.1", "10.0.0.2", "10.0.0.3")
		more.SlowStart = time.Minute
		p := use(t, b, more).Pool("old")
		if got := shareOf(p, "10.0.0.3:110"); got > 0.02 {
			t.Errorf("a new server has a share of %.3f at once", got)
		}
		<-time.After(time.Minute)
		if got := shareOf(p, "10.0.0.3:110"); math.Abs(got-1.0/3) > 0.03 {
			t.Errorf("in the end it has a share of %.3f, want a third", got)
		}
	})
}

func BenchmarkOrderLeast(b *testing.B) {
	c := config("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
	c.Balance = BalanceLeast
	p := pool(b, c)
	b.ReportAllocs()
	for b.Loop() {
		var few [8]candidate
		if len(p.order(few[:0], "alice@example.org")) != 4 {
			b.Fatal("servers are missing")
		}
	}
}

// TestFailoverWhileStarting holds that a login finds each server once, whatever becomes known of them meanwhile.
func TestFailoverWhileStarting(t *testing.T) {
	c := config("one.example.org", "two.example.org")
	c.Balance, c.SlowStart = BalanceFailover, time.Hour
	p := pool(t, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := p.members[0].server
		for range 100_000 {
			s.since.Store(int64(p.backends.now()))
			s.since.Store(0)
		}
	}()
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
		}
		if order := p.order(nil, "alice@example.org"); len(order) != 2 || order[0].member == order[1].member {
			t.Fatalf("got %v", order)
		}
	}
}
