package policy_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/lockout"
)

// A stay is a visit as a model of it: what it may be asked next.
type stay struct {
	*policy.Visit
	began, held, accepted, settled bool
}

// TestEverythingGivenBack walks any number of visits through any sequence of calls, and ends them at any stage.
func TestEverythingGivenBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := func(label string) int { return rapid.IntRange(0, 3).Draw(t, label) }
		count := func(label string) limit.Count { return limit.Count(some(label)) }
		rate := func(label string) limit.Rate { return per(some(label), time.Hour) }
		k := policy.New(policy.Options{})
		g := gateOf(t, k, policy.Parts{
			Lockout: lockout.Config{},
			Limits: policy.Config{
				Sessions: 2 * some("sessions"), SessionsPerIP: some("per ip"), SessionsPerUser: some("per user"),
				LoginsPerIP: rate("failures"), LoginsPerUser: rate("logins"),
				Listener: limit.ClientLimits{Handshakes: count("handshakes")},
				Network:  limit.NetworkLimits{IPv4Prefix: 24, IPv6Prefix: 48, Sessions: count("network")},
				User:     limit.UserLimits{LoginDelay: limit.Delay(some("delay")) * limit.Delay(time.Minute)},
				Tenant:   limit.TenantLimits{Sessions: count("tenant"), Failures: rate("tenant failures"), Logins: rate("tenant logins")},
				Exempt:   prefixes("192.0.2.2/32"),
			},
		})
		var stays []*stay
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			act := rapid.SampledFrom(acts).Draw(t, "act")
			if act == "admit" || len(stays) == 0 {
				addr := rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}).Draw(t, "addr")
				if v, err := g.Admit(t.Context(), client(addr)); err == nil {
					stays = append(stays, &stay{Visit: v})
				}
			} else {
				i := rapid.IntRange(0, len(stays)-1).Draw(t, "visit")
				stays[i].step(t, act)
				if act == "close" {
					stays = append(stays[:i], stays[i+1:]...)
				}
			}
		}
		turns := k.Turns()
		for _, v := range stays {
			v.Close()
		}
		if _, _, _, n := k.Held(); n != 0 {
			t.Fatalf("all closed: still %d places are held", n)
		}
		if now := k.Turns(); now > turns {
			t.Fatalf("closing took turns: got %d, want at most %d", now, turns)
		}
	})
}

var acts = []string{"admit", "handshake", "handshaken", "attempt", "attempt", "hold", "enter", "enter", "done", "done", "settle", "close"}

// step asks the visit for one thing, if it may be asked that now.
func (s *stay) step(t *rapid.T, act string) {
	ctx := t.Context()
	user := rapid.SampledFrom([]string{"anna", "berta"}).Draw(t, "user")
	switch {
	case act == "handshake":
		_ = s.Handshake(ctx)
	case act == "handshaken":
		s.Handshaken()
	case act == "close":
		s.Close()
		s.Close()
	case s.settled:
	case act == "attempt":
		s.accepted, s.held = false, false
		s.began = s.Attempt(ctx, query(user, "x")) == nil
	case act == "hold" && s.began:
		s.held = s.Hold(ctx) == nil
	case act == "enter" && !s.accepted:
		_ = s.Enter(ctx, routeOf(user, rapid.SampledFrom([]string{"", "acme"}).Draw(t, "tenant")))
	case act == "done":
		o := policy.Outcome(rapid.IntRange(int(policy.Undecided), int(policy.Barred)).Draw(t, "outcome"))
		s.accepted = s.Done(ctx, o) == nil && o == policy.Accepted
	case act == "settle" && s.accepted:
		s.Settle()
		s.settled = true
	}
}

// TestGivenBackWithLockouts is the same with lockouts, many goroutines and one store of entries: after everybody has left nothing is
// held, and where nobody failed no turn is out.
func TestGivenBackWithLockouts(t *testing.T) {
	k := policy.New(policy.Options{})
	g := gateOf(t, k, policy.Parts{Lockout: lockout.DefaultConfig(), Limits: policy.Config{
		Sessions: 1000, SessionsPerIP: 1000, SessionsPerUser: 1000, LoginsPerIP: per(1000, time.Hour),
		Tenant: limit.TenantLimits{Sessions: 1000, Failures: per(1000, time.Hour)},
		IP:     limit.ClientLimits{Handshakes: 10}, Network: limit.DefaultNetwork(),
	}})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 300 {
				v, err := g.Admit(t.Context(), client(fmt.Sprintf("192.0.2.%d", i)))
				if err != nil {
					t.Errorf("admit: %v", err)
					return
				}
				leave(t, v, i, j)
				v.Close()
			}
		})
	}
	all.Wait()
	if _, _, _, n := k.Held(); n != 0 {
		t.Errorf("all closed: still %d places are held", n)
	}
	if n := k.Turns(); n != 0 {
		t.Errorf("nobody has failed: still %d keys have turns out", n)
	}
}

// leave goes as far as j says.
func leave(t *testing.T, v *policy.Visit, i, j int) {
	ctx, user := t.Context(), fmt.Sprintf("user%d-%d", i, j%7)
	stages := []func() error{
		func() error { return v.Handshake(ctx) },
		func() error { return v.Attempt(ctx, query(user, "secret of "+user)) },
		func() error { return v.Hold(ctx) },
		func() error { return v.Enter(ctx, routeOf(user, "acme")) },
		func() error {
			return v.Done(ctx, []policy.Outcome{policy.Undecided, policy.Barred, policy.Accepted}[j%3])
		},
	}
	for _, stage := range stages[:j%(len(stages)+1)] {
		if err := stage(); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	if j%(len(stages)+1) == len(stages) && j%3 == 2 {
		v.Settle()
	}
}

// TestNothingOfOthers: an entry that was another visit's, or served the login before, brings nothing of it along.
func TestNothingOfOthers(t *testing.T) {
	k := policy.New(policy.Options{})
	c := access.Config{
		Lists: []access.ListConfig{{Name: "odd", Networks: []string{"192.0.2.1"}}},
		Rules: []access.RuleConfig{
			{Name: "look", Action: "log", Users: []string{"anna@example.org"}, Networks: access.NetworksRule{Deny: []string{"odd"}}},
			{Name: "strict", Action: "deny", Users: []string{"berta@example.org"}, TLS: access.TLSRule{ClientCertificate: true}},
		},
	}
	g := gateOf(t, k, policy.Parts{Access: c, Lockout: strict(), Limits: policy.Config{SessionsPerUser: 1}})
	for range 100 {
		v := admit(t, g, "192.0.2.1")
		enter(t, v, query("anna", "x"), route("anna"))
		if got := v.Verdict(); got.Rule != "look" || got.Action != access.Log {
			t.Fatalf("got the verdict %+v, want that of the rule look", got)
		}
		if err := v.Done(t.Context(), policy.Undecided); err != nil {
			t.Fatal(err)
		}
		if got := v.Verdict(); got.Rule != "look" {
			t.Fatalf("after Done: got the verdict %+v, want that of the rule look, for the record", got)
		}
		if err := v.Attempt(t.Context(), query("cleo", "x")); err != nil || v.Verdict() != (access.Verdict{}) {
			t.Fatalf("the next login: got %v, the verdict %+v, want none", err, v.Verdict())
		}
		enter(t, v, query("berta", "x"), route("berta"))
		enter(t, v, query("cleo", "x"), route("cleo")) // barred was berta
		if err := v.Done(t.Context(), policy.Accepted); err != nil || v.Verdict() != (access.Verdict{}) {
			t.Fatalf("the login after one that was barred: got %v, the verdict %+v, want none", err, v.Verdict())
		}
		enter(t, v, query("berta", "x"), route("berta"))
		v.Close()
		other := admit(t, g, "192.0.2.9")
		if got := other.Verdict(); got != (access.Verdict{}) || other.Asks() != 0 {
			t.Fatalf("a new visit: got the verdict %+v and %d asks, want none", got, other.Asks())
		}
		if err := other.Done(t.Context(), policy.Accepted); err != nil {
			t.Fatalf("a new visit: got %v", err)
		}
		other.Close()
	}
}
