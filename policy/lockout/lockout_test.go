package lockout_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/policy/lockout"
)

// A rig is a Keeper, its View, and the events it told.
type rig struct {
	*testing.T
	keeper *lockout.Keeper
	view   *lockout.View

	mu     sync.Mutex
	events []lockout.Event
}

// note is where its events go.
func (r *rig) note(e lockout.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func newRig(t *testing.T, c lockout.Config) *rig {
	t.Helper()
	r := &rig{T: t}
	r.keeper = lockout.NewSmall("", lockout.Options{Events: r.note}, 4096)
	r.use(c)
	return r
}

func (r *rig) use(c lockout.Config) {
	r.Helper()
	v, err := r.keeper.Prepare(c)
	if err != nil {
		r.Fatal(err)
	}
	r.view = v
	r.keeper.Use(v)
}

func (r *rig) run() {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	done := make(chan error)
	go func() { done <- r.keeper.Run(ctx) }()
	r.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.Errorf("Run: got %v, want nil", err)
		}
	})
}

func (r *rig) login(addr, user, secret string) lockout.Login {
	p, err := netip.MustParseAddr(addr).Prefix(32)
	if err != nil {
		r.Fatal(err)
	}
	return lockout.Login{
		Network: r.keeper.Network(p), User: r.keeper.User(user), Secret: r.keeper.Secret([]byte(secret)), Name: user,
	}
}

// try logs in with a secret that is right or not, and says what came of it.
func (r *rig) try(addr, user, secret string, right bool) lockout.Verdict {
	t, v := r.view.Attempt(r.login(addr, user, secret))
	switch {
	case v.Action == lockout.Refuse:
	case right:
		t.Succeeded()
	default:
		t.Failed()
	}
	return v
}

func (r *rig) want(what string, got lockout.Verdict, want lockout.Action, wait time.Duration) {
	r.Helper()
	if got.Action != want || got.Wait != wait {
		r.Errorf("%s: got %+v, want action %d and wait %v", what, got, want, wait)
	}
}

func (r *rig) wantEvents(kinds ...lockout.Kind) {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var got []lockout.Kind
	for _, e := range r.events {
		got = append(got, e.Kind)
	}
	if fmt.Sprint(got) != fmt.Sprint(kinds) {
		r.Errorf("events: got %v, want %v", got, kinds)
	}
}

const here, there = "192.0.2.1", "198.51.100.1"

// TestUserFailures: the delay grows, the lockout comes, ends, and the next one is longer; another network, and another
// user, are not touched.
func TestUserFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, lockout.DefaultConfig())
		r.run()
		waits := []time.Duration{0, 0, 0, 1, 2, 4, 8, 15, 15, 15}
		for i, wait := range waits {
			v := r.try(here, "anna", fmt.Sprint("guess", i), false)
			if want := wait * time.Second; v.Wait != want || v.Action == lockout.Refuse {
				t.Errorf("failure %d: got %+v, want a wait of %v", i+1, v, want)
			}
		}
		r.want("after 10 failures", r.try(here, "anna", "right", true), lockout.Refuse, 0)
		r.want("another network", r.try(there, "anna", "right", true), lockout.GoOn, 0)
		r.want("another user", r.try(here, "bert", "right", true), lockout.GoOn, 0)
		list := r.keeper.List()
		if len(list) != 1 || list[0].Name != "anna" || list[0].Cause != lockout.UserFailures || list[0].Failures != 10 ||
			list[0].Until.Sub(list[0].Since) != 5*time.Minute || list[0].Times != 1 {
			t.Errorf("List: got %+v, want anna for 5m", list)
		}
		<-time.After(5*time.Minute + 2*time.Second)
		r.wantEvents(lockout.Started, lockout.Ended)
		if list := r.keeper.List(); len(list) != 0 {
			t.Errorf("List after the end: got %+v, want none", list)
		}
		for i := range 10 {
			r.try(here, "anna", fmt.Sprint("more", i), false)
		}
		if list := r.keeper.List(); len(list) != 1 || list[0].Until.Sub(list[0].Since) != 10*time.Minute || list[0].Times != 2 {
			t.Errorf("List the second time: got %+v, want 10m", list)
		}
		<-time.After(25 * time.Hour)
		for i := range 10 {
			r.try(here, "anna", fmt.Sprint("late", i), false)
		}
		if list := r.keeper.List(); len(list) != 1 || list[0].Times != 1 {
			t.Errorf("List after a quiet day: got %+v, want a first lockout", list)
		}
	})
}

// TestSameSecret: a mail client with an old password counts once, for its user and for its office.
func TestSameSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, lockout.DefaultConfig())
		for range 1000 {
			r.want("the old password", r.try(here, "anna", "old", false), lockout.GoOn, 0)
			<-time.After(5 * time.Minute)
		}
		r.want("the new one", r.try(here, "anna", "new", true), lockout.GoOn, 0)
		r.wantEvents()
	})
}

// TestWindow: failures are forgotten after their window.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, lockout.DefaultConfig())
		for i := range 100 {
			r.want("slow guesses", r.try(here, "anna", fmt.Sprint(i), false), lockout.GoOn, 0)
			<-time.After(6 * time.Minute)
		}
	})
}

// TestNetworkFailures: a network that fails with many users is locked out, but not its known-good users.
func TestNetworkFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lockout.DefaultConfig()
		c.Spray.Users = 0
		r := newRig(t, c)
		r.want("anna before", r.try(here, "anna", "right", true), lockout.GoOn, 0)
		for i := range 100 {
			if v := r.try(here, fmt.Sprint("user", i), "x", false); v.Action == lockout.Refuse {
				t.Fatalf("failure %d: got refused before the threshold", i)
			}
		}
		r.want("a stranger", r.try(here, "carl", "right", true), lockout.Refuse, 0)
		r.want("the known-good", r.try(here, "anna", "right", true), lockout.GoOn, 0)
		if e := r.events[0]; len(r.events) != 2 || e.Kind != lockout.SprayDetected || r.events[1].Cause != lockout.NetworkFailures {
			t.Errorf("events: got %+v, want a spray with one password and a lockout of the network", r.events)
		}
	})
}

// TestKnownBudget: a known-good pair has 10 different wrong secrets an hour, and no delay; then all are answered as wrong.
func TestKnownBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, lockout.DefaultConfig())
		r.try(here, "anna", "right", true)
		for i := range 10 {
			r.want("a wrong one", r.try(here, "anna", fmt.Sprint("guess", i), false), lockout.GoOn, 0)
			if i < 9 {
				r.want("the right one between", r.try(here, "anna", "right", true), lockout.GoOn, 0)
			}
		}
		r.want("a wrong one again", r.try(here, "anna", "guess3", false), lockout.GoOn, 0)
		r.want("the 11th", r.try(here, "anna", "guess10", false), lockout.Refuse, 0)
		r.want("the right one then", r.try(here, "anna", "right", true), lockout.Refuse, 0)
		r.want("a neighbour", r.try(here, "bert", "right", true), lockout.GoOn, 0)
		<-time.After(time.Hour)
		r.want("an hour later", r.try(here, "anna", "right", true), lockout.GoOn, 0)
		r.wantEvents()
	})
}

// TestInFlight: logins at once are counted before they have failed, and given back when they did not.
func TestInFlight(t *testing.T) {
	for _, known := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, lockout.DefaultConfig())
			if known {
				r.try(here, "anna", "right", true)
			}
			var out []lockout.Try
			for i := range 10 {
				try, v := r.view.Attempt(r.login(here, "anna", fmt.Sprint(i)))
				r.want("one of ten at once", v, lockout.GoOn, 0)
				out = append(out, try)
			}
			_, v := r.view.Attempt(r.login(here, "anna", "one more"))
			r.want("the 11th", v, lockout.Refuse, 0)
			for i := range out {
				out[i].Undecided()
				out[i].Failed() // has ended
			}
			r.want("when nobody could decide", r.try(here, "anna", "right", true), lockout.GoOn, 0)
			r.wantEvents()
		})
	}
}

// TestTwice: a guess that is sent twice at once, of which one is called back, counts as any other.
func TestTwice(t *testing.T) {
	for _, known := range []bool{false, true} {
		r := newRig(t, lockout.DefaultConfig())
		if known {
			r.try(here, "anna", "right", true)
		}
		for i := range 10 {
			first, _ := r.view.Attempt(r.login(here, "anna", fmt.Sprint(i)))
			second, v := r.view.Attempt(r.login(here, "anna", fmt.Sprint(i)))
			if v.Action == lockout.Refuse {
				t.Fatalf("guess %d: got refused, want it to go on", i)
			}
			first.Undecided()
			second.Failed()
		}
		r.want("after ten", r.try(here, "anna", "right", true), lockout.Refuse, 0)
	}
}

// TestDevices: any number of logins at once with one secret go on; that many are on their way keeps guesses out all the
// same, though their like was called back.
func TestDevices(t *testing.T) {
	r := newRig(t, lockout.DefaultConfig())
	var out []lockout.Try
	for range 50 {
		try, v := r.view.Attempt(r.login(here, "anna", "right"))
		r.want("one of 50 devices", v, lockout.GoOn, 0)
		out = append(out, try)
	}
	for i := range out {
		out[i].Succeeded()
	}
	through := 0
	for i := range 50 {
		first, _ := r.view.Attempt(r.login(here, "anna", fmt.Sprint(i)))
		if _, v := r.view.Attempt(r.login(here, "anna", fmt.Sprint(i))); v.Action != lockout.Refuse {
			through++ // and stays on its way
		}
		first.Undecided()
	}
	if through > 10 {
		t.Errorf("guesses on their way: got %d, want at most 10", through)
	}
}

// TestKnownFor: a pair is known for as long as is configured.
func TestKnownFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lockout.DefaultConfig()
		c.KnownFor = 48 * time.Hour
		r := newRig(t, c)
		r.try(here, "anna", "right", true)
		lock := func() {
			if err := r.keeper.Add(netip.MustParsePrefix(here+"/32"), "", time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(47 * time.Hour)
		lock()
		r.want("known", r.try(here, "anna", "right", true), lockout.GoOn, 0)
		<-time.After(48 * time.Hour)
		lock()
		r.want("not known any more", r.try(here, "anna", "right", true), lockout.Refuse, 0)
	})
}

// TestSuccessEndsLockout: who succeeds while its pair is being locked out is known from then on.
func TestSuccessEndsLockout(t *testing.T) {
	r := newRig(t, lockout.DefaultConfig())
	slow, _ := r.view.Attempt(r.login(here, "anna", "right"))
	for i := range 10 {
		r.try(here, "anna", fmt.Sprint(i), false)
	}
	slow.Succeeded()
	slow.Succeeded()
	r.want("after it", r.try(here, "anna", "right", true), lockout.GoOn, 0)
}

// TestSpray: many users from one network, and one password on many users, are told of once, and locked out where wanted.
func TestSpray(t *testing.T) {
	for _, lock := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := lockout.DefaultConfig()
			c.Spray.Lockout = lock
			r := newRig(t, c)
			r.try(here, "known", "right", true)
			for i := range 25 {
				r.try(here, fmt.Sprint("user", i), fmt.Sprint("x", i), false)
			}
			kinds := []lockout.Kind{lockout.SprayDetected}
			action := lockout.Delay
			if lock {
				kinds, action = append(kinds, lockout.Started), lockout.Refuse
			}
			r.wantEvents(kinds...)
			if got := r.try(here, "other", "right", true).Action; got != action {
				t.Errorf("another user with lockout %v: got %v, want %v", lock, got, action)
			}
			r.want("a known-good one", r.try(here, "known", "right", true), lockout.GoOn, 0)
			if e := r.events[0]; e.Cause != lockout.ManyUsers || e.Users != 20 {
				t.Errorf("event: got %+v, want 20 users", e)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			c := lockout.DefaultConfig()
			c.Spray.Lockout = lock
			r := newRig(t, c)
			for i := range 30 {
				r.try(fmt.Sprint("203.0.113.", i/2), fmt.Sprint("user", i), "Summer2026!", false)
			}
			r.try(here, "own slip", "Summer2026!", false)
			r.want("who tried it once", r.try(here, "anna", "right", true), lockout.GoOn, 0)
			want := lockout.GoOn
			if lock {
				want = lockout.Refuse
			}
			if got := r.try("203.0.113.12", "anna", "right", true).Action; got != want {
				t.Errorf("who tried it twice with lockout %v: got %v, want %v", lock, got, want)
			}
			if e := r.events[0]; e.Kind != lockout.SprayDetected || e.Cause != lockout.OnePassword || e.Users != 20 {
				t.Errorf("event: got %+v, want one password on 20 users", e)
			}
		})
	}
}

func TestDisabled(t *testing.T) {
	r := newRig(t, lockout.Config{})
	for i := range 1000 {
		r.want("off", r.try(here, "anna", fmt.Sprint(i), false), lockout.GoOn, 0)
	}
	if n := r.keeper.Keys(); n != 0 {
		t.Errorf("keys: got %d, want 0", n)
	}
}

// TestReload: what is remembered outlives a View, and the new one decides by it.
func TestReload(t *testing.T) {
	r := newRig(t, lockout.DefaultConfig())
	for i := range 5 {
		r.try(here, "anna", fmt.Sprint(i), false)
	}
	c := lockout.DefaultConfig()
	c.User.LockoutAfter = 5
	r.use(c)
	r.want("with fewer failures allowed", r.try(here, "anna", "right", true), lockout.Refuse, 0)
}

func TestConfig(t *testing.T) {
	lockout.DefaultConfig().Validate(func(key, problem string) { t.Errorf("the defaults: %s %s", key, problem) })
	c := lockout.DefaultConfig()
	c.Window, c.Delay, c.MaxDelay, c.MaxDuration = 0, time.Minute, time.Second, time.Second
	c.User.DelayAfter, c.KnownFailures, c.Spray.Window = -1, 1_000_000, -1
	got := map[string]bool{}
	c.Validate(func(key, _ string) { got[key] = true })
	for _, key := range []string{"window", "delay", "max_delay", "max_duration", "user.delay_after", "known_failures", "spray.window"} {
		if !got[key] {
			t.Errorf("%s: got no fault", key)
		}
	}
	if len(got) != 7 {
		t.Errorf("faults: got %v, want 7", got)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	k := lockout.NewSmall("", lockout.Options{Registerer: reg}, 100)
	if err := k.Add(netip.MustParsePrefix(here+"/32"), "", time.Hour); err != nil {
		t.Fatal(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: got %v, %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(reg, "popgate_lockouts", "popgate_lockouts_started_total", "popgate_lockout_keys"); n != 6 || err != nil {
		t.Errorf("series: got %d, %v, want 6", n, err)
	}
}
