package lockout_test

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/cluster"
	"github.com/popgate/popgate/policy/lockout"
)

// An ending is one of a Try. Were it a func, each Try would have to be allocated.
type ending int

const (
	undecided ending = iota
	succeeded
	failed
	unended // the decision alone
)

func (e ending) of(t *lockout.Try) {
	switch e {
	case unended:
	case undecided:
		t.Undecided()
	case succeeded:
		t.Succeeded()
	case failed:
		t.Failed()
	}
}

// crowd is a Keeper that tracks a million keys: known-good pairs, pairs and networks that failed, lockouts.
func crowd(b *testing.B) (*lockout.Keeper, *lockout.View, []lockout.Login) {
	b.Helper()
	var before, after runtime.MemStats
	logins := make([]lockout.Login, 800_000)
	runtime.GC()
	runtime.ReadMemStats(&before)
	k := lockout.New("", lockout.Options{})
	v, err := k.Prepare(lockout.DefaultConfig())
	if err != nil {
		b.Fatal(err)
	}
	for i := range len(logins) {
		l := of(k, i, i)
		try, _ := v.Attempt(l)
		if i%7 < 5 {
			try.Succeeded() // known-good
		} else {
			try.Failed() // a pair and a network
		}
		logins[i] = l
	}
	if err := k.Add(netip.MustParsePrefix("192.0.2.1/32"), "", time.Hour); err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	rand.Shuffle(len(logins), func(i, j int) { logins[i], logins[j] = logins[j], logins[i] })
	b.Logf("%d keys, %d bytes a key", k.Keys(), int(after.HeapAlloc-before.HeapAlloc)/k.Keys())
	return k, v, logins
}

func of(k *lockout.Keeper, network, user int) lockout.Login {
	var a [16]byte
	binary.BigEndian.PutUint16(a[:], 0x2001)
	binary.BigEndian.PutUint32(a[2:], uint32(network)) // a /48 each
	return lockout.Login{
		Network: k.Network(netip.PrefixFrom(netip.AddrFrom16(a), 64)),
		User:    k.User(fmt.Sprintf("user%d@example.org", user)), Secret: k.Secret(fmt.Append(nil, user)),
	}
}

// BenchmarkDecision is what one login costs: the decision and its end, at a million keys.
func BenchmarkDecision(b *testing.B) {
	_, v, logins := crowd(b)
	b.Run("decision", func(b *testing.B) { decide(b, v, logins, unended) })
	b.Run("undecided", func(b *testing.B) { decide(b, v, logins, undecided) })
	b.Run("succeeded", func(b *testing.B) { decide(b, v, logins, succeeded) })
	b.Run("failed", func(b *testing.B) { decide(b, v, logins, failed) })
}

// decide tells the time of the thread too: on a busy machine that is what counts.
func decide(b *testing.B, v *lockout.View, logins []lockout.Login, end ending) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	i, start := 0, threadTime(b)
	for b.Loop() {
		if i++; i == len(logins) {
			i = 0
		}
		try, _ := v.Attempt(logins[i])
		end.of(&try)
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

// BenchmarkDigests is what the keys of one login cost.
func BenchmarkDigests(b *testing.B) {
	k := lockout.New("", lockout.Options{})
	network, name, secret := netip.MustParsePrefix("192.0.2.1/32"), "anna@example.org", []byte("correct horse battery staple")
	b.ReportAllocs()
	for b.Loop() {
		_ = lockout.Login{Network: k.Network(network), User: k.User(name), Secret: k.Secret(secret)}
	}
}

// nobody is a cluster of one node.
type nobody struct{}

func (nobody) Publish(string, []byte)                         {}
func (nobody) Subscribe(string, func([]byte))                 {}
func (nobody) Put(cluster.Fact)                               {}
func (nobody) Own(func(cluster.Fact), iter.Seq[cluster.Fact]) {}
func alone() *lockout.Cluster {
	return &lockout.Cluster{Bus: nobody{}, Known: nobody{}, Lockouts: nobody{}}
}

// TestNoAllocations holds what the benchmarks show. In a cluster too a login allocates nothing, unless there is something to tell.
func TestNoAllocations(t *testing.T) {
	allocations(t, lockout.Options{})
	allocations(t, lockout.Options{Cluster: alone()})

	k := lockout.NewSmall("", lockout.Options{Cluster: alone()}, 4096)
	v, err := k.Prepare(lockout.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	logins := make([]lockout.Login, 1000)
	for i := range logins {
		logins[i] = of(k, i, i)
		try, _ := v.Attempt(logins[i]) // tables have grown
		try.Failed()
	}
	i := 0
	if n := testing.AllocsPerRun(500, func() {
		l := logins[i]
		l.Secret++ // a new wrong one
		try, _ := v.Attempt(l)
		try.Failed()
		i++
	}); n > 2 {
		t.Errorf("allocations of a failure that is told: got %v, want 2 at most", n)
	}
}

func allocations(t *testing.T, o lockout.Options) {
	t.Helper()
	k := lockout.NewSmall("", o, 4096)
	v, err := k.Prepare(lockout.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("secret")
	network := netip.MustParsePrefix("192.0.2.1/32")
	name := "anna@example.org"
	for _, end := range []ending{undecided, failed, succeeded} {
		once := func() {
			try, _ := v.Attempt(lockout.Login{Network: k.Network(network), User: k.User(name), Secret: k.Secret(secret)})
			end.of(&try)
		}
		once()
		if n := testing.AllocsPerRun(100, once); n != 0 {
			t.Errorf("allocations a login: got %v, want 0", n)
		}
	}
}
