package policy_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/limit"
)

// TestTenantFailures: a tenant's failures refuse in Enter, once it is known where the login goes, and what did not fail is given back.
func TestTenantFailures(t *testing.T) {
	k, g := limited(t, policy.Config{LoginsPerIP: per(100, time.Hour), Tenant: limit.TenantLimits{Failures: per(2, time.Hour)}})
	v := admit(t, g, "192.0.2.1")
	for _, o := range []policy.Outcome{policy.Accepted, policy.Undecided, policy.Barred, policy.Accepted, policy.Refused, policy.Unknown} {
		enter(t, v, query("anna", "x"), routeOf("anna", "acme"))
		wantLimit(t, v.Done(t.Context(), o), "")
	}
	turns := k.Turns()
	for _, addr := range []string{"192.0.2.1", "192.0.2.2"} {
		other := admit(t, g, addr)
		if err := errors.Join(other.Attempt(t.Context(), query("berta", "x")), other.Hold(t.Context())); err != nil {
			t.Fatal(err)
		}
		wantLimit(t, other.Enter(t.Context(), routeOf("berta", "acme")), "per_tenant.failures")
		wantLimit(t, other.Done(t.Context(), policy.Undecided), "")
	}
	if got := k.Turns(); got != turns {
		t.Errorf("got turns of %d keys out, want %d: what was refused is given back", got, turns)
	}
	enter(t, v, query("cleo", "x"), routeOf("cleo", "other"))
	enter(t, v, query("cleo", "x"), route("cleo"))
}

// TestTenant: what a tenant's users have together, whoever they are, after the right password alone.
func TestTenant(t *testing.T) {
	k, g := limited(t, policy.Config{Tenant: limit.TenantLimits{Sessions: 2, Logins: per(3, time.Hour)}})
	in := func(user, tenant, want string) *policy.Visit {
		t.Helper()
		v := admit(t, g, "192.0.2.1")
		enter(t, v, query(user, "x"), routeOf(user, tenant))
		wantLimit(t, v.Done(t.Context(), policy.Refused), "")
		enter(t, v, query(user, "x"), routeOf(user, tenant))
		wantLimit(t, v.Done(t.Context(), policy.Accepted), want)
		if want == "" {
			v.Settle()
		}
		return v
	}
	anna := in("anna", "acme", "")
	in("berta", "acme", "")
	in("cleo", "acme", "per_tenant.sessions")
	in("cleo", "other", "")
	anna.Close()
	in("cleo", "acme", "")
	in("dora", "acme", "per_tenant.sessions").Close()
	if _, _, users, places := k.Held(); users != 2 || places != 3 {
		t.Errorf("got %d places of %d tenants, want 3 of 2", places, users)
	}
}

// TestTenantLogins: the logins of a tenant are a rate, and that of a user is asked first.
func TestTenantLogins(t *testing.T) {
	_, g := limited(t, policy.Config{LoginsPerUser: per(2, time.Hour), Tenant: limit.TenantLimits{Logins: per(3, time.Hour)}})
	for _, l := range []struct{ user, want string }{
		{"anna", ""}, {"anna", ""}, {"anna", "per_user.logins"}, {"berta", ""}, {"berta", "per_tenant.logins"},
	} {
		v := admit(t, g, "192.0.2.1")
		enter(t, v, query(l.user, "x"), routeOf(l.user, "acme"))
		wantLimit(t, v.Done(t.Context(), policy.Accepted), l.want)
		if l.want == "" {
			v.Settle()
		}
		v.Close()
	}
}

// TestThen: of a login that goes to a second backend after the first has refused it, the tenant's turn is taken once, and the user is
// counted where it logged in.
func TestThen(t *testing.T) {
	_, g := limited(t, policy.Config{SessionsPerUser: 1, Tenant: limit.TenantLimits{Failures: per(2, time.Hour)}})
	at := func(backend string) *auth.Route {
		to := routeOf("anna", "acme")
		to.Backend = backend
		return to
	}
	moved := func(v *policy.Visit) error {
		to := at("old")
		enter(t, v, query("anna", "x"), to)
		to.Backend = "new" // the same route, as the proxy turns it
		return v.Enter(t.Context(), to)
	}
	v := admit(t, g, "192.0.2.1")
	for range 2 {
		wantLimit(t, moved(v), "")
		wantLimit(t, v.Done(t.Context(), policy.Refused), "")
	}
	if err := v.Attempt(t.Context(), query("anna", "x")); err != nil {
		t.Fatal(err)
	}
	wantLimit(t, v.Enter(t.Context(), at("old")), "per_tenant.failures")

	k, single := limited(t, policy.Config{SessionsPerUser: 1, Tenant: limit.TenantLimits{Failures: per(1, time.Hour)}})
	v = admit(t, single, "192.0.2.1")
	wantLimit(t, moved(v), "")
	wantLimit(t, v.Done(t.Context(), policy.Accepted), "")
	v.Settle()
	if n := k.Turns(); n != 0 {
		t.Errorf("got turns of %d keys out, want none", n)
	}
	for backend, want := range map[string]string{"new": "per_user.sessions", "old": ""} {
		other := admit(t, single, "192.0.2.1")
		enter(t, other, query("anna", "x"), at(backend))
		wantLimit(t, other.Done(t.Context(), policy.Accepted), want)
		other.Close()
	}
}

// TestClose: whatever a visit is at when it closes, it gives back what is not spent.
func TestClose(t *testing.T) {
	c := policy.Config{
		Sessions: 1, SessionsPerIP: 1, SessionsPerUser: 1, LoginsPerIP: per(1, time.Hour), LoginsPerUser: per(1, time.Hour),
		IP:     limit.ClientLimits{Handshakes: 1},
		Tenant: limit.TenantLimits{Sessions: 1, Failures: per(1, time.Hour), Logins: per(1, time.Hour)},
		User:   limit.UserLimits{LoginDelay: limit.Delay(time.Hour)},
	}
	stages := []struct {
		name  string
		turns int // that stay
		step  func(t *testing.T, v *policy.Visit) error
	}{
		{"admitted", 0, func(*testing.T, *policy.Visit) error { return nil }},
		{"handshake", 0, func(t *testing.T, v *policy.Visit) error { return v.Handshake(t.Context()) }},
		{"attempt", 0, func(t *testing.T, v *policy.Visit) error { return v.Attempt(t.Context(), query("anna", "x")) }},
		{"hold", 0, func(t *testing.T, v *policy.Visit) error { return v.Hold(t.Context()) }},
		{"enter", 0, func(t *testing.T, v *policy.Visit) error { return v.Enter(t.Context(), routeOf("anna", "acme")) }},
		{"accepted", 0, func(t *testing.T, v *policy.Visit) error { return v.Done(t.Context(), policy.Accepted) }},
		{"settled", 3, func(_ *testing.T, v *policy.Visit) error { v.Settle(); return nil }},
	}
	for i, last := range stages {
		t.Run(last.name, func(t *testing.T) {
			k, g := limited(t, c)
			v := admit(t, g, "192.0.2.1")
			for _, s := range stages[:i+1] {
				if err := s.step(t, v); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
			}
			v.Close()
			v.Close()
			if _, _, _, n := k.Held(); n != 0 {
				t.Errorf("got %d places held, want none", n)
			}
			if n := k.Turns(); n != last.turns {
				t.Errorf("got turns of %d keys out, want %d", n, last.turns)
			}
			if got := v.Verdict(); got.Rule != "" {
				t.Errorf("got the verdict %+v of a visit that is closed", got)
			}
		})
	}
}

// TestPaced: what a session carries waits by the limits of its user, and an exempt client's does not.
func TestPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, g := limited(t, policy.Config{
			User:   limit.UserLimits{Download: limit.Bandwidth{PerSecond: 1 << 20}, Commands: per(10, time.Second)},
			Exempt: prefixes("10.0.0.0/8"),
		})
		in := func(addr, user string) *policy.Visit {
			v := admit(t, g, addr)
			login(t, v, user, policy.Accepted, "")
			v.Settle()
			return v
		}
		var none *policy.Visit
		for _, v := range []*policy.Visit{none, in("10.0.0.1", "anna"), admit(t, g, "192.0.2.1")} {
			if d, c := v.Paced(); d || c {
				t.Errorf("got %t, %t, want nothing paced", d, c)
			}
		}
		one, two := in("192.0.2.1", "anna"), in("192.0.2.2", "anna")
		if d, c := one.Paced(); !d || !c {
			t.Errorf("got %t, %t, want both paced", d, c)
		}
		for _, s := range []struct {
			v    *policy.Visit
			n    int
			want time.Duration
		}{{one, 1 << 20, 0}, {one, 1000, 0}, {two, 1 << 19, time.Second / 2}, {in("192.0.2.3", "berta"), 1 << 20, 0}} {
			if got := s.v.Download(t.Context(), s.n); got < s.want-time.Millisecond || got > s.want+time.Millisecond {
				t.Errorf("%d bytes: got %v to wait, want %v", s.n, got, s.want)
			}
		}
		if got := one.Commands(t.Context(), 15); got != time.Second/2 {
			t.Errorf("15 commands: got %v to wait, want 500ms", got)
		}
		if got := two.Commands(t.Context(), 10); got != 3*time.Second/2 {
			t.Errorf("10 more by the user's other session: got %v to wait, want 1.5s", got)
		}
	})
}
