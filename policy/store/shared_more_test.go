package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/peers"
	"github.com/popgate/popgate/policy/cluster"
)

// TestSharedSpread: alone, a node grants all of the limits or its part of them.
func TestSharedSpread(t *testing.T) {
	for _, tt := range []struct {
		spread string
		want   int
	}{{cluster.SpreadFull, 10}, {cluster.SpreadEven, 5}} {
		t.Run(tt.spread, func(t *testing.T) {
			r := runServer(t)
			config := shareConfig(r.address)
			config.Spread, config.Deadline = tt.spread, 50*time.Millisecond
			a, b := runNode(t, config), runNode(t, config)
			a.together(t)
			b.together(t)
			twoAlive(t, a, b)
			r.Down(t)
			a.apart(t)
			b.apart(t)
			if text := a.Trouble().Error(); strings.Contains(text, "its part") != (tt.spread == cluster.SpreadEven) {
				t.Errorf("trouble does not tell what is granted: %s", text)
			}
			var asks []Ask
			for i := 0; ; i++ {
				ask := []Ask{{Key: 1, Most: 10}, {Key: 2, Turn: int64(time.Hour), Most: 1000}, {Key: 3}}
				if a.Take(t.Context(), ask) != -1 {
					if i != tt.want {
						t.Errorf("places: got %d, want %d", i, tt.want)
					}
					break
				}
				asks = append(asks, ask...)
			}
			turned := 0
			for a.Take(t.Context(), turns(4, time.Hour, 20)) == -1 {
				turned++
			}
			if turned != 2*tt.want {
				t.Errorf("turns: got %d, want %d", turned, 2*tt.want)
			}
			others := 0 // the limit holds for each node: twice, or each its half
			for b.Take(t.Context(), places(1, 10)) == -1 {
				others++
			}
			if others != tt.want {
				t.Errorf("places of the other: got %d, want %d", others, tt.want)
			}
			r.Up(t)
			a.together(t)
			b.together(t)
			r.holds(t, 1, int64(2*tt.want))
			r.holds(t, 3, int64(tt.want))
			if got := b.Take(t.Context(), places(1, 10)); got != 0 {
				t.Errorf("a place, when all are known to be taken: got %d, want 0", got)
			}
			for range others {
				b.Give(places(1, 10))
			}
			// Turns taken alone count for the other now.
			more := 0
			for b.Take(t.Context(), turns(4, time.Hour, 20)) == -1 {
				more++
			}
			if more != 20-turned {
				t.Errorf("turns of the other, after the merge: got %d, want %d", more, 20-turned)
			}
			a.Give(asks)
			r.holds(t, 1, 0)
			r.holds(t, 3, 0)
		})
	}
}

func twoAlive(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		peers.Eventually(t, "two nodes alive", func() error {
			if got := n.Nodes().Alive(); got != 2 {
				return fmt.Errorf("got %d", got)
			}
			return nil
		})
	}
}

// TestSharedDivided: with even limits, what was granted in the belief that Redis would have the last word is looked at again.
func TestSharedDivided(t *testing.T) {
	r := runServer(t)
	p := runProxy(t, r.address)
	config := shareConfig(p.address)
	config.Spread, config.Deadline = cluster.SpreadEven, 50*time.Millisecond
	a := runNode(t, config)
	a.together(t)
	other := config
	other.Redis.Addresses = []string{r.address}
	b := runNode(t, other)
	b.together(t)
	twoAlive(t, a, b)
	for range 2 {
		if got := a.Take(t.Context(), places(1, 4)); got != -1 {
			t.Fatalf("in time: got %d", got)
		}
	}
	p.delay.Store(int64(200 * time.Millisecond))
	if got := a.Take(t.Context(), places(1, 4)); got != 0 {
		t.Errorf("too late, and more than half: got %d, want it refused", got)
	}
	p.delay.Store(0)
	r.holds(t, 1, 2)
	a.together(t)
	if got := b.Take(t.Context(), places(1, 4)); got != -1 {
		t.Errorf("the other's half: got %d", got)
	}
}

// TestSharedForeign has Redis keep something else under popgate's keys: those decisions are made alone, with one line in the log, and the
// others are not touched.
func TestSharedForeign(t *testing.T) {
	r := runServer(t)
	n := runNode(t, shareConfig(r.address))
	n.together(t)
	key := r.redis.Key(part, "t:") + "\x09\x00\x00\x00\x00\x00\x00\x00"
	for i, value := range []string{"", "something", "nan", "inf", "-inf", "1e400", "0x7f"} {
		r.do(t, "DEL", key)
		if i == 0 {
			r.do(t, "RPUSH", key, "x")
		} else {
			r.do(t, "SET", key, value)
		}
		asks := []Ask{{Key: 8, Most: 1000}, {Key: 9, Turn: int64(time.Millisecond), Most: 3}}
		peers.Eventually(t, fmt.Sprintf("a turn of a key that holds %q", value), func() error {
			if got := n.Take(t.Context(), asks); got != -1 {
				return fmt.Errorf("got %d", got)
			}
			return nil
		})
		r.holds(t, 8, 1)
		n.Give(asks)
		r.holds(t, 8, 0)
	}
	if got := n.log.count("something else"); got != 1 {
		t.Errorf("log lines: got %d, want 1", got)
	}
	if n.Trouble() != nil {
		t.Errorf("trouble: %v, want none for one key", n.Trouble())
	}
	// Its own hash, a field of it, and another node's.
	for _, spoil := range []func(hash string){
		func(hash string) { r.do(t, "HSET", hash, "\x08\x00\x00\x00\x00\x00\x00\x00", "x") },
		func(hash string) { r.do(t, "DEL", hash); r.do(t, "SET", hash, "x") },
		func(string) {
			r.do(t, "ZADD", r.redis.Key(part, "nodes"), "1e15", "other")
			r.do(t, "SET", r.redis.Key(part, "n:other"), "x")
		},
	} {
		members := r.do(t, "ZRANGE", r.redis.Key(part, "nodes"), 0, -1).([]any)
		spoil(r.redis.Key(part, "n:") + members[len(members)-1].(string))
		if got := n.Take(t.Context(), places(8, 1)); got != -1 {
			t.Errorf("a place: got %d", got)
		}
		if got := n.Take(t.Context(), places(8, 1)); got != 0 {
			t.Errorf("a place too many: got %d, want 0", got)
		}
		n.Give(places(8, 1))
	}
	n.together(t)
	// All that the nodes keep: then there is no Redis for them.
	r.do(t, "DEL", r.redis.Key(part, "nodes"))
	r.do(t, "SET", r.redis.Key(part, "nodes"), "x")
	peers.Eventually(t, "nodes that are no nodes", func() error {
		if got := n.Take(t.Context(), places(8, 1)); got != -1 {
			t.Fatalf("a place: got %d", got)
		}
		n.Give(places(8, 1))
		if n.Trouble() == nil {
			return errors.New("no trouble")
		}
		return nil
	})
	n.Take(t.Context(), places(8, 1))
	r.do(t, "DEL", r.redis.Key(part, "nodes"))
	n.together(t)
	r.holds(t, 8, 1)
}

// TestSharedSpend: what nodes spend together comes to the rate, and Redis is asked a few times a second for it.
func TestSharedSpend(t *testing.T) {
	r := runServer(t)
	var nodes []*node
	for range 2 {
		n := runNode(t, shareConfig(r.address))
		n.together(t)
		nodes = append(nodes, n)
	}
	const second, piece = 1 << 20, 4 << 10 // 1 MiB a second
	spent := make(chan int, 2)
	begun := time.Now()
	for _, n := range nodes {
		go func() {
			total := 0
			for time.Since(begun) < 4*time.Second {
				wait := n.Spend(t.Context(), turns(5, time.Second/second, second), piece)
				total += piece
				if wait > 0 {
					<-time.After(wait)
				}
			}
			spent <- total
		}()
	}
	got := <-spent + <-spent
	// A turn is 953 ns and not 953.67; and each node may be a lump ahead, and not have used another.
	want := second + int(time.Since(begun)/(time.Second/second))
	if lump := second / 4; got > want+2*lump+2*piece || got < want-3*lump {
		t.Errorf("spent: got %d, want %d", got, want)
	}
	// Four lumps a second for each, some smaller, and what the joining took.
	if got := nodes[0].calls(t); got == 0 || got > 60 {
		t.Errorf("calls of Redis in 4 seconds: got %d, want some 20", got)
	}
}

// TestSharedSpendAlone: a node that is alone paces by itself, and its lumps are forgotten when nobody uses them.
func TestSharedSpendAlone(t *testing.T) {
	r := runServer(t)
	config := shareConfig(r.address)
	config.Deadline = 50 * time.Millisecond
	n := runNode(t, config)
	n.together(t)
	ask := turns(5, time.Second, 2)
	n.Spend(t.Context(), ask, 1)
	peers.Eventually(t, "a lump", func() error {
		n.lumps.mu.Lock()
		defer n.lumps.mu.Unlock()
		if p := n.lumps.m[5]; p == nil || p.asked != 0 {
			return fmt.Errorf("got %+v", p)
		}
		return nil
	})
	n.lumps.sweep(n.memory.now() + int64(lumpIdle) + 1)
	if n.lumped() != 0 {
		t.Error("a lump that nobody uses is kept")
	}
	r.Down(t)
	n.apart(t)
	wait := n.Spend(t.Context(), ask, 10)
	if wait < 5*time.Second || wait > 10*time.Second {
		t.Errorf("alone: got %s to wait, want some 9s", wait)
	}
	if n.lumped() != 0 {
		t.Error("a node that is alone has lumps")
	}
	r.Up(t)
	n.together(t)
	if got := n.Take(t.Context(), []Ask{{Key: 5, Turn: int64(time.Second), Most: 2}}); got != 0 {
		t.Errorf("a turn, all being spent: got %d, want 0", got)
	}
}

// TestSharedWays: behind Sentinels, and in a Redis Cluster.
func TestSharedWays(t *testing.T) {
	t.Run("sentinel", func(t *testing.T) {
		r := runServer(t)
		_, port, _ := net.SplitHostPort(r.address)
		watcher := peers.Port(t)
		config := shareConfig(net.JoinHostPort("127.0.0.1", watcher))
		config.Redis.Mode, config.Redis.Master = cluster.ModeSentinel, "mymaster"
		client := dial(t, config.Redis)
		peers.Redis(t, "--sentinel", func() error { return client.Health(t.Context(), part) },
			"port "+watcher, fmt.Sprintf("sentinel monitor mymaster 127.0.0.1 %s 1", port))
		shareTwo(t, config)
		r.holds(t, 7, 0)
	})
	t.Run("cluster", func(t *testing.T) {
		var addresses []string
		var first *server
		for i := range 2 {
			r := runClusterServer(t)
			r.do(t, "CLUSTER", "ADDSLOTSRANGE", i*8192, i*8192+8191)
			addresses = append(addresses, r.address)
			if i == 0 {
				first = r
				continue
			}
			bus := first.do(t, "CONFIG", "GET", "cluster-port").(map[any]any)["cluster-port"]
			_, port, _ := net.SplitHostPort(first.address)
			r.do(t, "CLUSTER", "MEET", "127.0.0.1", port, bus)
		}
		for _, prefix := range []string{"popgate0", "popgate1", "popgate2", "popgate3"} { // in slots of both
			config := shareConfig(addresses[0])
			config.Redis.Addresses, config.Redis.Mode, config.Redis.Prefix = addresses, cluster.ModeCluster, prefix
			shareTwo(t, config)
		}
	})
}

func runClusterServer(t *testing.T) *server {
	t.Helper()
	port, bus := peers.Port(t), peers.Port(t)
	r := &server{address: net.JoinHostPort("127.0.0.1", port)}
	r.redis = dial(t, shareConfig(r.address).Redis)
	ready := func() error { _, err := r.redis.Do(context.Background(), "PING"); return err }
	r.Daemon = peers.Redis(t, "", ready, "port "+port, "cluster-enabled yes", "cluster-port "+bus, "cluster-require-full-coverage no")
	return r
}

// shareTwo has two nodes share a place and a turn.
func shareTwo(t *testing.T, config cluster.ShareConfig) {
	t.Helper()
	a, b := runNode(t, config), runNode(t, config)
	a.together(t)
	b.together(t)
	asks := []Ask{{Key: 7, Most: 1}, {Key: 8, Turn: int64(time.Hour), Most: 2}}
	if got := a.Take(t.Context(), asks); got != -1 {
		t.Errorf("first: got %d", got)
	}
	if got := b.Take(t.Context(), asks); got != 0 {
		t.Errorf("second: got %d, want 0", got)
	}
	a.Give(asks[:1])
	peers.Eventually(t, "what the other gave back", func() error {
		if got := b.Take(t.Context(), asks); got != -1 {
			return fmt.Errorf("got %d", got)
		}
		return nil
	})
	b.Give(asks[:1])
	if got := b.Take(t.Context(), asks); got != 1 {
		t.Errorf("a third turn: got %d, want 1", got)
	}
}

// TestSharedRights: a user with the rights that docs/cluster.md asks for has all that is needed, for facts and messages too.
func TestSharedRights(t *testing.T) {
	text, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "ACL SETUSER popgate ")
	line, _, _ = strings.Cut(line, "\n")
	r := runServer(t)
	args := []any{"ACL", "SETUSER", "popgate"}
	for _, word := range strings.Fields(line) {
		args = append(args, word)
	}
	r.do(t, args...)
	r.do(t, "ACL", "SETUSER", "default", "off") // the connection that this came by stays
	config := shareConfig(r.address)
	config.Redis.Username, config.Redis.PasswordFile = "popgate", filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(config.Redis.PasswordFile, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shareTwo(t, config)
	client := dial(t, config.Redis)
	bus := cluster.NewBus(client, cluster.BusOptions{})
	shelf := cluster.NewShelf(client, bus, "known", cluster.ShelfOptions{Most: 10})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = bus.Run(ctx) })
	wg.Go(func() { _ = shelf.Run(ctx) })
	peers.Eventually(t, "messages", bus.Trouble)
	peers.Eventually(t, "facts", shelf.Trouble)
	if _, err := client.Do(t.Context(), "FLUSHALL"); err == nil {
		t.Error("the user may do more than it needs")
	}
}

// TestSharedLeave: a node that ends in order takes what it counted along.
func TestSharedLeave(t *testing.T) {
	r := runServer(t)
	a, b := runNode(t, shareConfig(r.address)), runNode(t, shareConfig(r.address))
	a.together(t)
	b.together(t)
	if got := a.Take(t.Context(), places(1, 1)); got != -1 {
		t.Fatalf("a place: got %d", got)
	}
	a.stop()
	if got := b.Take(t.Context(), places(1, 1)); got != -1 {
		t.Errorf("a place of a node that has ended: got %d", got)
	}
	if a.Trouble() == nil {
		t.Error("a node that has ended has no trouble")
	}
	if got := a.Take(t.Context(), places(2, 1)); got != -1 {
		t.Errorf("alone, at the end: got %d", got)
	}
}

// TestSharedFailover has the Sentinels make another server the master: what was not copied to it in time is put right.
func TestSharedFailover(t *testing.T) {
	master := runServer(t)
	_, port, _ := net.SplitHostPort(master.address)
	copyPort, watcher := peers.Port(t), peers.Port(t)
	replica := &server{address: net.JoinHostPort("127.0.0.1", copyPort)}
	replica.redis = dial(t, shareConfig(replica.address).Redis)
	peers.Redis(t, "", func() error {
		v, err := replica.redis.Do(t.Context(), "INFO", "replication")
		if text := fmt.Sprint(v); err == nil && !strings.Contains(text, "master_link_status:up") {
			err = errors.New(text)
		}
		return err
	}, "port "+copyPort, "replicaof 127.0.0.1 "+port, "repl-diskless-sync-delay 0")
	config := shareConfig(net.JoinHostPort("127.0.0.1", watcher))
	config.Redis.Mode, config.Redis.Master = cluster.ModeSentinel, "mymaster"
	config.Deadline = 50 * time.Millisecond
	client := dial(t, config.Redis)
	peers.Redis(t, "--sentinel", func() error {
		v, err := client.Do(t.Context(), "PING")
		if err == nil && v != "PONG" {
			err = fmt.Errorf("got %v", v)
		}
		return err
	}, "port "+watcher, fmt.Sprintf("sentinel monitor mymaster 127.0.0.1 %s 1", port),
		"sentinel down-after-milliseconds mymaster 500", "sentinel failover-timeout mymaster 2000")
	a, b := runNode(t, config), runNode(t, config)
	a.together(t)
	b.together(t)
	x, y := runCrowd(t, a, 50), runCrowd(t, b, 50)
	x.more(t, 300)
	y.more(t, 300)
	watch := dial(t, shareConfig(config.Redis.Addresses[0]).Redis)
	peers.Eventually(t, "the Sentinel knows the replica", func() error {
		v, err := watch.Do(t.Context(), "SENTINEL", "REPLICAS", "mymaster")
		if list, _ := v.([]any); err == nil && len(list) != 1 {
			err = fmt.Errorf("got %v", v)
		}
		return err
	})
	master.Down(t)
	a.apart(t)
	peers.Eventually(t, "another master", func() error { return replica.redis.Health(t.Context(), part) })
	a.together(t)
	b.together(t)
	x.more(t, 100)
	agree(t, replica, x, y)
	within(t, config.Deadline, x, y)
}

// TestSharedHangs: nothing that Run may hang in, and nothing that uses up the connections, holds up a decision.
func TestSharedHangs(t *testing.T) {
	r := runServer(t)
	config := shareConfig(r.address)
	config.Deadline = 20 * time.Millisecond
	n := runNode(t, config)
	n.together(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 20 { // twice as many as there are connections
		go func() { _, _ = n.client.Do(ctx, "BLPOP", r.redis.Key(part, "nothing"), 0) }()
	}
	peers.Eventually(t, "all connections are in use", func() error {
		for range 3 {
			begun := time.Now()
			n.Take(t.Context(), places(1, 1000))
			if took := time.Since(begun); took > config.Deadline+slack {
				t.Fatalf("a decision took %s", took)
			}
		}
		if n.Trouble() == nil {
			return errors.New("no trouble")
		}
		return nil
	})
	cancel()
	n.together(t)

	// Nobody takes up what waits.
	still := NewShared(NewMemory(1), n.client, config, SharedOptions{})
	still.mode = together
	begun := time.Now()
	if got := still.Take(t.Context(), places(1, 1)); got != -1 {
		t.Errorf("a place: got %d", got)
	}
	if took := time.Since(begun); took < config.Deadline || took > config.Deadline+slack {
		t.Errorf("a decision took %s, want %s", took, config.Deadline)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if got := still.Take(gone, places(1, 1)); got != 0 {
		t.Errorf("a second place: got %d, want 0", got)
	}
	for i := range mostWaiting {
		still.Give(places(Key(i), 0)) // of what was never taken; only that it is told matters
	}
	begun = time.Now()
	if got := still.Take(t.Context(), places(3, 1)); got != -1 || time.Since(begun) > config.Deadline+slack {
		t.Errorf("with more waiting than may: got %d after %s, want a place at once", got, time.Since(begun))
	}
	var b batch
	if still.queue.take(&b) || len(b.entries) != mostWaiting {
		t.Errorf("what waits: got %d entries, want %d and that there were more", len(b.entries), mostWaiting)
	}
}

// FuzzSharedAnswer: whatever Redis answers, it is understood or an error.
func FuzzSharedAnswer(f *testing.F) {
	price := "\x00\x00\x00\x00\x00\x00\xf0\x3f"
	for _, seed := range []string{"", "\x00" + price, "\x01", "\x02", "\xff", "\x00", "\x03", "\x00\xff\xff\xff\xff\xff\xff\xff\xff", "gone", "\x00" + price + "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		var q queue
		q.wake = make(chan struct{}, 1)
		asks := []Ask{{Key: 1, Most: 3}, {Key: 2, Turn: 1000, Most: 3}}
		o := q.ask(asks)
		var b batch
		q.take(&b)
		rest, verdict, err := b.entries[0].read(b.blob[1:b.entries[0].end], reply)
		if err != nil {
			return
		}
		if verdict < alone || verdict >= len(asks) || len(rest) >= len(reply) {
			t.Errorf("%q: verdict %d, rest %q", reply, verdict, rest)
		}
		if verdict == granted {
			o.price(asks, 0)
			if len(o.out) != 1 {
				t.Errorf("%q: got %d prices, want 1", reply, len(o.out))
			}
		}
	})
}
