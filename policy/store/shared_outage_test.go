package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/auth/peers"
)

// slack is how much longer than its deadline a decision may take on a machine that is busy with other tests.
const slack = 500 * time.Millisecond

// crowd takes and gives places of a few keys on a node, from several goroutines, and knows how many it has of each.
type crowd struct {
	node   *node
	most   int64
	stop   context.CancelFunc
	wg     sync.WaitGroup
	have   [10]atomic.Int64
	took   atomic.Int64 // decisions
	worst  atomic.Int64 // the longest of them, in nanoseconds
	denied atomic.Int64
}

func runCrowd(t *testing.T, n *node, most int64) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{node: n, most: most, stop: cancel}
	for range 4 {
		c.wg.Go(func() { c.run(ctx) })
	}
	t.Cleanup(c.end)
	return c
}

func (c *crowd) run(ctx context.Context) {
	var held []int
	for ctx.Err() == nil {
		k := rand.IntN(len(c.have))
		if rand.IntN(2) == 0 || len(held) > 20 {
			if len(held) > 0 {
				c.node.Give(places(Key(held[0]), c.most))
				c.have[held[0]].Add(-1)
				held = held[1:]
			}
			continue
		}
		begun := time.Now()
		got := c.node.Take(context.Background(), places(Key(k), c.most))
		for took := int64(time.Since(begun)); ; {
			worst := c.worst.Load()
			if took <= worst || c.worst.CompareAndSwap(worst, took) {
				break
			}
		}
		c.took.Add(1)
		if got == -1 {
			c.have[k].Add(1)
			held = append(held, k)
		} else {
			c.denied.Add(1)
		}
		<-time.After(100 * time.Microsecond) // load, not a race for the processor
	}
}

func (c *crowd) end() {
	c.stop()
	c.wg.Wait()
}

// more waits until the crowd has made so many more decisions.
func (c *crowd) more(t *testing.T, n int64) {
	t.Helper()
	until := c.took.Load() + n
	peers.Eventually(t, "decisions", func() error {
		if got := c.took.Load(); got < until {
			return fmt.Errorf("%d of %d", got, until)
		}
		return nil
	})
}

// agree has all crowds end, and looks whether Redis counts what they have.
func agree(t *testing.T, r *server, crowds ...*crowd) {
	t.Helper()
	for _, c := range crowds {
		c.end()
		c.node.together(t)
	}
	for k := range crowds[0].have {
		var want int64
		for _, c := range crowds {
			want += c.have[k].Load()
		}
		r.holds(t, Key(k), want)
	}
}

// within looks that no decision took longer than it may.
func within(t *testing.T, limit time.Duration, crowds ...*crowd) {
	t.Helper()
	for _, c := range crowds {
		if worst := time.Duration(c.worst.Load()); worst > limit+slack {
			t.Errorf("the longest decision took %s, want at most %s", worst, limit)
		}
	}
}

// TestSharedOutage takes Redis away under load in every way that it goes away in, and has the counts be right when it is back.
func TestSharedOutage(t *testing.T) {
	for _, tt := range []struct {
		name       string
		away, back func(*testing.T, *server)
		shows      bool // as an outage
	}{
		{"stopped, and empty when it is back", func(t *testing.T, r *server) { r.Down(t) }, func(t *testing.T, r *server) { r.Up(t) }, true},
		{"frozen", func(t *testing.T, r *server) { r.signal(t, syscall.SIGSTOP) }, func(t *testing.T, r *server) { r.thaw(t) }, true},
		{"emptied", func(t *testing.T, r *server) { r.do(t, "FLUSHALL") }, func(*testing.T, *server) {}, false},
		{"without its scripts", func(t *testing.T, r *server) { r.do(t, "SCRIPT", "FLUSH") }, func(*testing.T, *server) {}, false},
		{"cutting connections", func(t *testing.T, r *server) { r.do(t, "CLIENT", "KILL", "TYPE", "normal") }, func(*testing.T, *server) {}, false},
		{"read-only", func(t *testing.T, r *server) { r.do(t, "REPLICAOF", "127.0.0.1", "1") },
			func(t *testing.T, r *server) { r.do(t, "REPLICAOF", "NO", "ONE") }, true},
		{"full", func(t *testing.T, r *server) { r.do(t, "CONFIG", "SET", "maxmemory", "1") },
			func(t *testing.T, r *server) { r.do(t, "CONFIG", "SET", "maxmemory", "0") }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := runServer(t)
			config := shareConfig(r.address)
			config.Deadline = 20 * time.Millisecond
			a, b := runNode(t, config), runNode(t, config)
			a.together(t)
			b.together(t)
			x, y := runCrowd(t, a, 50), runCrowd(t, b, 50)
			x.more(t, 200)
			for range 2 {
				tt.away(t, r)
				if tt.shows {
					a.apart(t)
					b.apart(t)
				}
				x.more(t, 200)
				y.more(t, 200)
				tt.back(t, r)
				a.together(t)
				b.together(t)
				x.more(t, 200)
			}
			agree(t, r, x, y)
			within(t, config.Deadline, x, y)
			if x.denied.Load()+y.denied.Load() > 0 {
				t.Errorf("refused: got %d and %d, want none: no more than 80 places are ever asked for by 4, of 10 keys", x.denied.Load(), y.denied.Load())
			}
		})
	}
}

func (r *server) thaw(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(r.pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// proxy carries connections to a server, and holds back what the server answers.
type proxy struct {
	address string
	delay   atomic.Int64
	l       net.Listener
	wg      sync.WaitGroup
}

func runProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: l.Addr().String(), l: l}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.carry(c, to) })
		}
	})
	t.Cleanup(func() { l.Close() })
	return p
}

func (p *proxy) carry(c net.Conn, to string) {
	defer c.Close()
	s, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		_, _ = io.Copy(s, c)
		s.Close()
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := s.Read(b)
		if err != nil {
			return
		}
		<-time.After(time.Duration(p.delay.Load()))
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

// TestSharedSlow: a Redis that answers too late is told all the same, so that nothing has to be written anew, and nobody waits for it
// any more once that is known.
func TestSharedSlow(t *testing.T) {
	r := runServer(t)
	p := runProxy(t, r.address)
	config := shareConfig(p.address)
	config.Deadline = 20 * time.Millisecond
	a := runNode(t, config)
	a.together(t)
	x := runCrowd(t, a, 50)
	x.more(t, 100)
	p.delay.Store(int64(60 * time.Millisecond))
	a.apart(t)
	if text := a.Trouble().Error(); !strings.Contains(text, "took longer than 20ms") {
		t.Errorf("trouble: got %q, want that it is slow", text)
	}
	x.more(t, 500)
	p.delay.Store(0)
	a.together(t)
	x.more(t, 100)
	agree(t, r, x)
	within(t, config.Deadline, x)
	if got := a.log.count("Redis"); got != 0 {
		t.Errorf("log lines about Redis' keys: got %d, want none", got)
	}
}

// TestSharedNeverThere: a Redis that was never there, and one behind a name that nobody resolves, stop no decision.
func TestSharedNeverThere(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, address := range []string{"127.0.0.1:1", silent.Addr().String()} {
		config := shareConfig(address)
		config.Deadline = 5 * time.Millisecond
		n := runNode(t, config)
		x := runCrowd(t, n, 3)
		x.more(t, 300)
		x.end()
		within(t, config.Deadline, x)
		if n.Trouble() == nil {
			t.Errorf("%s: no trouble, want some", address)
		}
		if x.denied.Load() == 0 {
			t.Errorf("%s: none was refused, want the full limits of this node alone", address)
		}
		if err := errors.Unwrap(n.Trouble()); err == nil {
			t.Errorf("%s: trouble %v says not why", address, n.Trouble())
		}
	}
}

// TestSharedLostAgain: to a Redis that loses at once what is written there the counts are not written without end.
func TestSharedLostAgain(t *testing.T) {
	r := runServer(t)
	n := runNode(t, shareConfig(r.address))
	n.together(t)
	x := runCrowd(t, n, 3)
	for begun := time.Now(); time.Since(begun) < 2*time.Second; {
		r.do(t, "FLUSHALL")
	}
	x.end()
	if got := testutil.ToFloat64(n.metrics.resyncs); got < 2 || got > 30 {
		t.Errorf("counts were written %v times in two seconds, want a few", got)
	}
	n.together(t)
}
