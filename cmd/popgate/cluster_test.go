//go:build unix

package main

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/peers"
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

// TestClusterNodeDies has the places of a node that was killed come free by themselves, and no others.
func TestClusterNodeDies(t *testing.T) {
	const user, limit = "anna@example.org", 12
	f := newFarm(t, startRedis(t).section(), "deadline: 1s, lease: 4s", `
limits: {per_user: {sessions: 12}}
`)
	nodes := f.grow(3)
	h := f.fill(t, user, 40)
	if n := len(h.callers); n != limit {
		t.Fatalf("%d sessions, want %d", n, limit)
	}
	lost := 0
	for _, c := range h.callers {
		if c.conn.RemoteAddr().String() == nodes[2].address {
			lost++
		}
	}
	if lost == 0 {
		t.Fatal("none of them is at the node that is to die")
	}
	nodes[2].kill(t)
	f.nodes = nodes[:2]
	more := hold(t)
	peers.Eventually(t, "the places of the dead node", func() error {
		for _, c := range f.fill(t, user, 2).callers {
			more.add(c)
		}
		if n := len(more.callers); n < lost {
			return fmt.Errorf("%d are free, want %d", n, lost)
		}
		return nil
	})
	if n := len(f.fill(t, user, 20).callers); len(more.callers)+n != lost {
		t.Errorf("%d places came free, want %d", len(more.callers)+n, lost)
	}
	f.together(2)

	// It comes back, with nothing, and is one of three again; the places are taken still.
	nodes[2].Up(t)
	f.nodes = nodes
	f.together(3)
	if n := len(f.fill(t, user, 12).callers); n != 0 {
		t.Errorf("%d sessions beyond the limit", n)
	}
}

// took is how long each of n logins took, six at once, at all nodes. Not one may fail.
func (f *farm) took(t *testing.T, n int) []time.Duration {
	t.Helper()
	d := make([]time.Duration, n)
	var wg sync.WaitGroup
	const workers = 6
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				begun := time.Now()
				err := f.session(i)
				if d[i] = time.Since(begun); err != nil {
					t.Errorf("login %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(d)
	return d
}

// session is a whole one, of the ith user.
func (f *farm) session(i int) error {
	c, err := f.call(f.nodes[i%len(f.nodes)], loopback(i))
	if err != nil {
		return err
	}
	defer c.conn.Close()
	reply, err := c.login(fmt.Sprintf("u%d@example.org", i), password)
	if err == nil && !strings.HasPrefix(reply, "+OK") {
		err = fmt.Errorf("got %q", reply)
	}
	if err != nil {
		return err
	}
	return c.quit()
}

// TestClusterRedisHangs stops Redis in the middle of traffic. Connections to it stay, and nothing comes back.
func TestClusterRedisHangs(t *testing.T) {
	r := startRedis(t)
	f := newFarm(t, r.section(), "", "limits: {failure_delay: 10ms, all: {sessions: 1000}, per_ip: {connections: 6000/m, failures: 6000/m}, per_user: {sessions: 10}}\n")
	f.grow(3)
	f.took(t, 18) // the first ones are slow
	usual := f.took(t, 150)
	r.signal(t, syscall.SIGSTOP)
	hung := f.took(t, 300)
	away := 0
	for _, m := range f.nodes {
		if body, err := fetch("http://" + m.metrics + "/readyz"); err != nil || !strings.Contains(string(body), "limits have not been shared") {
			t.Errorf("/readyz: %s, %v", body, err)
		}
		away += int(m.metric(t, `popgate_cluster_state{state="away"}`) + m.metric(t, `popgate_cluster_state{state="merging"}`))
	}
	if away != 3 {
		t.Errorf("%d nodes know that Redis is away, want 3", away)
	}
	r.signal(t, syscall.SIGCONT)
	f.together(3)
	again := f.took(t, 150)
	for what, d := range map[string][]time.Duration{"usual": usual, "hung": hung, "again": again} {
		t.Logf("%s: median %v, longest %v", what, d[len(d)/2], d[len(d)-1])
	}
	// A login makes three decisions; whoever waited for Redis would wait for its timeout, 3s.
	const slack = 500 * time.Millisecond
	if d := hung[len(hung)/2] - usual[len(usual)/2]; d > 15*time.Millisecond+slack {
		t.Errorf("the median is %v longer without an answer from Redis", d)
	}
	if d := hung[len(hung)-1] - usual[len(usual)-1]; d > 2*time.Second {
		t.Errorf("the longest login is %v longer without an answer from Redis", d)
	}
	for i, m := range f.nodes {
		if n := strings.Count(m.Said(), "limits are no longer shared"); n > 3 { // on a busy machine Redis may have been slow before
			t.Errorf("node %d said %d times that limits are no longer shared", i+1, n)
		}
	}
}

// TestClusterSpread has nodes divide a limit among them while Redis is away, and hold it together when it is back.
func TestClusterSpread(t *testing.T) {
	const user, limit = "anna@example.org", 30
	r := startRedis(t)
	f := newFarm(t, r.section(), "deadline: 1s, spread: even", "limits: {per_user: {sessions: 30}}\n")
	f.grow(3)
	r.Down(t)
	for _, m := range f.nodes {
		peers.Eventually(t, "Redis is known to be away", func() error {
			if m.metric(t, `popgate_cluster_state{state="together"}`) != 0 {
				return fmt.Errorf("it is not")
			}
			return nil
		})
	}
	h := f.fill(t, user, 90)
	at := map[string]int{}
	for _, c := range h.callers {
		at[c.conn.RemoteAddr().String()]++
	}
	for i, m := range f.nodes {
		if got := at[m.address]; got != limit/3 {
			t.Errorf("node %d let in %d, want a third of %d", i+1, got, limit)
		}
	}

	// Redis is back, and empty. One node is full by what the others hold.
	r.Up(t)
	f.together(3)
	if n := len(f.fill(t, user, 12).callers); n != 0 {
		t.Errorf("%d sessions beyond the limit", n)
	}
	for _, c := range h.callers {
		if c.conn.RemoteAddr().String() == f.nodes[0].address {
			if err := c.quit(); err != nil {
				t.Error(err)
			}
		}
	}
	all := f.nodes
	f.nodes = all[2:]
	if n := len(f.fill(t, user, 20).callers); n != limit/3 {
		t.Errorf("another node let in %d in place of those that ended, want %d", n, limit/3)
	}
	f.nodes = all
}

// TestClusterFailover has a Redis with a replica and a Sentinel, whose master dies.
func TestClusterFailover(t *testing.T) {
	const user, limit = "anna@example.org", 12
	master, replica := startRedis(t), startRedis(t)
	host, port, _ := net.SplitHostPort(master.address)
	redisSays(t, replica.address, "OK", "REPLICAOF", host, port)
	watcher := peers.Port(t)
	peers.Redis(t, "--sentinel", nil, "port "+watcher,
		fmt.Sprintf("sentinel monitor mymaster %s %s 1", host, port),
		"sentinel down-after-milliseconds mymaster 1000", "sentinel failover-timeout mymaster 5000")
	peers.Eventually(t, "the Sentinel knows the replica", func() error {
		return redisTells("127.0.0.1:"+watcher, "num-slaves\n1\n", "SENTINEL", "MASTER", "mymaster")
	})
	peers.Eventually(t, "the replica follows", func() error { return redisTells(replica.address, "master_link_status:up", "INFO", "replication") })

	f := newFarm(t, fmt.Sprintf("{mode: sentinel, master: mymaster, addresses: [127.0.0.1:%s]}", watcher), "deadline: 1s, lease: 5s",
		"limits: {per_user: {sessions: 12}}\n")
	f.grow(3)
	h := f.fill(t, user, 30)
	if n := len(h.callers); n != limit {
		t.Errorf("%d sessions, want %d", n, limit)
	}
	before := f.nodes[0].metric(t, "popgate_cluster_resyncs_total")
	master.signal(t, syscall.SIGKILL)
	peers.Eventually(t, "the replica is the master", func() error { return redisTells(replica.address, "role:master", "INFO", "replication") })
	peers.Eventually(t, "the counts are at the new master", func() error {
		if now := f.nodes[0].metric(t, "popgate_cluster_resyncs_total"); now == before {
			return fmt.Errorf("they have been written %v times", now)
		}
		return nil
	})
	f.together(3)
	if n := len(f.fill(t, user, 12).callers); n != 0 {
		t.Errorf("%d sessions beyond the limit after the failover", n)
	}
	if n := h.quit(t); n != limit {
		t.Errorf("%d sessions were there until the end, want %d", n, limit)
	}
	if n := len(f.fill(t, user, 30).callers); n != limit {
		t.Errorf("%d sessions after the failover, want %d", n, limit)
	}
}

// redisTells is nil if Redis' answer to a command has a text in it.
func redisTells(address, want string, command ...string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	out, err := exec.Command("redis-cli", append([]string{"-h", host, "-p", port}, command...)...).CombinedOutput()
	if err != nil || !strings.Contains(strings.ReplaceAll(string(out), "\r", ""), want) {
		return fmt.Errorf("%v: %s, %w", command, out, err)
	}
	return nil
}

func redisSays(t *testing.T, address, want string, command ...string) {
	t.Helper()
	if err := redisTells(address, want, command...); err != nil {
		t.Fatal(err)
	}
}
