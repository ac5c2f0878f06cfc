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
	if got := a.log.count("no longer shared"); got != 0 {
		t.Errorf("a node that ends complains %d times", got)
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
