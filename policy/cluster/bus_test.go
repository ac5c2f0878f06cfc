package cluster

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/auth/peers"
)

// A redisPeer is a Redis of a test's own, which can be stopped and frozen.
type redisPeer struct {
	*peers.Daemon
	config Config
	cmd    *exec.Cmd
}

// newRedis starts a Redis that keeps nothing when it ends.
func newRedis(t testing.TB) *redisPeer {
	t.Helper()
	dir := t.TempDir()
	c := DefaultConfig()
	c.Addresses = []string{filepath.Join(dir, "s")}
	c.Timeout = 500 * time.Millisecond
	asking, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asking.Close() })
	path := peers.Program(t, "redis-server", "redis-server")
	p := &redisPeer{config: c}
	p.Daemon = &peers.Daemon{
		Start: func() *exec.Cmd {
			p.cmd = exec.Command(path, "--port", "0", "--unixsocket", c.Addresses[0], "--save", "", "--dir", dir)
			return p.cmd
		},
		Ready: func() error { _, err := asking.Do(context.Background(), "PING"); return err },
		End:   syscall.SIGKILL,
	}
	p.Run(t)
	return p
}

func (p *redisPeer) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *redisPeer) client(t testing.TB) *Client {
	t.Helper()
	c, err := New(p.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// run runs a part of a node until the test ends.
func run(t testing.TB, part func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

// A listener is a node's bus, and what it heard.
type listener struct {
	*Bus
	mu     sync.Mutex
	heard  []string
	missed atomic.Int64
}

func newListener(t testing.TB, c *Client, key byte) *listener {
	t.Helper()
	l := &listener{Bus: NewBus(c, BusOptions{Key: [32]byte{key}})}
	l.Subscribe("test", func(m []byte) {
		l.mu.Lock()
		l.heard = append(l.heard, string(m))
		l.mu.Unlock()
	})
	l.Missed(func() { l.missed.Add(1) })
	run(t, l.Run)
	return l
}

func (l *listener) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard)
}

// TestBusFull: who could not be told of all looks for the rest himself.
func TestBusFull(t *testing.T) {
	p := newRedis(t)
	a, b := newListener(t, p.client(t), 1), newListener(t, p.client(t), 1)
	joined(t, a, b)
	before := b.missed.Load()
	message := make([]byte, maxMessage)
	peers.Eventually(t, "it missed some", func() error {
		for range 2 * maxMessages / maxMessage {
			a.Publish("test", message)
		}
		if b.missed.Load() == before {
			return errors.New("not yet")
		}
		return nil
	})
}

// joined waits until all hear what from tells.
func joined(t testing.TB, from *listener, others ...*listener) {
	t.Helper()
	n := 0
	for _, l := range others {
		peers.Eventually(t, "it hears the other", func() error {
			n++
			word := fmt.Sprint("hello ", n)
			from.Publish("test", []byte(word))
			if !slices.ContainsFunc(l.all(), func(m string) bool { return strings.HasPrefix(m, "hello") }) {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

// told is what l heard of numbered messages.
func (l *listener) told() []string {
	return slices.DeleteFunc(l.all(), func(m string) bool { return !strings.HasPrefix(m, "fact") })
}

func TestBus(t *testing.T) {
	p := newRedis(t)
	a, b, c := newListener(t, p.client(t), 1), newListener(t, p.client(t), 1), newListener(t, p.client(t), 1)
	stranger := newListener(t, p.client(t), 2)
	joined(t, a, b, c)
	joined(t, b, a)
	var want []string
	for i := range 3000 {
		want = append(want, fmt.Sprint("fact ", i))
		a.Publish("test", []byte(want[i]))
		a.Publish("nobody's", []byte("x"))
	}
	for _, l := range []*listener{b, c} {
		peers.Eventually(t, "all messages came", func() error {
			if n := len(l.told()); n < len(want) {
				return fmt.Errorf("got %d of %d", n, len(want))
			}
			return nil
		})
		if got := l.told(); !slices.Equal(got, want) {
			t.Errorf("got %d messages, want each once, in order", len(got))
		}
	}
	if got := a.told(); len(got) > 0 {
		t.Errorf("its own messages: got %d, want none", len(got))
	}
	peers.Eventually(t, "the stranger's bus refused all", func() error {
		if testutil.ToFloat64(stranger.metrics.refused) == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	if got := stranger.all(); len(got) > 0 {
		t.Errorf("with another key: got %q, want nothing", got)
	}

	// Who can write to Redis, and has no key, can say what he likes.
	client := p.client(t)
	for _, junk := range [][]byte{nil, []byte("junk"), []byte(frameMagic), make([]byte, maxFrame+1)} {
		_, err := client.Do(t.Context(), "PUBLISH", a.channel, junk)
		must(t, err)
	}
	stranger.Publish("test", []byte("fact of a stranger"))
	peers.Eventually(t, "it is refused", func() error {
		if n := testutil.ToFloat64(b.metrics.refused); n < 5 {
			return fmt.Errorf("%v refused", n)
		}
		return nil
	})
	if n := len(b.told()); n != len(want) {
		t.Errorf("got %d messages, want %d as before", n, len(want))
	}
}

// TestBusRestart: Redis goes and comes back, frozen in between; nobody waits, and who may have missed something is told so.
func TestBusRestart(t *testing.T) {
	p := newRedis(t)
	a, b := newListener(t, p.client(t), 1), newListener(t, p.client(t), 1)
	joined(t, a, b)
	joined(t, b, a)
	for _, how := range []struct {
		name    string
		away    func()
		back    func()
		trouble bool
	}{
		{"stopped", func() { p.Down(t) }, func() { p.Up(t) }, true},
		{"frozen", func() { p.signal(t, syscall.SIGSTOP) }, func() { p.signal(t, syscall.SIGCONT) }, true},
		{"thrown out", func() { _, _ = p.client(t).Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub") }, func() {}, false},
	} {
		missed := b.missed.Load()
		how.away()
		if how.trouble {
			peers.Eventually(t, how.name+": it says so", func() error {
				a.Publish("test", []byte("lost"))
				if a.Trouble() == nil {
					return errors.New("no trouble")
				}
				return nil
			})
			start := time.Now()
			for range 20_000 {
				a.Publish("test", make([]byte, 100))
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s: 20000 messages took %v, want nobody to wait", how.name, took)
			}
		}
		how.back()
		peers.Eventually(t, how.name+": messages come again", func() error {
			word := "fact " + how.name
			a.Publish("test", []byte(word))
			if !slices.Contains(b.told(), word) || a.Trouble() != nil || b.Trouble() != nil {
				return fmt.Errorf("trouble %v and %v", a.Trouble(), b.Trouble())
			}
			return nil
		})
		peers.Eventually(t, how.name+": who may have missed some is told", func() error {
			if b.missed.Load() == missed {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

// TestBusBounds: what is too long, and what is too much while nobody sends it, is counted and forgotten.
func TestBusBounds(t *testing.T) {
	b := NewBus(&Client{config: Config{Prefix: "x"}}, BusOptions{Registerer: prometheus.NewPedanticRegistry()})
	b.Publish("test", make([]byte, maxMessage+1))
	b.Publish(strings.Repeat("x", 256), nil)
	for range 1000 {
		b.Publish("test", make([]byte, maxMessage))
	}
	if n := len(b.pending); n > maxMessages {
		t.Errorf("got %d bytes pending, want %d at most", n, maxMessages)
	}
	if got, want := testutil.ToFloat64(b.metrics.lost), float64(1002-b.number); got != want {
		t.Errorf("lost: got %v, want %v", got, want)
	}
}
