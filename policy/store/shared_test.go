package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/auth/peers"
	"github.com/popgate/popgate/policy/cluster"
)

// server is a redis-server of a test's own, and whoever asks it what it keeps.
type server struct {
	*peers.Daemon
	address string
	redis   *cluster.Client
	pid     int // of the process that was sent a signal last
}

func runServer(t testing.TB) *server {
	t.Helper()
	port := peers.Port(t)
	r := &server{address: net.JoinHostPort("127.0.0.1", port)}
	r.redis = dial(t, shareConfig(r.address).Redis)
	r.Daemon = peers.Redis(t, "", func() error { return r.redis.Health(context.Background(), part) }, "port "+port)
	return r
}

func dial(t testing.TB, c cluster.Config) *cluster.Client {
	t.Helper()
	client, err := cluster.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (r *server) do(t testing.TB, args ...any) any {
	t.Helper()
	v, err := r.redis.Do(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return v
}

// count is how many places of k the live nodes have, as a script of theirs would see it.
func (r *server) count(t testing.TB, k Key) int64 {
	t.Helper()
	v, err := r.redis.Eval(t.Context(), `local n, t = 0, redis.call('TIME')
for _, m in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], t[1]*1000 + t[2]/1000, '+inf')) do
  n = n + (redis.call('HGET', ARGV[1] .. 'n:' .. m, struct.pack('<I8', ARGV[2])) or 0)
end
return n`, []string{r.redis.Key(part, "nodes")}, r.redis.Key(part, ""), uint64(k))
	if err != nil {
		t.Fatal(err)
	}
	return v.(int64)
}

// holds waits until n places of k are counted in Redis.
func (r *server) holds(t testing.TB, k Key, n int64) {
	t.Helper()
	peers.Eventually(t, "places in Redis", func() error {
		if got := r.count(t, k); got != n {
			return fmt.Errorf("got %d, want %d", got, n)
		}
		return nil
	})
}

// shareConfig is patient: what a test does not mean to be slow must not be taken for it on a busy machine.
func shareConfig(address string) cluster.ShareConfig {
	c := cluster.DefaultShareConfig()
	c.Redis.Addresses = []string{address}
	c.Deadline, c.Lease = time.Second, 4*time.Second
	return c
}

// node is a Shared that runs.
type node struct {
	*Shared
	log  *logBuffer
	reg  *prometheus.Registry
	stop func()
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Count(b.text.Bytes(), []byte(text))
}

func runNode(t testing.TB, c cluster.ShareConfig) *node {
	t.Helper()
	n := &node{log: new(logBuffer), reg: prometheus.NewRegistry()}
	o := SharedOptions{Node: "n", Log: slog.New(slog.NewTextHandler(n.log, nil)), Metrics: n.reg}
	n.Shared = NewShared(NewMemory(1<<16), dial(t, c.Redis), c, o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = n.Run(ctx)
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(n.stop)
	return n
}

// calls is how often Redis was asked.
func (n *node) calls(t testing.TB) uint64 {
	t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "popgate_cluster_round_trip_seconds" {
			return f.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	t.Fatal("no round trips are measured")
	return 0
}

// lumped is how many rates are paid for in lumps.
func (n *node) lumped() int {
	n.lumps.mu.Lock()
	defer n.lumps.mu.Unlock()
	return len(n.lumps.m)
}

func (n *node) together(t testing.TB) {
	t.Helper()
	peers.Eventually(t, "counting together", n.Trouble)
}

func (n *node) apart(t testing.TB) {
	t.Helper()
	peers.Eventually(t, "counting alone", func() error {
		if n.Trouble() == nil {
			return errors.New("it is together")
		}
		return nil
	})
}

// signal sends the server a signal. It finds the process by asking, so that it cannot be another's.
func (r *server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	text := r.do(t, "INFO", "server").(string)
	if _, rest, ok := strings.Cut(text, "process_id:"); ok {
		_, _ = fmt.Sscan(rest, &r.pid)
	}
	if r.pid == 0 {
		t.Fatalf("no process_id in %q", text)
	}
	if err := syscall.Kill(r.pid, sig); err != nil {
		t.Fatal(err)
	}
}

func places(k Key, most int64) []Ask { return []Ask{{Key: k, Most: most}} }

func turns(k Key, turn time.Duration, most int64) []Ask {
	return []Ask{{Key: k, Turn: int64(turn), Most: most}}
}

func TestSharedPlaces(t *testing.T) {
	r := runServer(t)
	a, b := runNode(t, shareConfig(r.address)), runNode(t, shareConfig(r.address))
	a.together(t)
	b.together(t)
	ctx := t.Context()
	for i := range 6 {
		n := []*node{a, b}[i%2]
		want := -1
		if i >= 5 {
			want = 0
		}
		if got := n.Take(ctx, places(7, 5)); got != want {
			t.Errorf("place %d: got %d, want %d", i+1, got, want)
		}
	}
	a.Give(places(7, 5))
	if got := a.Take(ctx, places(7, 5)); got != -1 {
		t.Errorf("behind one's own Give: got %d, want a place", got)
	}
	if got := r.count(t, 7); got != 5 {
		t.Errorf("places in Redis: got %d, want 5", got)
	}
	// All or nothing, and the first that refuses is told.
	asks := []Ask{{Key: 8, Most: 5}, {Key: 9, Turn: int64(time.Hour), Most: 3}, {Key: 7, Most: 5}}
	if got := b.Take(ctx, asks); got != 2 {
		t.Errorf("three at once: got %d, want 2 to refuse", got)
	}
	if got := r.count(t, 8); got != 0 {
		t.Errorf("left by a refused decision: got %d, want 0", got)
	}
	if n := r.do(t, "EXISTS", r.redis.Key(part, "t:")+"\x09\x00\x00\x00\x00\x00\x00\x00"); n != int64(0) {
		t.Errorf("left by a refused decision: a turn")
	}
	for range 3 {
		a.Give(places(7, 5))
	}
	for range 2 {
		b.Give(places(7, 5))
	}
	r.holds(t, 7, 0)
}

func TestSharedTurns(t *testing.T) {
	r := runServer(t)
	a, b := runNode(t, shareConfig(r.address)), runNode(t, shareConfig(r.address))
	a.together(t)
	b.together(t)
	ctx := t.Context()
	var had []Ask
	for i := range 6 {
		asks := turns(7, time.Hour, 5)
		got := []*node{a, b}[i%2].Take(ctx, asks)
		if want := i/5 - 1; got != want {
			t.Errorf("turn %d: got %d, want %d", i+1, got, want)
		}
		had = append(had, asks...)
	}
	// What one gives back, the other can take: Redis' word is what Paid goes by, and not that of the node that took the second.
	a.Give(had[4:5])
	b.Give(had[1:2])
	for i := range 3 {
		want := i/2 - 1
		peers.Eventually(t, "a turn that was given back", func() error {
			if got := b.Take(ctx, turns(7, time.Hour, 5)); got != want {
				return fmt.Errorf("turn %d: got %d, want %d", i+1, got, want)
			}
			return nil
		})
	}
	// A rate that is faster now forgets what the slower one had out, and what is back takes no room.
	if got := a.Take(ctx, turns(7, 200*time.Millisecond, 2)); got != 0 {
		t.Errorf("the rate that is faster now: got %d, want it refused at first", got)
	}
	peers.Eventually(t, "turns of the rate that is faster now", func() error {
		if got := b.Take(ctx, turns(7, 200*time.Millisecond, 2)); got != -1 {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
	peers.Eventually(t, "turns that are back", func() error {
		if keys := r.do(t, "KEYS", "*:t:*").([]any); len(keys) > 0 {
			return fmt.Errorf("Redis keeps %q", keys)
		}
		return nil
	})
}

// TestSharedTurnsSpent has time bring turns back, at the rate that was asked for.
func TestSharedTurnsSpent(t *testing.T) {
	r := runServer(t)
	n := runNode(t, shareConfig(r.address))
	n.together(t)
	// The burst is so large that nothing is lost while a busy machine does something else.
	const turn, most = 2 * time.Millisecond, 500
	var got, last atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	for range 4 {
		wg.Go(func() {
			for time.Since(begun) < 2*time.Second {
				if n.Take(t.Context(), turns(1, turn, most)) == -1 {
					got.Add(1)
					last.Store(int64(time.Since(begun)))
				}
			}
		})
	}
	wg.Wait()
	if got, want := got.Load(), most+last.Load()/int64(turn); got > want+1 || got < want*97/100 {
		t.Errorf("turns: got %d, want about %d", got, want)
	}
}

// TestSharedUnbounded: what nothing can refuse is counted all the same, and takes what others then do not get.
func TestSharedUnbounded(t *testing.T) {
	r := runServer(t)
	a, b := runNode(t, shareConfig(r.address)), runNode(t, shareConfig(r.address))
	a.together(t)
	b.together(t)
	exempt := []Ask{{Key: 1}, {Key: 2, Turn: int64(time.Hour)}}
	for range 3 {
		if got := a.Take(t.Context(), exempt); got != -1 {
			t.Fatalf("without a bound: got %d", got)
		}
	}
	r.holds(t, 1, 3)
	if got := b.Take(t.Context(), places(1, 3)); got != 0 {
		t.Errorf("a place that the others have: got %d, want 0", got)
	}
	peers.Eventually(t, "turns that the others have", func() error {
		if got := b.Take(t.Context(), turns(2, time.Hour, 3)); got != 0 {
			return fmt.Errorf("got %d, want 0", got)
		}
		return nil
	})
	mixed := []Ask{{Key: 1}, {Key: 3, Turn: int64(time.Hour), Most: 5}, {Key: 4, Turn: int64(time.Hour)}}
	if got := b.Take(t.Context(), mixed); got != -1 {
		t.Errorf("bounded and not: got %d", got)
	}
	for _, a := range mixed[1:] {
		if now := b.memory.now(); a.Paid < now || a.Paid > now+int64(time.Hour) {
			t.Errorf("paid until %d, it is %d: want within the hour", a.Paid, now)
		}
	}
}
