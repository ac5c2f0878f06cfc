package policy_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/limit"
)

func route(user string) *auth.Route {
	return &auth.Route{Backend: "old", Account: user}
}

// login is one round that Attempt and Enter let pass.
func login(t *testing.T, v *policy.Visit, user string, o policy.Outcome, want error) {
	t.Helper()
	if err := v.Attempt(t.Context(), &auth.Credentials{Mechanism: auth.User}); err != nil {
		t.Fatalf("attempt of %s: %v", user, err)
	}
	if err := v.Enter(t.Context(), route(user)); err != nil {
		t.Fatalf("enter %s: %v", user, err)
	}
	if err := v.Done(t.Context(), o); !errors.Is(err, want) {
		t.Fatalf("done with %s: got %v, want %v", user, err, want)
	}
}

func TestLoginsPerIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := policy.New()
		r := g.Prepare(policy.Config{LoginsPerIP: limit.Rate{Count: 3, Per: time.Minute}})
		v := admit(t, r, "2001:db8::1")
		for range 10 { // right ones and undecided ones cost nothing
			login(t, v, "anna", policy.Accepted, nil)
			login(t, v, "anna", policy.Undecided, nil)
		}
		for range 3 {
			login(t, v, "anna", policy.Refused, nil)
		}
		for _, addr := range []string{"2001:db8::1", "2001:db8::2"} {
			if err := admit(t, r, addr).Attempt(t.Context(), nil); !errors.Is(err, policy.ErrLoginsPerIP) {
				t.Errorf("the fourth, from %s: got %v, want %v", addr, err, policy.ErrLoginsPerIP)
			}
		}
		login(t, admit(t, r, "2001:db8:0:1::1"), "anna", policy.Refused, nil)
		<-time.After(20 * time.Second)
		login(t, v, "anna", policy.Refused, nil)
		if err := v.Attempt(t.Context(), nil); !errors.Is(err, policy.ErrLoginsPerIP) {
			t.Errorf("right after the one that came back: got %v, want %v", err, policy.ErrLoginsPerIP)
		}
		v.Close()
		if err := admit(t, r, "2001:db8::1").Attempt(t.Context(), nil); !errors.Is(err, policy.ErrLoginsPerIP) {
			t.Errorf("by another connection: got %v, want %v: closing forgives no failure", err, policy.ErrLoginsPerIP)
		}
		<-time.After(time.Minute)
		if f, _ := g.Paid(); f != 0 {
			t.Errorf("a minute later: got %d networks with failures, want 0", f)
		}
	})
}

// TestLoginsPerIPInFlight: guesses sent side by side are counted before any of them is answered.
func TestLoginsPerIPInFlight(t *testing.T) {
	r := policy.New().Prepare(policy.Config{LoginsPerIP: limit.Rate{Count: 2, Per: time.Hour}})
	first, second, third := admit(t, r, "192.0.2.1"), admit(t, r, "192.0.2.1"), admit(t, r, "192.0.2.1")
	for i, want := range []error{nil, nil, policy.ErrLoginsPerIP} {
		if err := []*policy.Visit{first, second, third}[i].Attempt(t.Context(), nil); !errors.Is(err, want) {
			t.Errorf("attempt %d: got %v, want %v", i+1, err, want)
		}
	}
	first.Close() // its client went away before the answer
	if err := third.Attempt(t.Context(), nil); err != nil {
		t.Errorf("after one left: got %v, want its turn", err)
	}
	if err := third.Attempt(t.Context(), nil); err != nil {
		t.Errorf("a new attempt ends the one before: got %v, want its turn", err)
	}
}

func TestSessionsPerUser(t *testing.T) {
	g := policy.New()
	r := g.Prepare(policy.Config{SessionsPerUser: 2})
	first := admit(t, r, "192.0.2.1")
	login(t, first, "anna", policy.Accepted, nil)
	login(t, admit(t, r, "192.0.2.2"), "anna", policy.Accepted, nil)
	third := admit(t, r, "192.0.2.3")
	login(t, third, "anna", policy.Refused, nil) // a wrong password is not told that she is there
	login(t, third, "anna", policy.Accepted, policy.ErrSessionsPerUser)
	login(t, third, "berta", policy.Accepted, nil)
	wantHeld(t, g, 3, 3, 2)
	first.Close()
	login(t, third, "anna", policy.Accepted, nil)
	other := admit(t, r, "192.0.2.4")
	if err := other.Enter(t.Context(), &auth.Route{Backend: "new", Account: "anna"}); err != nil {
		t.Fatal(err)
	}
	if err := other.Done(t.Context(), policy.Accepted); err != nil {
		t.Errorf("the anna of another backend: got %v, want her in", err)
	}
}

// TestStrangersHoldNoPlaces: logins in flight under a user's name, with whatever password, keep the user out of nothing.
func TestStrangersHoldNoPlaces(t *testing.T) {
	g := policy.New()
	r := g.Prepare(policy.Config{SessionsPerUser: 1, LoginsPerUser: limit.Rate{Count: 1, Per: time.Hour}})
	for range 20 {
		v := admit(t, r, "192.0.2.66")
		login(t, v, "anna", policy.Refused, nil)
		if err := errors.Join(v.Attempt(t.Context(), nil), v.Enter(t.Context(), route("anna"))); err != nil {
			t.Fatal(err)
		}
	}
	wantHeld(t, g, 20, 1, 0)
	login(t, admit(t, r, "192.0.2.1"), "anna", policy.Accepted, nil)
}

func TestLoginsPerUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := policy.New()
		r := g.Prepare(policy.Config{SessionsPerUser: 1, LoginsPerUser: limit.Rate{Count: 2, Per: time.Minute}})
		for i, want := range []error{nil, nil, policy.ErrLoginsPerUser, policy.ErrLoginsPerUser} {
			v := admit(t, r, "192.0.2.1")
			login(t, v, "anna", policy.Accepted, want)
			if want != nil {
				wantHeld(t, g, 1, 1, 0)
			}
			v.Close()
			if t.Failed() {
				t.Fatalf("login %d", i+1)
			}
		}
		v := admit(t, r, "192.0.2.1")
		login(t, v, "berta", policy.Accepted, nil)
		v.Close()
		<-time.After(30 * time.Second)
		v = admit(t, r, "192.0.2.1")
		login(t, v, "anna", policy.Accepted, nil)
		// Its record could not be written, so it is taken back: nothing of it may count.
		if err := v.Done(t.Context(), policy.Undecided); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, g, 1, 1, 0)
		login(t, v, "anna", policy.Accepted, nil)
	})
}

// TestExemptLogins: an exempt network passes every limit of a login, and is counted in those of the user.
func TestExemptLogins(t *testing.T) {
	g := policy.New()
	one := limit.Rate{Count: 1, Per: time.Hour}
	r := g.Prepare(policy.Config{
		SessionsPerUser: 1, LoginsPerIP: one, LoginsPerUser: one, Exempt: prefixes("192.0.2.0/24"),
	})
	for range 3 {
		v := admit(t, r, "192.0.2.1")
		login(t, v, "anna", policy.Refused, nil)
		login(t, v, "anna", policy.Accepted, nil)
	}
	wantHeld(t, g, 3, 1, 1)
	if f, l := g.Paid(); f != 0 || l != 0 {
		t.Errorf("turns out: got %d networks and %d users, want none", f, l)
	}
	login(t, admit(t, r, "198.51.100.1"), "anna", policy.Accepted, policy.ErrSessionsPerUser)
}

// TestEverythingGivenBack walks any number of visits through any sequence of calls, and ends them at any stage.
func TestEverythingGivenBack(t *testing.T) {
	ctx := t.Context()
	rapid.Check(t, func(t *rapid.T) {
		g := policy.New()
		some := func(label string) int { return rapid.IntRange(0, 3).Draw(t, label) }
		config := policy.Config{
			Sessions: 2 * some("sessions"), SessionsPerIP: some("per ip"), SessionsPerUser: some("per user"),
			LoginsPerIP:   limit.Rate{Count: some("logins per ip"), Per: time.Hour},
			LoginsPerUser: limit.Rate{Count: some("logins per user"), Per: time.Hour},
			Exempt:        prefixes("192.0.2.2/32"),
		}
		r := g.Prepare(config)
		var visits []*policy.Visit
		failed := map[*policy.Visit]bool{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if act := rapid.IntRange(0, 5).Draw(t, "act"); act == 0 || len(visits) == 0 {
				addr := rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}).Draw(t, "addr")
				if v, err := r.Admit(ctx, client(addr)); err == nil {
					visits = append(visits, v)
				}
			} else {
				i := rapid.IntRange(0, len(visits)-1).Draw(t, "visit")
				step(t, act, visits[i], failed)
				if act == 5 {
					visits = append(visits[:i], visits[i+1:]...)
				}
			}
			if s, n, u := g.Held(); s != len(visits) || n > s || u > s || (s == 0) != (n == 0) {
				t.Fatalf("%d visits: counted %d sessions, %d networks, %d users", len(visits), s, n, u)
			}
		}
		for _, v := range visits {
			v.Close()
		}
		if s, n, u := g.Held(); s != 0 || n != 0 || u != 0 {
			t.Fatalf("all closed: still counted %d sessions, %d networks, %d users", s, n, u)
		}
		if f, _ := g.Paid(); f != 0 && len(failed) == 0 {
			t.Fatalf("no login was refused: still %d networks have turns out", f)
		}
	})
}

func step(t *rapid.T, act int, v *policy.Visit, failed map[*policy.Visit]bool) {
	ctx := t.Context()
	switch act {
	case 1:
		_ = v.Attempt(ctx, nil)
	case 2:
		_ = v.Enter(ctx, route(rapid.SampledFrom([]string{"anna", "berta"}).Draw(t, "user")))
	case 3, 4:
		o := rapid.SampledFrom([]policy.Outcome{policy.Accepted, policy.Refused, policy.Undecided}).Draw(t, "outcome")
		_ = v.Done(ctx, o)
		if o == policy.Refused {
			failed[v] = true
		}
	case 5:
		v.Close()
		v.Close()
	}
}

func limits() policy.Config {
	return policy.Config{
		Sessions: 1_000_000, SessionsPerIP: 100_000, SessionsPerUser: 100_000,
		LoginsPerIP:   limit.Rate{Count: 1000, Per: time.Second},
		LoginsPerUser: limit.Rate{Count: 1_000_000_000, Per: time.Second},
		Exempt:        prefixes("10.0.0.0/8"),
	}
}

// BenchmarkVisit is all that a session that logs in asks of the gate, with every limit on: five decisions.
func BenchmarkVisit(b *testing.B) {
	r := policy.New().Prepare(limits())
	c, to := client("192.0.2.1"), route("anna@example.org")
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			v, err := r.Admit(ctx, c)
			if err != nil {
				b.Fatal(err)
			}
			if err := errors.Join(v.Attempt(ctx, nil), v.Enter(ctx, to), v.Done(ctx, policy.Accepted)); err != nil {
				b.Fatal(err)
			}
			v.Close()
		}
	})
}

// BenchmarkVisitRefused is a client that the gate turns away: what a flood costs.
func BenchmarkVisitRefused(b *testing.B) {
	r := policy.New().Prepare(policy.Config{SessionsPerIP: 1})
	c, ctx := client("192.0.2.1"), b.Context()
	if _, err := r.Admit(ctx, c); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Admit(ctx, c); err == nil {
			b.Fatal("admitted")
		}
	}
}

// BenchmarkVisitLogin is the decisions of one failed login on a connection that is there.
func BenchmarkVisitLogin(b *testing.B) {
	r := policy.New().Prepare(limits())
	ctx := b.Context()
	v, err := r.Admit(ctx, client("192.0.2.1"))
	if err != nil {
		b.Fatal(err)
	}
	to := route("anna@example.org")
	b.ReportAllocs()
	for b.Loop() {
		_ = v.Attempt(ctx, nil)
		_ = v.Enter(ctx, to)
		_ = v.Done(ctx, policy.Refused)
	}
}
