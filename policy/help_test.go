package policy_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/lockout"
)

// tester is what tests, benchmarks and rapid's checks have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Context() context.Context
}

func client(addr string) *auth.Client {
	return &auth.Client{
		Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 40000), Listener: "pop3s", TLS: &auth.TLS{Version: "TLS 1.3"},
	}
}

// gateOf makes a gate of the parts, and puts it in force.
func gateOf(t tester, k *policy.Keeper, p policy.Parts) *policy.Gate {
	t.Helper()
	g, err := k.Prepare(p)
	if err != nil {
		t.Fatal(err)
	}
	k.Use(g)
	return g
}

// limited is a keeper, and a gate with limits alone.
func limited(t tester, c policy.Config) (*policy.Keeper, *policy.Gate) {
	t.Helper()
	k := policy.New(policy.Options{})
	return k, gateOf(t, k, policy.Parts{Limits: c})
}

func admit(t *testing.T, g *policy.Gate, addr string) *policy.Visit {
	t.Helper()
	v, err := g.Admit(t.Context(), client(addr))
	if err != nil {
		t.Fatalf("admit %s: %v", addr, err)
	}
	t.Cleanup(v.Close)
	return v
}

// query is a login of a user at example.org.
func query(user, secret string) *auth.Query {
	return &auth.Query{
		Name:      auth.Name{Typed: user + "@example.org", Local: user, Domain: "example.org", Key: user + "@example.org"},
		Mechanism: auth.User, Secret: auth.NewSecret([]byte(secret)), Session: "session of " + user,
	}
}

// route is where a user of no tenant goes.
func route(user string) *auth.Route {
	return &auth.Route{Backend: "old", Account: user + "@example.org"}
}

// routeOf is where a tenant's user goes.
func routeOf(user, tenant string) *auth.Route {
	to := route(user)
	to.Tenant = tenant
	return to
}

// enter is a login as far as the backend, which all lets pass.
func enter(t *testing.T, v *policy.Visit, q *auth.Query, to *auth.Route) {
	t.Helper()
	if err := v.Attempt(t.Context(), q); err != nil {
		t.Fatalf("attempt of %s: %v", q.Name.Key, err)
	}
	if err := v.Hold(t.Context()); err != nil {
		t.Fatalf("hold %s: %v", q.Name.Key, err)
	}
	if err := v.Enter(t.Context(), to); err != nil {
		t.Fatalf("enter %s: %v", q.Name.Key, err)
	}
}

// login is one round that all but Done lets pass.
func login(t *testing.T, v *policy.Visit, user string, o policy.Outcome, limit string) {
	t.Helper()
	enter(t, v, query(user, "secret"), route(user))
	wantLimit(t, v.Done(t.Context(), o), limit)
}

// fails is one login of a user with a wrong secret, of which nothing is refused before the backend does.
func fails(t *testing.T, v *policy.Visit, user, secret string) {
	t.Helper()
	enter(t, v, query(user, secret), route(user))
	if err := v.Done(t.Context(), policy.Refused); err != nil {
		t.Fatalf("done with %s: %v", user, err)
	}
}

// wantLimit is the check that err is of this limit; "" is no error.
func wantLimit(t tester, err error, want string) {
	t.Helper()
	var limited *policy.LimitError
	switch {
	case want == "":
		if err != nil {
			t.Fatalf("got %v, want no error", err)
		}
	case !errors.As(err, &limited):
		t.Fatalf("got %v, want the limit %s", err, want)
	case limited.What.String() != want:
		t.Fatalf("got the limit %s, want %s", limited.What, want)
	}
}

// wantDenied is the check that err is of a rule of access.
func wantDenied(t *testing.T, err error, rule string, reason access.Reason, told bool) {
	t.Helper()
	var denied *policy.AccessError
	if !errors.As(err, &denied) || denied.Rule != rule || denied.Reason != reason || denied.Told != told || denied.Action != access.Deny {
		t.Fatalf("got %#v, want that rule %q denies by %s, told: %t", err, rule, reason, told)
	}
}

// wantHeld is the check that nothing is left behind: of all, networks and users.
func wantHeld(t tester, k *policy.Keeper, sessions, networks, users int) {
	t.Helper()
	s, n, u, _ := k.Held()
	if s != sessions || n != networks || u != users {
		t.Errorf("counted: got %d sessions, %d networks, %d users, want %d, %d, %d", s, n, u, sessions, networks, users)
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range texts {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func per(n int, d time.Duration) limit.Rate { return limit.Rate{Count: n, Per: d} }

// strict is a lockout after so few failures that tests need few.
func strict() lockout.Config {
	c := lockout.DefaultConfig()
	c.User = lockout.Threshold{DelayAfter: 2, LockoutAfter: 4}
	c.Network = lockout.Threshold{DelayAfter: 6, LockoutAfter: 8}
	return c
}
