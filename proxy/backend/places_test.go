package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func limited(addresses ...string) Config {
	c := config(addresses...)
	c.MaxSessions, c.Queue, c.QueueTimeout = 2, 2, 5*time.Second
	return c
}

// TestQueue holds that who finds no place waits for one, in order, and not for ever; and that not many can wait.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, limited("one.example.org"))
		alwaysOK(t, p)
		conns := open(t, p, 2)
		start := time.Now()
		type result struct {
			n     int
			err   error
			after time.Duration
		}
		results := make(chan result, 3)
		for n := range 3 {
			go func() {
				c, err := p.Login(t.Context(), request())
				results <- result{n, err, time.Since(start)}
				if err == nil {
					<-time.After(20 * time.Second)
					c.Close()
				}
			}()
			synctest.Wait()
		}
		r := <-results
		if refused(t, r.err, Busy) != "queue" || r.n != 2 || r.after != 0 || !errors.Is(r.err, errQueueFull) {
			t.Errorf("got %+v, want the third to be turned away at once", r)
		}
		<-time.After(2 * time.Second)
		conns[0].Close()
		if r = <-results; r.err != nil || r.n != 0 || r.after != 2*time.Second {
			t.Errorf("got %+v, want the first to get the place that is given back", r)
		}
		r = <-results
		if refused(t, r.err, Busy); r.n != 1 || r.after != 5*time.Second || !errors.Is(r.err, errNoPlace) {
			t.Errorf("got %+v, want the second to give up after queue_timeout", r)
		}
		if got := p.members[0].server.places.waiting.Load(); got != 0 || sessions(p)[0] != 2 {
			t.Errorf("%d wait and %v have places, want 0 and 2", got, sessions(p))
		}
		<-time.After(time.Minute)
	})
}

// TestQueueEndsWithContext holds that a login whose time is over does not wait on, and keeps no place.
func TestQueueEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, limited("one.example.org"))
		alwaysOK(t, p)
		conns := open(t, p, 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.Login(ctx, request())
		if refused(t, err, Local); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the end of the context", err)
		}
		for _, c := range conns {
			c.Close()
		}
		open(t, p, 2)
	})
}

// TestOverflow holds that a full server's accounts go to no other by hash, and do where the balance is by sessions.
func TestOverflow(t *testing.T) {
	for balance, other := range map[string]bool{BalanceHash: false, BalanceFailover: false, BalanceLeast: true} {
		synctest.Test(t, func(t *testing.T) {
			c := limited("one.example.org", "two.example.org")
			c.Balance = balance
			p := pool(t, c)
			alwaysOK(t, p)
			account := request().Account
			home := p.order(nil, account)[0].member
			for home.server.places.take(home.maxSessions) {
			}
			conn, err := p.Login(t.Context(), request())
			if (err == nil) != other {
				t.Errorf("%s: got %v, want a login at the other server: %v", balance, err, other)
			}
			if err == nil {
				conn.Close()
			} else {
				refused(t, err, Busy)
			}
		})
	}
}

// TestLimitChanges holds that who waits hears of a limit that a reload has raised.
func TestLimitChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(nil, nil)
		c := limited("one.example.org")
		p := use(t, b, c).Pool("old")
		alwaysOK(t, p)
		open(t, p, 2)
		done := make(chan error)
		start := time.Now()
		go func() {
			conn, err := p.Login(t.Context(), request())
			if err == nil {
				conn.Close()
			}
			done <- err
		}()
		synctest.Wait()
		<-time.After(time.Second)
		c.Servers[0].MaxSessions = 3
		use(t, b, c)
		if err := <-done; err != nil || time.Since(start) != time.Second {
			t.Errorf("got %v after %v, want a place at once", err, time.Since(start))
		}
	})
}

// TestPlacesUnderLoad holds that no place is lost, and none given twice, whoever comes and gives up when.
func TestPlacesUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p places
		const most = 3
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				for j := range 20 {
					if !p.take(most) {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*7%13+1)*time.Millisecond)
						err := p.wait(ctx, most, 50, time.Duration(j+1)*time.Millisecond)
						cancel()
						if err != nil {
							continue
						}
					}
					if n := p.taken.Load(); n < 1 || n > most {
						t.Errorf("%d places are taken, of %d", n, most)
					}
					<-time.After(time.Duration((i+j)%5) * time.Millisecond)
					p.give()
				}
			})
		}
		all.Wait()
		if p.taken.Load() != 0 || p.waiting.Load() != 0 || p.queue.Len() != 0 {
			t.Errorf("in the end %d are taken, %d wait, %d in the queue", p.taken.Load(), p.waiting.Load(), p.queue.Len())
		}
	})
}

// TestPace holds that logins that come at once begin one after the other, and those that would wait too long do not.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		b := New(nil, reg)
		c := config("one.example.org")
		c.LoginsPerSecond, c.QueueTimeout = 10, time.Second
		p := use(t, b, c).Pool("old")
		alwaysOK(t, p)
		start := time.Now()
		var mu sync.Mutex
		var began []time.Duration
		turned := 0
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				conn, err := p.Login(t.Context(), request())
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					conn.Close()
					began = append(began, time.Since(start))
					return
				}
				if turned++; !errors.Is(err, errPace) || refused(t, err, Busy) != "queue" {
					t.Errorf("got %v", err)
				}
			})
		}
		all.Wait()
		slices.Sort(began)
		if len(began) != 11 || turned != 19 || began[10] != time.Second {
			t.Errorf("%d logins began, the last after %v, and %d were turned away", len(began), began[len(began)-1], turned)
		}
		if got := sessions(p)[0]; got != 0 {
			t.Errorf("%d sessions are counted, want 0", got)
		}
		next := use(t, b, c).Pool("old")
		if next.members[0].pacer != p.members[0].pacer {
			t.Error("a reload that changes nothing begins a new pace")
		}
		c.Servers[0].LoginsPerSecond = 20
		if next = use(t, b, c).Pool("old"); next.members[0].pacer.PerSecond() != 20 {
			t.Error("a server's own pace does not count")
		}
		want := fmt.Sprintf(`
# HELP popgate_backend_turned_away_total Logins that did not get a place or a turn at the server in time, by the limit.
# TYPE popgate_backend_turned_away_total counter
popgate_backend_turned_away_total{backend="old",limit="logins_per_second",server="one.example.org:110"} %d
popgate_backend_turned_away_total{backend="old",limit="max_sessions",server="one.example.org:110"} 0
# HELP popgate_backend_waits_total Logins that waited for a place or their turn at the server, and got it.
# TYPE popgate_backend_waits_total counter
popgate_backend_waits_total{backend="old",server="one.example.org:110"} 10
# HELP popgate_backend_wait_seconds_total Time that these logins waited.
# TYPE popgate_backend_wait_seconds_total counter
popgate_backend_wait_seconds_total{backend="old",server="one.example.org:110"} 5.5
`, turned)
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "popgate_backend_turned_away_total",
			"popgate_backend_waits_total", "popgate_backend_wait_seconds_total"); err != nil {
			t.Error(err)
		}
	})
}

// TestPlaceOfPanic holds that a login that ends in a panic gives its place back, and its connection.
func TestPlaceOfPanic(t *testing.T) {
	p := pool(t, limited("one.example.org"))
	n := &network{open: 1}
	p.backends.dial = func(context.Context, *dialer, address) (net.Conn, error) { return slipping{counted{n: n}}, nil }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("nothing panicked")
			}
		}()
		_, _ = p.Login(t.Context(), request())
	}()
	if taken := p.members[0].server.places.taken.Load(); taken != 0 || n.open != 0 {
		t.Errorf("%d places are taken and %d connections open, want none", taken, n.open)
	}
}

// slipping panics when it is read from.
type slipping struct{ counted }

func (slipping) SetDeadline(time.Time) error { return nil }
func (slipping) Read([]byte) (int, error)    { panic("a slip") }

// TestQueueMixedLimits holds that a login from before a reload, which waits under a lower limit, does not hold up those
// behind it once it has given up.
func TestQueueMixedLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p places
		for range 2 {
			p.take(2)
		}
		first := make(chan error, 1)
		go func() { first <- p.wait(t.Context(), 2, 10, time.Second) }()
		synctest.Wait()
		start := time.Now()
		if err := p.wait(t.Context(), 4, 10, time.Minute); err != nil || time.Since(start) != time.Second {
			t.Errorf("got %v after %v, want a place after a second", err, time.Since(start))
		}
		if err := <-first; !errors.Is(err, errNoPlace) || p.taken.Load() != 3 || p.waiting.Load() != 0 {
			t.Errorf("got %v, with %d places taken and %d waiting", err, p.taken.Load(), p.waiting.Load())
		}
	})
}
