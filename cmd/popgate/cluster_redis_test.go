//go:build unix

package main

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/peers"
)

// TestClusterNodeDies has the places of a node that was killed come free by themselves, and no others.
func TestClusterNodeDies(t *testing.T) {
	const user, limit = "anna@example.org", 12
	f := newFarm(t, startRedis(t).section(), "deadline: 1s, lease: 4s", `
limits: {per_user: {sessions: 12}}
`)
	nodes := f.grow(3)
	f.nodes = nodes[2:] // some are at the node that is to die
	h := f.fill(t, user, 3)
	f.nodes = nodes
	for _, c := range f.fill(t, user, 40).callers {
		h.add(c)
	}
	if n := len(h.callers); n != limit {
		t.Fatalf("%d sessions, want %d", n, limit)
	}
	lost := 0
	for _, c := range h.callers {
		if c.conn.RemoteAddr().String() == nodes[2].address {
			lost++
		}
	}
	if lost < 3 {
		t.Fatalf("%d of them are at the node that is to die, want 3 at least", lost)
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
	for _, m := range f.nodes {
		peers.Eventually(t, "the node knows that Redis is away", func() error { // it tries again now and then, and is merging meanwhile
			body, err := fetch("http://" + m.metrics + "/readyz")
			if err == nil && (m.metric(t, `popgate_cluster_state{state="away"}`) == 0 || !strings.Contains(string(body), "limits have not been shared")) {
				err = fmt.Errorf("/readyz: %s", body)
			}
			return err
		})
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

// TestClusterOfRedis has the counts and the facts at different servers of a Redis Cluster, of which one goes away.
func TestClusterOfRedis(t *testing.T) {
	const user, limit = "anna@example.org", 12
	var addresses []string
	servers := map[string]*redisServer{}
	var first, firstBus string
	for i, slots := range [][2]string{{"0", "8191"}, {"8192", "16383"}} {
		bus := peers.Port(t)
		r := startRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-require-full-coverage", "no")
		redisSays(t, r.address, "OK", "CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1])
		addresses = append(addresses, strconv.Quote(r.address))
		servers[r.address] = r
		_, port, _ := net.SplitHostPort(r.address)
		if i == 0 {
			first, firstBus = port, bus
			continue
		}
		redisSays(t, r.address, "OK", "CLUSTER", "MEET", "127.0.0.1", first, firstBus)
	}
	for address := range servers {
		peers.Eventually(t, "the servers know each other", func() error {
			return redisTells(address, "cluster_slots_ok:16384", "CLUSTER", "INFO")
		})
	}
	f := newFarm(t, fmt.Sprintf("{mode: cluster, addresses: [%s]}", strings.Join(addresses, ", ")), "deadline: 1s, lease: 5s",
		"lockout: {user: {delay_after: 0, lockout_after: 2}}\nlimits: {failure_delay: 10ms, per_user: {sessions: 12}}\n")
	nodes := f.grow(3)
	h := f.fill(t, user, 30)
	if n := len(h.callers); n != limit {
		t.Errorf("%d sessions, want %d", n, limit)
	}

	// What one node learns, the others know.
	c, err := f.call(nodes[0], "127.0.1.9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	for _, wrong := range []string{"1", "2"} {
		if reply, err := c.login("bob@example.org", wrong); err != nil || !strings.HasPrefix(reply, "-ERR [AUTH]") {
			t.Fatalf("got %q, %v", reply, err)
		}
	}
	peers.Eventually(t, "the lockout is known", func() error {
		out, err := exec.Command("popgate", "lockouts", "-c", nodes[2].file).CombinedOutput()
		if err == nil && !strings.Contains(string(out), "127.0.1.9 ") {
			err = fmt.Errorf("it lists %s", out)
		}
		return err
	})

	// The server with the counts goes away for good: nobody waits, and who counts says so.
	at := countsServer(t, addresses[0])
	servers[at].End = syscall.SIGKILL
	servers[at].Down(t)
	for i := range 9 {
		if err := f.session(i); err != nil {
			t.Error(err)
		}
	}
	for i, m := range nodes {
		peers.Eventually(t, fmt.Sprintf("node %d says that it counts alone", i+1), func() error {
			body, err := fetch("http://" + m.metrics + "/readyz")
			if err == nil && !strings.Contains(string(body), "limits have not been shared") {
				err = fmt.Errorf("it says %s", body)
			}
			return err
		})
	}
}

// countsServer is the server of a Redis Cluster where the counts are.
func countsServer(t *testing.T, quoted string) (address string) {
	t.Helper()
	asked, err := strconv.Unquote(quoted)
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(asked)
	out, err := exec.Command("redis-cli", "-h", host, "-p", port, "EXISTS", "{popgate:counts}:nodes").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	// "MOVED 1234 127.0.0.1:5678"
	if words := strings.Fields(string(out)); slices.Contains(words, "MOVED") {
		return words[len(words)-1]
	}
	return asked
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
