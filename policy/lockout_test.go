package policy_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/lockout"
)

// locking is a keeper and a gate with strict lockouts, and the limits.
func locking(t *testing.T, c policy.Config) (*policy.Keeper, *policy.Gate) {
	t.Helper()
	k := policy.New(policy.Options{})
	return k, gateOf(t, k, policy.Parts{Limits: c, Lockout: strict()})
}

// lockOutNetwork has so many users fail from an address that it is locked out.
func lockOutNetwork(t *testing.T, k *policy.Keeper, g *policy.Gate, addr string) {
	t.Helper()
	for i := range strict().Network.LockoutAfter {
		v := admit(t, g, addr)
		fails(t, v, fmt.Sprintf("stranger%d", i), "guess")
		v.Close()
	}
	if l := k.Lockouts().List(); len(l) != 1 || l[0].User != 0 {
		t.Fatalf("got the lockouts %+v, want one of %s", l, addr)
	}
}

func wantLockedOut(t *testing.T, v *policy.Visit, user, secret string) {
	t.Helper()
	if err := v.Attempt(t.Context(), query(user, secret)); !errors.Is(err, policy.ErrLockedOut) {
		t.Fatalf("attempt of %s: got %v, want %v", user, err, policy.ErrLockedOut)
	}
}

// TestLockedOut: a user is locked out from where it failed too often, from there alone, and for a time.
func TestLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, g := locking(t, policy.Config{LoginsPerIP: per(1000, time.Hour), SessionsPerIP: 1000})
		v := admit(t, g, "192.0.2.1")
		for i := range strict().User.LockoutAfter {
			fails(t, v, "anna", fmt.Sprintf("guess %d", i))
		}
		turns := k.Turns()
		for range 3 {
			wantLockedOut(t, v, "anna", "secret") // whatever the secret is
			if n := v.Asks(); n != 1 {
				t.Fatalf("got %d asks of who is locked out, want its place alone", n)
			}
			if err := v.Done(t.Context(), policy.Undecided); err != nil {
				t.Fatal(err)
			}
		}
		if got := k.Turns(); got != turns {
			t.Errorf("got turns of %d keys, want %d as before", got, turns)
		}
		login(t, v, "berta", policy.Accepted, "")
		login(t, admit(t, g, "192.0.2.2"), "anna", policy.Accepted, "") // never by the user's name alone
		<-time.After(strict().Duration)
		login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
	})
}

// TestUndecidedLocksNobodyOut: a login that nobody has decided counts for nothing, at whatever stage it ends.
func TestUndecidedLocksNobodyOut(t *testing.T) {
	k, g := locking(t, policy.Config{})
	for i := range 10 * strict().Network.LockoutAfter {
		v := admit(t, g, "192.0.2.1")
		if err := v.Attempt(t.Context(), query("anna", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			if err := v.Done(t.Context(), policy.Undecided); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := v.Attempt(t.Context(), query("berta", fmt.Sprint(i))); err != nil { // a new one ends the one before
				t.Fatal(err)
			}
		}
		v.Close()
	}
	if l := k.Lockouts().List(); len(l) != 0 {
		t.Errorf("got the lockouts %+v, want none", l)
	}
	login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
}

// TestHoldWaits: what failures before cost is waited for in Hold, the right password too, and the end of ctx ends it.
func TestHoldWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, g := locking(t, policy.Config{})
		v := admit(t, g, "192.0.2.1")
		for i, want := range []time.Duration{0, 0, time.Second, 2 * time.Second} {
			if i == 3 {
				break // the fourth failure would lock her out
			}
			began := time.Now()
			fails(t, v, "anna", fmt.Sprintf("guess %d", i))
			if got := time.Since(began); got != want {
				t.Errorf("login %d: got %v, want %v", i+1, got, want)
			}
		}
		if err := v.Attempt(t.Context(), query("anna", "secret")); err != nil {
			t.Fatal(err)
		}
		gone := errors.New("the client is gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		began := time.Now()
		if err := v.Hold(ctx); !errors.Is(err, gone) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v, want %v after 1s", err, time.Since(began), gone)
		}
		if err := v.Done(t.Context(), policy.Undecided); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		login(t, v, "anna", policy.Accepted, "")
		if got := time.Since(began); got != 2*time.Second {
			t.Errorf("the right password: got %v, want 2s", got)
		}
		began = time.Now()
		login(t, v, "anna", policy.Accepted, "")
		if got := time.Since(began); got != 0 {
			t.Errorf("who is known: got %v, want no wait", got)
		}
		began = time.Now()
		login(t, v, "berta", policy.Accepted, "")
		if got := time.Since(began); got != 0 {
			t.Errorf("the login after one that waited: got %v, want no wait", got)
		}
	})
}

// TestExemptNotLockedOut: exempt networks are neither locked out nor delayed, and no failure of theirs counts for it.
func TestExemptNotLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, g := locking(t, policy.Config{Exempt: prefixes("192.0.2.0/24")})
		began := time.Now()
		for i := range 10 * strict().Network.LockoutAfter {
			fails(t, admit(t, g, "192.0.2.1"), "anna", fmt.Sprintf("guess %d", i))
		}
		if got := time.Since(began); got != 0 {
			t.Errorf("got delays of %v, want none", got)
		}
		if l := k.Lockouts().List(); len(l) != 0 {
			t.Errorf("got the lockouts %+v, want none", l)
		}
		if err := k.Lockouts().Add(prefixes("192.0.2.1/32")[0], "", time.Hour); err != nil {
			t.Fatal(err)
		}
		login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
	})
}

// TestKnownGood: who has logged in from a network is not touched by what others did there, and still not free to guess.
func TestKnownGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := per(1, time.Hour)
		k, g := locking(t, policy.Config{
			All: limit.AllLimits{Failures: per(strict().Network.LockoutAfter+1, time.Hour)}, Listener: limit.ClientLimits{Failures: per(100, time.Hour)},
			IP: limit.ClientLimits{Failures: per(100, time.Hour)}, Network: limit.NetworkLimits{IPv4Prefix: 24, IPv6Prefix: 48},
			Tenant: limit.TenantLimits{Failures: one},
		})
		login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
		lockOutNetwork(t, k, g, "192.0.2.1")
		wantLockedOut(t, admit(t, g, "192.0.2.1"), "berta", "secret")
		began := time.Now()
		login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
		if got := time.Since(began); got != 0 {
			t.Errorf("got a delay of %v, want none", got)
		}
		// A budget of her own, beyond which even the right password is answered as wrong.
		v := admit(t, g, "192.0.2.1")
		turns := k.Turns()
		for i := range strict().KnownFailures {
			fails(t, v, "anna", fmt.Sprintf("guess %d", i))
			fails(t, v, "anna", fmt.Sprintf("guess %d", i)) // the same again counts once
		}
		if got := k.Turns(); got != turns {
			t.Errorf("got turns of %d keys, want %d: she has a budget of her own", got, turns)
		}
		wantLockedOut(t, v, "anna", "secret")
		<-time.After(time.Hour)
		login(t, v, "anna", policy.Accepted, "")
	})
}

// TestKnownGoodPassesLimits: no limit of failures wider than her own touches who is known, and others are refused by it.
func TestKnownGoodPassesLimits(t *testing.T) {
	two := per(2, time.Hour)
	networks := limit.DefaultNetwork()
	networks.Failures = two
	for _, tt := range []struct {
		want   string
		limits policy.Config
	}{
		{"per_ip.failures", policy.Config{LoginsPerIP: two}},
		{"per_network.failures", policy.Config{Network: networks}},
		{"per_listener.failures", policy.Config{Listener: limit.ClientLimits{Failures: two}}},
		{"all.failures", policy.Config{All: limit.AllLimits{Failures: two}}},
		{"per_tenant.failures", policy.Config{Tenant: limit.TenantLimits{Failures: two}}},
	} {
		t.Run(tt.want, func(t *testing.T) {
			if tt.limits.Network.IPv4Prefix == 0 {
				tt.limits.Network = limit.DefaultNetwork()
			}
			k := policy.New(policy.Options{})
			g := gateOf(t, k, policy.Parts{Limits: tt.limits, Lockout: lockout.DefaultConfig()})
			v := admit(t, g, "192.0.2.1")
			try := func(user string, o policy.Outcome) error {
				err := v.Attempt(t.Context(), query(user, user))
				if err == nil {
					err = errors.Join(v.Hold(t.Context()), v.Enter(t.Context(), routeOf(user, "acme")))
				}
				if err != nil {
					o = policy.Undecided
				}
				return errors.Join(err, v.Done(t.Context(), o))
			}
			wantLimit(t, try("anna", policy.Accepted), "")
			wantLimit(t, try("stranger", policy.Refused), "")
			wantLimit(t, try("anna", policy.Refused), "")
			wantLimit(t, try("other", policy.Refused), "")
			wantLimit(t, try("berta", policy.Accepted), tt.want)
			wantLimit(t, try("anna", policy.Accepted), "")
		})
	}
}

// TestLimitTellsNobodyKnown: once a limit refuses the failures of a network, who guesses there hears the same of everybody: of those who are
// known there, whatever is left of their budget, of those who are locked out, and of strangers.
func TestLimitTellsNobodyKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const want = "per_ip.failures"
		k, g := locking(t, policy.Config{LoginsPerIP: per(5, time.Hour)})
		v := admit(t, g, "192.0.2.1")
		login(t, v, "anna", policy.Accepted, "")
		login(t, v, "cleo", policy.Accepted, "")
		if err := k.Lockouts().Add(prefixes("192.0.2.1/32")[0], "dora@example.org", time.Hour); err != nil {
			t.Fatal(err)
		}
		for i := range strict().KnownFailures {
			fails(t, v, "cleo", fmt.Sprintf("guess %d", i))
		}
		wantLockedOut(t, v, "dora", "guess")
		wantLockedOut(t, v, "cleo", "guess")
		for i := range 5 {
			fails(t, v, fmt.Sprintf("stranger%d", i), "guess")
		}
		turns := k.Turns()
		for _, user := range []string{"berta", "cleo", "dora"} {
			wantLimit(t, v.Attempt(t.Context(), query(user, "guess")), want)
			wantLimit(t, v.Done(t.Context(), policy.Undecided), "")
		}
		enter(t, v, query("anna", "guess"), route("anna"))
		wantLimit(t, v.Done(t.Context(), policy.Refused), want)
		if got := k.Turns(); got != turns {
			t.Errorf("got turns of %d keys, want %d", got, turns)
		}
		if n := v.Asks(); n != 0 {
			t.Errorf("got %d asks left, want none", n)
		}
		login(t, v, "anna", policy.Accepted, "")
	})
}

// TestLimitEndsTry: a login that a limit refuses before anybody looked at it is not held against its user.
func TestLimitEndsTry(t *testing.T) {
	k, g := locking(t, policy.Config{LoginsPerIP: per(1, time.Hour)})
	v := admit(t, g, "192.0.2.1")
	fails(t, v, "stranger", "guess")
	for i := range 10 * strict().User.LockoutAfter {
		wantLimit(t, v.Attempt(t.Context(), query("anna", fmt.Sprint(i))), "per_ip.failures")
		if i%2 == 0 {
			if err := v.Done(t.Context(), policy.Undecided); err != nil {
				t.Fatal(err)
			}
		}
	}
	if l := k.Lockouts().List(); len(l) != 0 {
		t.Errorf("got the lockouts %+v, want none", l)
	}
}
