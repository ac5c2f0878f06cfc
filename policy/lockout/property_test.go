package lockout_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/policy/lockout"
)

func loginOf(k *lockout.Keeper, network, user, secret int) lockout.Login {
	addr := netip.AddrFrom4([4]byte{10, byte(network >> 16), byte(network >> 8), byte(network)})
	return lockout.Login{
		Network: k.Network(netip.PrefixFrom(addr, 32)), User: k.User(fmt.Sprint(user)), Secret: k.Secret(fmt.Append(nil, secret)),
	}
}

// A step is something that somebody does: a login and its end, after a while.
type step struct {
	network, user, secret int
	end                   int
	wait                  time.Duration
}

func (s step) play(k *lockout.Keeper, v *lockout.View) {
	<-time.After(s.wait)
	try, verdict := v.Attempt(loginOf(k, s.network, s.user, s.secret))
	switch {
	case verdict.Action == lockout.Refuse:
	case s.end == 0:
		try.Succeeded()
	case s.end == 1:
		try.Undecided()
	default:
		try.Failed()
	}
}

// steps draws what others do than user 0 in network 0; in that network only where neighbours is set.
func steps(t *rapid.T, neighbours bool) []step {
	first := 1
	if neighbours {
		first = 0
	}
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		s := step{
			network: rapid.IntRange(first, 3).Draw(t, "network"), user: rapid.IntRange(0, 5).Draw(t, "user"),
			secret: rapid.IntRange(0, 20).Draw(t, "secret"), end: rapid.IntRange(0, 9).Draw(t, "end"),
			wait: time.Duration(rapid.IntRange(0, 100).Draw(t, "wait")) * time.Second,
		}
		if s.network == 0 && s.user == 0 {
			s.user = 1
		}
		return s
	}), 1, 200).Draw(t, "steps")
}

// bubble runs f in time of its own. What f says is the failure; "" is none. A property draws before, for rapid's own
// way out of a failing one does not lead through a bubble.
func bubble(t *testing.T, r *rapid.T, f func(k *lockout.Keeper, v *lockout.View) string) {
	user := lockout.Threshold{DelayAfter: rapid.IntRange(0, 3).Draw(r, "delay after"), LockoutAfter: rapid.IntRange(1, 5).Draw(r, "lockout after")}
	network := lockout.Threshold{DelayAfter: rapid.IntRange(0, 5).Draw(r, "network delay"), LockoutAfter: rapid.IntRange(1, 10).Draw(r, "network lockout")}
	var failure string
	synctest.Test(t, func(*testing.T) {
		k := lockout.NewSmall("", lockout.Options{}, 1024)
		c := lockout.DefaultConfig()
		c.User, c.Network = user, network
		c.Spray = lockout.Spray{Window: time.Hour, Users: 3, UsersPerPassword: 3, Lockout: true}
		v, err := k.Prepare(c)
		if err != nil {
			failure = err.Error()
			return
		}
		k.Use(v)
		failure = f(k, v)
	})
	if failure != "" {
		r.Fatal(failure)
	}
}

// TestNobodyLocksOutAnother: whatever others do from their networks, with the user's own name too, a user who comes
// from elsewhere is neither refused nor delayed.
func TestNobodyLocksOutAnother(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		all := steps(r, false)
		bubble(t, r, func(k *lockout.Keeper, v *lockout.View) string {
			for _, s := range all {
				s.play(k, v)
			}
			if _, got := v.Attempt(loginOf(k, 0, 0, 0)); got != (lockout.Verdict{}) {
				return fmt.Sprintf("a user from elsewhere: got %+v, want to go on at once", got)
			}
			return ""
		})
	})
}

// TestKnownNeverRefusedForOthers: whatever the neighbours in its own network do with other names, and anybody elsewhere
// with any, a known-good pair goes on at once.
func TestKnownNeverRefusedForOthers(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		all := steps(r, true)
		bubble(t, r, func(k *lockout.Keeper, v *lockout.View) string {
			try, _ := v.Attempt(loginOf(k, 0, 0, 0))
			try.Succeeded()
			for i, s := range all {
				s.play(k, v)
				try, got := v.Attempt(loginOf(k, 0, 0, 0))
				if got != (lockout.Verdict{}) {
					return fmt.Sprintf("the known-good pair after step %d: got %+v, want to go on at once", i, got)
				}
				try.Undecided()
			}
			return ""
		})
	})
}

// TestGuessesBounded: one user's different wrong secrets from one network that get through are never more than the
// threshold in a window, or the budget in an hour, however many are on their way at once.
func TestGuessesBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := lockout.NewSmall("", lockout.Options{}, 1024)
		known := rapid.Bool().Draw(t, "known")
		c := lockout.DefaultConfig()
		c.Network, c.Spray = lockout.Threshold{}, lockout.Spray{Window: time.Hour}
		v, err := k.Prepare(c)
		if err != nil {
			t.Fatal(err)
		}
		if known {
			try, _ := v.Attempt(loginOf(k, 0, 0, 0))
			try.Succeeded()
		}
		var out []lockout.Try
		through := 0
		for i := range rapid.IntRange(1, 100).Draw(t, "steps") {
			if len(out) > 0 && rapid.Bool().Draw(t, "land") {
				out[0].Failed()
				out = out[1:]
			}
			if try, got := v.Attempt(loginOf(k, 0, 0, 1+i)); got.Action != lockout.Refuse {
				through++
				out = append(out, try)
			}
		}
		if through > 10 {
			t.Fatalf("known %v: got %d guesses through, want at most 10", known, through)
		}
	})
}

// TestBounded: who makes up users and addresses without end grows nothing, and pushes out neither the known-good pairs nor
// the lockouts.
func TestBounded(t *testing.T) {
	const keys = 1024
	k := lockout.NewSmall("", lockout.Options{}, keys)
	v, err := k.Prepare(lockout.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	good := loginOf(k, 0, 0, 0)
	try, _ := v.Attempt(good)
	try.Succeeded()
	bad := netip.MustParsePrefix("192.0.2.1/32")
	if err := k.Add(bad, "", time.Hour); err != nil {
		t.Fatal(err)
	}
	for i := range 50_000 {
		try, _ := v.Attempt(loginOf(k, 1+i, i, i))
		try.Failed()
		// And who has an account of his own, from as many addresses.
		try, _ = v.Attempt(loginOf(k, 100_000+i, 7, 7))
		try.Succeeded()
	}
	if n := k.Keys(); n > 6*keys {
		t.Errorf("keys: got %d, want at most %d", n, 6*keys)
	}
	if !k.Known(good.Network, good.User) || k.KnownLen() > 100 {
		t.Errorf("known-good: got %v of %d, want the pair and few of one user's", k.Known(good.Network, good.User), k.KnownLen())
	}
	if len(k.List()) != 1 {
		t.Errorf("lockouts: got %+v, want the one", k.List())
	}
}

// TestPushedOut: who has himself locked out from a great many networks, as one with a /32 of IPv6 can, pushes out lockouts
// of his kind, whose end is told, but neither an operator's nor a known-good pair; and their number stays right.
func TestPushedOut(t *testing.T) {
	const keys = 256
	var started, ended int
	k := lockout.NewSmall("", lockout.Options{Events: func(e lockout.Event) {
		switch e.Kind {
		case lockout.Started:
			started++
		case lockout.Ended:
			ended++
		}
	}}, keys)
	v, err := k.Prepare(lockout.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	good := loginOf(k, 0, 0, 0)
	try, _ := v.Attempt(good)
	try.Succeeded()
	bad := netip.MustParsePrefix("192.0.2.1/32")
	if err := k.Add(bad, "", time.Hour); err != nil {
		t.Fatal(err)
	}
	for i := range 4 * keys {
		var a [16]byte
		binary.BigEndian.PutUint32(a[:], 0x20010db8)
		binary.BigEndian.PutUint32(a[4:], uint32(i)<<16)
		n := k.Network(netip.PrefixFrom(netip.AddrFrom16(a), 64))
		for j := range 10 {
			try, _ := v.Attempt(lockout.Login{Network: n, User: k.User("anna"), Secret: k.Secret(fmt.Append(nil, i, j))})
			try.Failed()
		}
	}
	list := k.List()
	if len(list) > keys || !slices.ContainsFunc(list, func(l lockout.Lockout) bool { return l.Network == bad }) {
		t.Errorf("lockouts: got %d, want %d at most, and the operator's among them", len(list), keys)
	}
	if started != 4*keys+1 || started-ended != len(list) {
		t.Errorf("events: got %d started and %d ended, want %d started, and as many ended as are not in force (%d are)", started, ended, 4*keys+1, len(list))
	}
	if !k.Known(good.Network, good.User) {
		t.Error("the known-good pair was pushed out")
	}
	if got := k.Active(); got != len(list) {
		t.Errorf("popgate_lockouts: got %v, want %d", got, len(list))
	}
}
