package policy_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/lockout"
)

// usual are the five limits that most files have, too wide to refuse anybody.
func usual() policy.Parts {
	return policy.Parts{
		Limits: policy.Config{
			Sessions: 1_000_000, SessionsPerIP: 100_000, SessionsPerUser: 100_000,
			LoginsPerIP: per(1_000_000, time.Second), LoginsPerUser: per(1_000_000, time.Second),
			Exempt: prefixes("10.0.0.0/8"),
		},
		Lockout: lockout.DefaultConfig(),
		Access:  access.DefaultConfig(),
	}
}

// A caller is one client with its login. It becomes another by turn: what the gate is asked with is at hand, as it is in a session,
// and what it looks up is not.
type caller struct {
	client *auth.Client
	query  *auth.Query
	to     *auth.Route
	names  string
}

const nameSize = len("user00000000@example.org")

func newCaller(most int) *caller {
	var b strings.Builder
	for i := range most {
		fmt.Fprintf(&b, "user%08d@example.org", i)
	}
	return &caller{client("2001:db8::1"), query("anna", "the password of anna"), route("anna"), b.String()}
}

func (c *caller) turn(i int) {
	a := [16]byte{0x20, 0x01}
	binary.BigEndian.PutUint32(a[2:], uint32(i)) // a /48 each, lest those that fail are delayed for others
	c.client.Addr = netip.AddrPortFrom(netip.AddrFrom16(a), 40000)
	name := c.names[i*nameSize : (i+1)*nameSize]
	c.query.Name.Key, c.to.Account = name, name
	binary.BigEndian.PutUint64(c.query.Secret.Reveal(), uint64(i))
}

// users are so many that a million keys are tracked: known-good pairs, pairs and networks that have failed, turns of limits.
const users = 450_000

// crowd is a gate that they have come to.
func crowd(b *testing.B) (*policy.Gate, *caller) {
	b.Helper()
	g := gateOf(b, policy.New(policy.Options{}), usual())
	c := newCaller(users)
	for n := range users {
		i := n * 0x9e3779b1 % users // in another order than that of the benchmarks
		c.turn(i)
		v := in(b, g, c)
		o := policy.Accepted
		if i%5 == 0 {
			o = policy.Refused
		}
		if err := v.Done(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		if o == policy.Accepted {
			v.Settle()
		}
		v.Close()
	}
	return g, c
}

// in is a login as far as the backend.
func in(b *testing.B, g *policy.Gate, c *caller) *policy.Visit {
	v, err := g.Admit(b.Context(), c.client)
	if err != nil {
		b.Fatal(err)
	}
	decide(b, v, c)
	return v
}

func decide(t tester, v *policy.Visit, c *caller) {
	ctx := t.Context()
	if err := v.Attempt(ctx, c.query); err != nil {
		t.Fatal(err)
	}
	if err := v.Hold(ctx); err != nil {
		t.Fatal(err)
	}
	if err := v.Enter(ctx, c.to); err != nil {
		t.Fatal(err)
	}
}

// measured runs round for each of the users in turn, and tells the time of the thread: on a busy machine that is what counts.
func measured(b *testing.B, c *caller, round func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	b.ReportAllocs()
	i, start := 0, threadTime(b)
	for b.Loop() {
		if i++; i == users {
			i = 0
		}
		c.turn(i)
		round()
	}
	b.ReportMetric(float64(threadTime(b)-start)/float64(b.N), "cpu-ns/op")
}

// threadTime is the time that the thread has spent.
func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(1, &u); err != nil { // RUSAGE_THREAD
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkLogin is what the gate's decisions on a login cost at a million tracked keys, apart and with the rest of the visit.
func BenchmarkLogin(b *testing.B) {
	g, c := crowd(b)
	ctx := b.Context()
	b.Run("callerAlone", func(b *testing.B) { measured(b, c, func() {}) })
	for _, o := range []struct {
		name    string
		outcome policy.Outcome
	}{{"accepted", policy.Accepted}, {"refused", policy.Refused}, {"undecided", policy.Undecided}} {
		b.Run("decisions/"+o.name, func(b *testing.B) {
			v, err := g.Admit(ctx, c.client)
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			measured(b, c, func() {
				decide(b, v, c)
				_ = v.Done(ctx, o.outcome)
			})
		})
	}
	b.Run("decisions/sameUser", func(b *testing.B) { // all of it in the processor's cache
		v, err := g.Admit(ctx, c.client)
		if err != nil {
			b.Fatal(err)
		}
		defer v.Close()
		measured(b, c, func() {
			c.turn(1)
			decide(b, v, c)
			_ = v.Done(ctx, policy.Accepted)
		})
	})
	b.Run("admitAndClose", func(b *testing.B) {
		measured(b, c, func() {
			v, err := g.Admit(ctx, c.client)
			if err != nil {
				b.Fatal(err)
			}
			v.Close()
		})
	})
	b.Run("visit", func(b *testing.B) {
		measured(b, c, func() {
			v := in(b, g, c)
			if v.Done(ctx, policy.Accepted) != nil {
				b.Fatal("refused")
			}
			v.Settle()
			v.Close()
		})
	})
}

// BenchmarkTurnedAway is a client that a limit refuses at once: what a flood costs.
func BenchmarkTurnedAway(b *testing.B) {
	_, g := limited(b, policy.Config{SessionsPerIP: 1})
	c := client("192.0.2.1")
	if _, err := g.Admit(b.Context(), c); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Admit(b.Context(), c); err == nil {
			b.Fatal("admitted")
		}
	}
}

// TestNoAllocations holds what the benchmarks show: from Attempt to Done a login allocates nothing, whatever becomes of it.
func TestNoAllocations(t *testing.T) {
	k := policy.New(policy.Options{})
	g := gateOf(t, k, usual())
	c := newCaller(1)
	v, err := g.Admit(t.Context(), c.client)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, o := range []policy.Outcome{policy.Undecided, policy.Refused, policy.Accepted, policy.Refused, policy.Barred} {
		once := func() {
			decide(t, v, c)
			if err := v.Done(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		once()
		if n := testing.AllocsPerRun(200, once); n != 0 {
			t.Errorf("a login of outcome %d: got %v allocations, want 0", o, n)
		}
	}
	// All of a visit allocates what is kept of it: itself, and the places it holds. The race detector has a pool lose a quarter of what it
	// is given: so many visits that chance does not count.
	if n := testing.AllocsPerRun(5000, func() { settled(t, g, c).Close() }); n > 2 {
		t.Errorf("a whole visit: got %v allocations, want at most 2", n)
	}
}

// TestVisitSize: what a session keeps of the gate while it carries mail is little, for there are many such.
func TestVisitSize(t *testing.T) {
	if n := unsafe.Sizeof(policy.Visit{}); n > 96 {
		t.Errorf("a visit: got %d bytes, want at most 96", n)
	}
	const n = 10_000
	k := policy.New(policy.Options{})
	g := gateOf(t, k, usual())
	c, visits := newCaller(n), make([]*policy.Visit, n)
	for i := range n { // the tables grow
		c.turn(i)
		visits[i] = settled(t, g, c)
	}
	for _, v := range visits {
		v.Close()
	}
	clear(visits)
	before := heap()
	for i := range n {
		c.turn(i)
		visits[i] = settled(t, g, c)
	}
	if got := int(heap()-before) / n; got > 600 {
		t.Errorf("a settled visit with all that counts it: got %d bytes, want at most 600", got)
	} else {
		t.Logf("%d bytes of a settled visit with all that counts it", got)
	}
	for _, v := range visits {
		v.Close()
	}
}

func settled(t *testing.T, g *policy.Gate, c *caller) *policy.Visit {
	t.Helper()
	v, err := g.Admit(t.Context(), c.client)
	if err != nil {
		t.Fatal(err)
	}
	decide(t, v, c)
	if err := v.Done(t.Context(), policy.Accepted); err != nil {
		t.Fatal(err)
	}
	v.Settle()
	return v
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
