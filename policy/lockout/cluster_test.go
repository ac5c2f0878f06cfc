package lockout_test

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/policy/cluster"
	"github.com/popgate/popgate/policy/lockout"
)

// A hub is a cluster in one process: what one node publishes has reached the others when it goes on.
type hub struct {
	mu     sync.Mutex
	nodes  []*node
	shelf  [2]map[uint64]cluster.Fact // known-good pairs, lockouts
	spoken map[byte]int               // messages, by what they are about
}

// A node is a Keeper in a hub.
type node struct {
	*rig
	hub    *hub
	hear   func([]byte)
	shelf  [2]nodeShelf
	cutOff bool
	ahead  time.Duration // its clock
}

type nodeShelf struct {
	node *node
	of   int
	take func(cluster.Fact)
	all  iter.Seq[cluster.Fact]
}

func (s *nodeShelf) Own(take func(cluster.Fact), all iter.Seq[cluster.Fact]) {
	s.take, s.all = take, all
}

func (s *nodeShelf) Put(f cluster.Fact) {
	h := s.node.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if old, ok := h.shelf[s.of][f.Key]; !s.node.cutOff && (!ok || old.At.Before(f.At)) {
		h.shelf[s.of][f.Key] = f
	}
}

// sync does what a shelf does when Redis comes back, emptied or not: it reads all, and puts all.
func (n *node) sync() {
	for i := range n.shelf {
		n.hub.mu.Lock()
		there := slices.Collect(maps.Values(n.hub.shelf[i]))
		n.hub.mu.Unlock()
		for _, f := range there {
			n.shelf[i].take(f)
		}
		n.shelf[i].all(func(f cluster.Fact) bool { n.shelf[i].Put(f); return true })
	}
}

func (n *node) Subscribe(_ string, hear func([]byte)) { n.hear = hear }

func (n *node) Publish(_ string, m []byte) {
	n.hub.spoken[m[0]]++
	for _, other := range n.hub.nodes {
		if other != n && !other.cutOff && !n.cutOff {
			said := slices.Clone(m)
			if said[0] == 'l' {
				for _, at := range [][]byte{said[1:9], said[9:17]} { // since and until
					binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)+uint64(n.ahead-other.ahead))
				}
			}
			other.hear(said)
		}
	}
}

func newHub() *hub {
	return &hub{shelf: [2]map[uint64]cluster.Fact{{}, {}}, spoken: map[byte]int{}}
}

// node joins one more.
func (h *hub) node(t *testing.T, c lockout.Config, keys int) *node {
	t.Helper()
	n := &node{rig: &rig{T: t}, hub: h}
	for i := range n.shelf {
		n.shelf[i] = nodeShelf{node: n, of: i}
	}
	n.keeper = lockout.NewSmall("", lockout.Options{
		Events:  n.note,
		Cluster: &lockout.Cluster{Key: [32]byte{1}, Bus: n, Known: &n.shelf[0], Lockouts: &n.shelf[1]},
	}, keys)
	n.use(c)
	h.nodes = append(h.nodes, n)
	return n
}

// three are the nodes of a cluster.
func three(t *testing.T, c lockout.Config) (h *hub, a, b, d *node) {
	h = newHub()
	return h, h.node(t, c, 4096), h.node(t, c, 4096), h.node(t, c, 4096)
}

func noSpray() lockout.Config {
	c := lockout.DefaultConfig()
	c.Spray = lockout.Spray{Window: time.Hour}
	return c
}

// TestFailuresOverNodes: guesses count wherever they come; who is locked out at one node is so at all, and one of them tells.
func TestFailuresOverNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b, c := three(t, lockout.DefaultConfig())
		for _, n := range h.nodes {
			n.run()
		}
		for i, wait := range []time.Duration{0, 0, 0, 1, 2, 4, 8, 15, 15, 15} {
			n := h.nodes[i%3]
			v := n.try(here, "anna", fmt.Sprint("guess", i), false)
			if v.Action == lockout.Refuse || v.Wait != wait*time.Second {
				t.Errorf("guess %d: got %+v, want a wait of %ds", i, v, wait)
			}
		}
		for _, n := range h.nodes {
			n.want("after ten", n.try(here, "anna", "right", true), lockout.Refuse, 0)
			n.want("from elsewhere", n.try(there, "bert", "right", true), lockout.GoOn, 0)
			if l := n.keeper.List(); len(l) != 1 || l[0].Name != "anna" || l[0].Failures != 10 || l[0].Until.Sub(l[0].Since) != 5*time.Minute {
				t.Errorf("List: got %+v, want anna for 5m on each node", l)
			}
		}
		<-time.After(5*time.Minute + 2*time.Second)
		a.wantEvents(lockout.Started, lockout.Ended) // the tenth came there
		b.wantEvents()
		c.wantEvents()

		// The next one takes as many again, and is longer, wherever it begins.
		for i := range 9 {
			b.try(here, "anna", fmt.Sprint("more", i), false)
		}
		if len(a.keeper.List()) != 0 {
			t.Errorf("after nine more: got %+v, want none", a.keeper.List())
		}
		c.try(here, "anna", "more9", false)
		if l := a.keeper.List(); len(l) != 1 || l[0].Until.Sub(l[0].Since) != 10*time.Minute || l[0].Times != 2 {
			t.Errorf("List the second time: got %+v, want 10m", l)
		}
		b.wantEvents()
		c.wantEvents(lockout.Started)
	})
}

// TestNetworkOverNodes: the failures of a network, and of the /48 around it, count over nodes too.
func TestNetworkOverNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b, c := three(t, noSpray())
		b.try(here, "known", "right", true)
		for i := range 100 {
			if v := h.nodes[i%3].try(here, fmt.Sprint("user", i), fmt.Sprint(i), false); v.Action == lockout.Refuse {
				t.Fatalf("failure %d: got refused", i)
			}
		}
		for _, n := range h.nodes {
			n.want("a stranger", n.try(here, "other", "right", true), lockout.Refuse, 0)
			n.want("who is known", n.try(here, "known", "right", true), lockout.GoOn, 0)
		}
		for i := range 500 {
			n := h.nodes[i%3]
			l := n.login("192.0.2.9", fmt.Sprint("user", i), fmt.Sprint(i))
			l.Network = n.keeper.Network(netip.MustParsePrefix(fmt.Sprintf("2001:db8:1:%x::/64", i)))
			try, _ := n.view.Attempt(l)
			try.Failed()
		}
		for _, n := range h.nodes {
			if l := n.keeper.List(); len(l) != 2 || l[1].Network.String() != "2001:db8:1::/48" {
				t.Errorf("List: got %+v, want the /48 too", l)
			}
		}
		a.wantEvents(lockout.Started)
		b.wantEvents(lockout.Started)
		c.wantEvents()
	})
}

// TestSameSecretOverNodes: a mail client with an old password that comes to all nodes counts once.
func TestSameSecretOverNodes(t *testing.T) {
	for _, known := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h, a, _, _ := three(t, lockout.DefaultConfig())
			if known {
				a.try(here, "anna", "right", true)
			}
			for i := range 300 {
				n := h.nodes[i%3]
				n.want("the old password", n.try(here, "anna", "old", false), lockout.GoOn, 0)
			}
			// It was one failure: nine more make ten.
			for i := range 9 {
				n := h.nodes[i%3]
				if v := n.try(here, "anna", fmt.Sprint("guess", i), false); v.Action == lockout.Refuse {
					t.Errorf("guess %d: got refused", i)
				}
			}
			for _, n := range h.nodes {
				n.want("after ten", n.try(here, "anna", "right", true), lockout.Refuse, 0)
			}
		})
	}
}

// TestMeetingFailures: two nodes have counted the same guess before they hear of each other; then it counts once all the same.
func TestMeetingFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b, c := three(t, lockout.DefaultConfig())
		b.cutOff = true
		for i := range 5 {
			b.try(here, "anna", fmt.Sprint("guess", i), false)
		}
		b.cutOff = false
		for i := range 5 {
			a.try(here, "anna", fmt.Sprint("guess", i), false) // b knows these
		}
		for i := range 4 {
			c.try(here, "anna", fmt.Sprint("more", i), false)
		}
		for _, n := range []*node{a, b, c} {
			if l := n.keeper.List(); len(l) != 0 {
				t.Errorf("after nine: got %+v, want none", l)
			}
		}
		c.try(here, "anna", "more4", false)
		b.want("after ten", b.try(here, "anna", "right", true), lockout.Refuse, 0)
	})
}

// TestKnownOverNodes: who is known at one node is so at all, for as long as he comes to any; they are told of it once a day.
func TestKnownOverNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b, c := three(t, lockout.DefaultConfig())
		const days = 40
		for range days * 24 {
			a.want("anna", a.try(here, "anna", "right", true), lockout.GoOn, 0)
			<-time.After(time.Hour)
		}
		if n := h.spoken['s']; n < days || n > days+2 {
			t.Errorf("messages in %d days: got %d, want one a day", days, n)
		}
		if err := c.keeper.Add(netip.MustParsePrefix(here+"/32"), "", time.Hour); err != nil {
			t.Fatal(err)
		}
		b.want("a stranger", b.try(here, "bert", "right", true), lockout.Refuse, 0)
		b.want("anna", b.try(here, "anna", "right", true), lockout.GoOn, 0)

		// One user's networks are as few over all nodes as at one.
		for i := range 200 {
			n := h.nodes[i%3]
			n.try(fmt.Sprint("203.0.113.", i), "carl", "right", true)
		}
		for _, n := range h.nodes {
			if got := n.keeper.KnownLen(); got > 52 {
				t.Errorf("known pairs: got %d, want anna's and 50 of carl's", got)
			}
		}
	})
}

// TestOperatorOverNodes: what an operator says at one node holds at all, and is told where it was said.
func TestOperatorOverNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b, c := three(t, lockout.DefaultConfig())
		p := netip.MustParsePrefix(here + "/32")
		if err := a.keeper.Add(p, "anna", time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := b.keeper.Add(p, "anna", 2*time.Hour); err != nil {
			t.Fatal(err)
		}
		for _, n := range h.nodes {
			n.want("anna", n.try(here, "anna", "right", true), lockout.Refuse, 0)
			if l := n.keeper.List(); len(l) != 1 || l[0].Until.Sub(l[0].Since) != 2*time.Hour || l[0].Cause != lockout.Manual {
				t.Errorf("List: got %+v, want the second", l)
			}
		}
		if ok, err := c.keeper.Remove(p, "anna"); !ok || err != nil {
			t.Errorf("Remove: got %v, %v", ok, err)
		}
		for _, n := range h.nodes {
			n.want("anna after it", n.try(here, "anna", "right", true), lockout.GoOn, 0)
		}
		a.wantEvents(lockout.Started)
		b.wantEvents(lockout.Ended, lockout.Started)
		c.wantEvents(lockout.Ended)

		// A failure is forgiven everywhere, too.
		for i := range 10 {
			h.nodes[i%3].try(there, "bert", fmt.Sprint(i), false)
		}
		if ok, err := b.keeper.Remove(netip.MustParsePrefix(there+"/32"), "bert"); !ok || err != nil {
			t.Errorf("Remove: got %v, %v", ok, err)
		}
		for _, n := range h.nodes {
			n.want("bert after it", n.try(there, "bert", "right", true), lockout.GoOn, 0)
		}
	})
}

// TestShelves: a node that starts knows what the others know, and one that was away does not bring back what was ended.
func TestShelves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, a, b, c := three(t, lockout.DefaultConfig())
		a.fill()
		c.cutOff = true
		p := netip.MustParsePrefix("2001:db8:1:2::/64")
		if ok, err := b.keeper.Remove(p, ""); !ok || err != nil {
			t.Errorf("Remove: got %v, %v", ok, err)
		}
		late := h.node(t, lockout.DefaultConfig(), 4096)
		check := func(what string, n *node) {
			t.Helper()
			if l := n.keeper.List(); len(l) != 1 || l[0].Failures != 10 {
				t.Errorf("%s: got %+v, want bert's alone", what, l)
			}
			n.want(what+": bert", n.try(here, "bert", "right", true), lockout.Refuse, 0)
			if !n.keeper.Known(n.keeper.Network(netip.MustParsePrefix(here+"/32")), n.keeper.User("anna")) {
				t.Errorf("%s: anna is not known", what)
			}
		}
		late.sync()
		check("a node that starts", late)
		if l := late.keeper.List(); l[0].Name != "" {
			t.Errorf("name: got %q, want none on the shelf", l[0].Name)
		}
		c.cutOff = false
		c.sync()
		check("a node that was away", c)
		h.nodes[3].sync()
		check("the other one again", late)

		// An empty Redis is filled again, by any of them.
		h.shelf = [2]map[uint64]cluster.Fact{{}, {}}
		b.sync()
		again := h.node(t, lockout.DefaultConfig(), 4096)
		again.sync()
		check("after Redis was emptied", again)
		again.wantEvents()
		c.wantEvents()
	})
}

// TestSprayOverNodes: many users from one network, and one password over many users, are seen over all nodes, and told of once.
func TestSprayOverNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, _, _ := three(t, lockout.DefaultConfig())
		for i := range 30 {
			n := h.nodes[i%3]
			n.try(here, fmt.Sprint("user", i), fmt.Sprint("x", i), false)
		}
		for i := range 30 {
			n := h.nodes[i%3]
			n.try(fmt.Sprint("203.0.113.", i), fmt.Sprint("user", i), "Summer2026!", false)
		}
		var causes []lockout.Cause
		for _, n := range h.nodes {
			for _, e := range n.events {
				if e.Kind == lockout.SprayDetected {
					causes = append(causes, e.Cause)
				}
			}
		}
		slices.Sort(causes)
		if !slices.Equal(causes, []lockout.Cause{lockout.ManyUsers, lockout.OnePassword}) {
			t.Errorf("sprays: got %v, want each kind once", causes)
		}
	})
}

// TestClocksApart: the later word holds though the clock of the node that has it is behind.
func TestClocksApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		ahead := h.node(t, lockout.DefaultConfig(), 4096)
		ahead.ahead = time.Minute
		behind := h.node(t, lockout.DefaultConfig(), 4096)
		p := netip.MustParsePrefix(here + "/32")
		for i := range 3 {
			if err := ahead.keeper.Add(p, "", time.Hour); err != nil {
				t.Fatal(err)
			}
			behind.want("locked out", behind.try(here, fmt.Sprint("user", i), "right", true), lockout.Refuse, 0)
			if ok, err := behind.keeper.Remove(p, ""); !ok || err != nil {
				t.Errorf("Remove: got %v, %v", ok, err)
			}
			ahead.want("let in", ahead.try(here, fmt.Sprint("user", i), "right", true), lockout.GoOn, 0)
			if err := behind.keeper.Add(p, "", time.Hour); err != nil {
				t.Fatal(err)
			}
			if l := ahead.keeper.List(); len(l) != 1 {
				t.Errorf("List: got %+v, want the one from behind", l)
			}
			if ok, err := ahead.keeper.Remove(p, ""); !ok || err != nil {
				t.Errorf("Remove: got %v, %v", ok, err)
			}
		}
	})
}

// TestHeardBounded: whatever other nodes tell, they push out an eighth of what is known here in an hour at most.
func TestHeardBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys = 1024
		h := newHub()
		a := h.node(t, noSpray(), 1<<16)
		b := h.node(t, noSpray(), keys)
		a.cutOff = true
		for i := range 2 * keys { // full to the brim
			try, _ := b.view.Attempt(loginOf(b.keeper, i, i, i))
			try.Succeeded()
		}
		before := b.keeper.KnownLen()
		a.cutOff = false
		for i := range 50_000 {
			try, _ := a.view.Attempt(loginOf(a.keeper, 1<<20+i, 1<<20+i, i))
			try.Succeeded()
		}
		left := 0
		for i := range 2 * keys {
			if l := loginOf(b.keeper, i, i, i); b.keeper.Known(l.Network, l.User) {
				left++
			}
		}
		if before != keys || left < keys*7/8 || left == keys {
			t.Errorf("known before: %d, left of them: %d, want %d at least", before, left, keys*7/8)
		}
		if n := b.keeper.Keys(); n > 6*keys {
			t.Errorf("keys: got %d, want at most %d", n, 6*keys)
		}
	})
}

// FuzzHear: no message of another node brings one down, locks out for longer than a lockout can be, or makes it tell anybody.
func FuzzHear(f *testing.F) {
	h := newHub()
	var seeds [][]byte
	a := h.node(new(testing.T), lockout.DefaultConfig(), 256)
	h.node(new(testing.T), lockout.DefaultConfig(), 256).hear = func(m []byte) { seeds = append(seeds, m) }
	a.fill()
	for _, m := range seeds {
		f.Add(m)
	}
	f.Add([]byte{})
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, m []byte) {
		h := newHub()
		reg := prometheus.NewRegistry()
		n := &node{rig: &rig{T: t}, hub: h}
		n.keeper = lockout.NewSmall("", lockout.Options{
			Events: n.note, Registerer: reg, Cluster: &lockout.Cluster{Bus: n, Known: &n.shelf[0], Lockouts: &n.shelf[1]},
		}, 256)
		for i := range n.shelf {
			n.shelf[i].node = n
		}
		n.use(lockout.DefaultConfig())
		n.hear(m)
		n.wantEvents()
		for _, l := range n.keeper.List() {
			if !l.Network.IsValid() || l.Cause == "" || l.Until.Before(time.Now()) {
				t.Errorf("got %+v, want a whole lockout", l)
			}
		}
		if len(h.spoken) > 0 {
			t.Error("what was heard was told on")
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range families {
			if m.GetName() == "popgate_lockout_unread_total" && m.Metric[0].Counter.GetValue() > 0 && n.keeper.Keys() > 0 {
				t.Error("a message that was not understood left something behind")
			}
		}
	})
}

// TestUnread: messages of another version are counted, and left alone.
func TestUnread(t *testing.T) {
	h := newHub()
	reg := prometheus.NewPedanticRegistry()
	n := &node{rig: &rig{T: t}, hub: h}
	n.keeper = lockout.NewSmall("", lockout.Options{
		Registerer: reg, Cluster: &lockout.Cluster{Bus: n, Known: &n.shelf[0], Lockouts: &n.shelf[1]},
	}, 256)
	n.hear([]byte("before there is a View: nobody minds"))
	n.use(lockout.DefaultConfig())
	for _, m := range []string{"", "x", "f", "s", "l", "f\x00\x81\x00aaaaaaaaaaaaaaaabbbbbbbbcccccccc"} {
		n.hear([]byte(m))
	}
	n.shelf[1].take(cluster.Fact{Value: []byte("short")})
	n.shelf[1].take(cluster.Fact{Value: make([]byte, 48)})
	const want = 8
	if err := testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(`# HELP popgate_lockout_unread_total Messages of other nodes that this one does not understand.
# TYPE popgate_lockout_unread_total counter
popgate_lockout_unread_total %d
`, want)), "popgate_lockout_unread_total"); err != nil {
		t.Error(err)
	}
	if n.keeper.Keys() != 0 {
		t.Errorf("keys: got %d, want none", n.keeper.Keys())
	}
}
