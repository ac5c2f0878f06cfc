//go:build unix

package lockout_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/peers"
	"github.com/popgate/popgate/policy/cluster"
	"github.com/popgate/popgate/policy/lockout"
)

// A redisPeer is a Redis of a test's own, which can be stopped and frozen.
type redisPeer struct {
	*peers.Daemon
	config cluster.Config
	cmd    *exec.Cmd
}

// newRedis starts a Redis that keeps nothing when it ends.
func newRedis(t *testing.T) *redisPeer {
	t.Helper()
	dir := t.TempDir()
	c := cluster.DefaultConfig()
	c.Addresses = []string{filepath.Join(dir, "s")}
	c.Timeout = 500 * time.Millisecond
	path := peers.Program(t, "redis-server", "redis-server")
	p := &redisPeer{config: c}
	asking := p.client(t)
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

func (p *redisPeer) client(t *testing.T) *cluster.Client {
	t.Helper()
	c, err := cluster.New(p.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (p *redisPeer) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// A redisNode is a Keeper that shares over a real Redis.
type redisNode struct {
	*rig
	bus     *cluster.Bus
	shelves [2]*cluster.Shelf
}

// node starts one, which runs until the test ends.
func (p *redisPeer) node(t *testing.T) *redisNode {
	t.Helper()
	client := p.client(t)
	key := [32]byte{1}
	n := &redisNode{rig: &rig{T: t}, bus: cluster.NewBus(client, cluster.BusOptions{Key: key})}
	n.shelves[0] = cluster.NewShelf(client, n.bus, "known", cluster.ShelfOptions{Key: key, Most: lockout.MaxKnown})
	n.shelves[1] = cluster.NewShelf(client, n.bus, "lockouts", cluster.ShelfOptions{Key: key, Most: lockout.MaxLockouts})
	n.keeper = lockout.NewSmall("", lockout.Options{
		Events:  n.note,
		Cluster: &lockout.Cluster{Key: key, Bus: n.bus, Known: n.shelves[0], Lockouts: n.shelves[1]},
	}, 4096)
	n.use(lockout.DefaultConfig())
	for _, part := range []func(context.Context) error{n.keeper.Run, n.bus.Run, n.shelves[0].Run, n.shelves[1].Run} {
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
	return n
}

// trouble is what n says of Redis.
func (n *redisNode) trouble() error {
	return errors.Join(n.bus.Trouble(), n.shelves[0].Trouble(), n.shelves[1].Trouble())
}

// knows says whether a user is known in a network.
func (n *redisNode) knows(addr, user string) error {
	if l := n.login(addr, user, ""); !n.keeper.Known(l.Network, l.User) {
		return fmt.Errorf("%s is not known", user)
	}
	return nil
}

// lockedOut says whether the lockouts in force are those of these users.
func (n *redisNode) lockedOut(users ...string) error {
	var got, want []lockout.Key
	for _, l := range n.keeper.List() {
		got = append(got, l.User)
	}
	for _, user := range users {
		want = append(want, n.keeper.User(user))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("locked out: got %v, want %v of %v", got, want, users)
	}
	return nil
}

// eventually waits until all nodes fulfil a condition.
func eventually(t *testing.T, what string, nodes []*redisNode, is func(n *redisNode) error) {
	t.Helper()
	for i, n := range nodes {
		peers.Eventually(t, fmt.Sprintf("%s, node %d", what, i), func() error { return is(n) })
	}
}

// TestRedis has three nodes share over a real Redis, which is emptied, frozen and stopped.
func TestRedis(t *testing.T) {
	p := newRedis(t)
	nodes := []*redisNode{p.node(t), p.node(t), p.node(t)}
	// Each is told of a login at each other one: messages come.
	for i, from := range nodes {
		user := 0
		eventually(t, "they hear each other", nodes, func(n *redisNode) error {
			user++
			from.try(there, fmt.Sprintf("user%d.%d", i, user), "right", true)
			return n.knows(there, fmt.Sprintf("user%d.%d", i, max(user-1, 1)))
		})
	}

	nodes[0].try(here, "anna", "right", true)
	eventually(t, "anna is known", nodes, func(n *redisNode) error { return n.knows(here, "anna") })
	// The same wrong secret at all nodes is one failure; messages have arrived once the last of the others is known.
	for i := range 30 {
		nodes[i%3].try(here, "bert", "old", false)
	}
	for i := range 8 {
		nodes[i%3].try(here, "bert", fmt.Sprint("guess", i), false)
	}
	for i, n := range nodes {
		n.try(here, fmt.Sprint("mark", i), "right", true)
	}
	eventually(t, "all has arrived", nodes, func(n *redisNode) error {
		return errors.Join(n.knows(here, "mark0"), n.knows(here, "mark1"), n.knows(here, "mark2"))
	})
	for _, n := range nodes {
		if err := n.lockedOut(); err != nil {
			t.Errorf("after nine guesses: %v", err)
		}
	}
	nodes[2].try(here, "bert", "guess8", false)
	eventually(t, "bert is locked out", nodes, func(n *redisNode) error { return n.lockedOut("bert") })

	// It lives on without any of these nodes, and in an empty Redis.
	p.Down(t)
	p.Up(t)
	eventually(t, "Redis is back", nodes, (*redisNode).trouble)
	late := []*redisNode{p.node(t)}
	eventually(t, "what was put back", late, func(n *redisNode) error {
		return errors.Join(n.knows(here, "anna"), n.lockedOut("bert"))
	})

	// Nobody waits for a frozen Redis, and each node goes by what it knows.
	p.signal(t, syscall.SIGSTOP)
	start := time.Now()
	for i := range 2000 {
		nodes[0].try(there, "carl", fmt.Sprint("guess", i), false)
		nodes[1].try("203.0.113.7", fmt.Sprint("user", i), "right", true)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("4000 logins with a frozen Redis: took %v, want nobody to wait", took)
	}
	if err := nodes[0].lockedOut("bert", "carl"); err != nil {
		t.Error(err)
	}
	eventually(t, "it is said", nodes[:1], func(n *redisNode) error {
		if n.trouble() == nil {
			return errors.New("no trouble")
		}
		return nil
	})
	if ok, err := nodes[0].keeper.Remove(netip.MustParsePrefix(here+"/32"), "bert"); !ok || err != nil {
		t.Errorf("Remove: got %v, %v", ok, err)
	}
	p.signal(t, syscall.SIGCONT)
	all := append(slices.Clone(nodes), late...)
	eventually(t, "all know what one learned meanwhile", all, func(n *redisNode) error {
		return errors.Join(n.lockedOut("carl"), n.knows("203.0.113.7", "user1999"), n.trouble())
	})
	late[0].wantEvents()
	nodes[1].wantEvents()
}
