package policy_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
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

// A caller is one client with its login.
type caller struct {
	client *auth.Client
	query  *auth.Query
	to     *auth.Route
}

func callers(n int) []caller {
	all := make([]caller, n)
	for i := range all {
		var a [16]byte
		binary.BigEndian.PutUint16(a[:], 0x2001)
		binary.BigEndian.PutUint32(a[4:], uint32(i)) // a /64 each, and a /48 for 65,536
		user := fmt.Sprintf("user%d", i)
		all[i] = caller{client(netip.AddrFrom16(a).String()), query(user, "secret of "+user), route(user)}
	}
	return all
}

// crowd is a gate that tracks a million keys: known-good pairs, those that have failed, and turns of limits.
func crowd(b *testing.B) (*policy.Keeper, *policy.Gate, []caller) {
	b.Helper()
	k := policy.New(policy.Options{})
	g := gateOf(b, k, usual())
	all := callers(450_000)
	for i := range all {
		v := in(b, g, &all[i])
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
	return k, g, all
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

// measured runs round for each of the callers in turn, and tells the time of the thread: on a busy machine that is what counts.
func measured(b *testing.B, n int, round func(i int)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.GC()
	b.ReportAllocs()
	i, start := 0, threadTime(b)
	for b.Loop() {
		if i++; i == n {
			i = 0
		}
		round(int(uint64(i) * 0x9e3779b1 % uint64(n)))
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
	_, g, all := crowd(b)
	ctx := b.Context()
	visit := func(b *testing.B) []*policy.Visit {
		visits := make([]*policy.Visit, len(all))
		for i := range visits {
			v, err := g.Admit(ctx, all[i].client)
			if err != nil {
				b.Fatal(err)
			}
			visits[i] = v
		}
		b.Cleanup(func() {
			for _, v := range visits {
				v.Close()
			}
		})
		return visits
	}
	for _, o := range []struct {
		name    string
		outcome policy.Outcome
	}{{"accepted", policy.Accepted}, {"refused", policy.Refused}, {"undecided", policy.Undecided}} {
		b.Run("decisions/"+o.name, func(b *testing.B) {
			visits := visit(b)
			measured(b, len(all), func(i int) {
				v, c := visits[i], &all[i]
				if v.Attempt(ctx, c.query) != nil || v.Hold(ctx) != nil || v.Enter(ctx, c.to) != nil {
					return // refused users have failed too often by now: that is a decision as well
				}
				_ = v.Done(ctx, o.outcome)
			})
		})
	}
	b.Run("admitAndClose", func(b *testing.B) {
		measured(b, len(all), func(i int) {
			v, err := g.Admit(ctx, all[i].client)
			if err != nil {
				b.Fatal(err)
			}
			v.Close()
		})
	})
	b.Run("visit", func(b *testing.B) {
		measured(b, len(all), func(i int) {
			v := in(b, g, &all[i])
			if v.Done(ctx, policy.Accepted) != nil {
				b.Fatal("refused")
			}
			v.Settle()
			v.Close()
		})
	})
}

// BenchmarkTogether is a whole visit on all cores at once.
func BenchmarkTogether(b *testing.B) {
	_, g, all := crowd(b)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := uint64(0); pb.Next(); i++ {
			v := in(b, g, &all[i*0x9e3779b1%uint64(len(all))])
			if v.Done(b.Context(), policy.Accepted) == nil {
				v.Settle()
			}
			v.Close()
		}
	})
}

// BenchmarkTurnedAway is a client that a limit refuses at once: what a flood costs.
func BenchmarkTurnedAway(b *testing.B) {
	_, g := limited(b, policy.Config{SessionsPerIP: 1})
	c := client("192.0.2.1")
	if _, err := g.Admit(b.Context(), c); err != nil {
		b.Fatal(err)
	}
	measured(b, 1, func(int) {
		if _, err := g.Admit(b.Context(), c); err == nil {
			b.Fatal("admitted")
		}
	})
}

// TestNoAllocations holds what the benchmarks show: from Attempt to Done a login allocates nothing, whatever becomes of it.
func TestNoAllocations(t *testing.T) {
	k := policy.New(policy.Options{})
	g := gateOf(t, k, usual())
	c := caller{client("2001:db8::1"), query("anna", "the password of anna"), route("anna")}
	v, err := g.Admit(t.Context(), c.client)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, o := range []policy.Outcome{policy.Undecided, policy.Refused, policy.Accepted, policy.Refused, policy.Barred} {
		once := func() {
			decide(t, v, &c)
			if err := v.Done(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
		once()
		if n := testing.AllocsPerRun(200, once); n != 0 {
			t.Errorf("a login of outcome %d: got %v allocations, want 0", o, n)
		}
	}
	decide(t, v, &c)
	if err := v.Done(t.Context(), policy.Accepted); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(0, v.Settle); n != 0 {
		t.Errorf("settling: got %v allocations, want 0", n)
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
	all, visits := callers(n), make([]*policy.Visit, n)
	for i := range n { // the tables grow
		visits[i] = settled(t, g, &all[i])
	}
	for _, v := range visits {
		v.Close()
	}
	before := heap()
	for i := range n {
		visits[i] = settled(t, g, &all[i])
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
