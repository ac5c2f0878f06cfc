package policy_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/limit"
)

func TestLoginsPerIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, g := limited(t, policy.Config{LoginsPerIP: per(3, time.Minute)})
		v := admit(t, g, "2001:db8::1")
		for range 10 { // right ones and undecided ones cost nothing
			login(t, v, "anna", policy.Accepted, "")
			login(t, v, "anna", policy.Undecided, "")
			login(t, v, "anna", policy.Barred, "")
		}
		login(t, v, "anna", policy.Refused, "")
		login(t, v, "nobody", policy.Unknown, "")
		login(t, v, "anna", policy.Refused, "")
		for _, addr := range []string{"2001:db8::1", "2001:db8::2"} {
			wantLimit(t, admit(t, g, addr).Attempt(t.Context(), query("anna", "x")), "per_ip.failures")
		}
		login(t, admit(t, g, "2001:db8:0:1::1"), "anna", policy.Refused, "")
		<-time.After(20 * time.Second)
		login(t, v, "anna", policy.Refused, "") // with the turn that came back
		wantLimit(t, v.Attempt(t.Context(), query("anna", "x")), "per_ip.failures")
		v.Close()
		// Closing forgives no failure.
		wantLimit(t, admit(t, g, "2001:db8::1").Attempt(t.Context(), query("anna", "x")), "per_ip.failures")
		<-time.After(time.Minute)
		if n := k.Turns(); n != 0 {
			t.Errorf("a minute later: got %d networks with failures, want 0", n)
		}
	})
}

// TestLoginsPerIPInFlight: guesses sent side by side are counted before any of them is answered.
func TestLoginsPerIPInFlight(t *testing.T) {
	_, g := limited(t, policy.Config{LoginsPerIP: per(2, time.Hour)})
	first, second, third := admit(t, g, "192.0.2.1"), admit(t, g, "192.0.2.1"), admit(t, g, "192.0.2.1")
	for i, want := range []string{"", "", "per_ip.failures"} {
		wantLimit(t, []*policy.Visit{first, second, third}[i].Attempt(t.Context(), query("anna", "x")), want)
	}
	first.Close() // its client went away before the answer
	wantLimit(t, third.Attempt(t.Context(), query("anna", "x")), "")
	wantLimit(t, third.Attempt(t.Context(), query("anna", "x")), "") // a new attempt ends the one before
}

func TestSessionsPerUser(t *testing.T) {
	k, g := limited(t, policy.Config{Sessions: 100, SessionsPerIP: 100, SessionsPerUser: 2})
	first := admit(t, g, "192.0.2.1")
	login(t, first, "anna", policy.Accepted, "")
	login(t, admit(t, g, "192.0.2.2"), "anna", policy.Accepted, "")
	third := admit(t, g, "192.0.2.3")
	login(t, third, "anna", policy.Refused, "") // a wrong password is not told that she is there
	login(t, third, "anna", policy.Accepted, "per_user.sessions")
	login(t, third, "berta", policy.Accepted, "")
	wantHeld(t, k, 3, 3, 2)
	first.Close()
	login(t, third, "anna", policy.Accepted, "")
	other := admit(t, g, "192.0.2.4")
	enter(t, other, query("anna", "secret"), &auth.Route{Backend: "new", Account: "anna@example.org"})
	if err := other.Done(t.Context(), policy.Accepted); err != nil {
		t.Errorf("the anna of another backend: got %v, want her in", err)
	}
}

// TestStrangersHoldNoPlaces: logins in flight under a user's name, with whatever password, keep the user out of nothing.
func TestStrangersHoldNoPlaces(t *testing.T) {
	k, g := limited(t, policy.Config{
		Sessions: 100, SessionsPerIP: 100, SessionsPerUser: 1, LoginsPerUser: per(1, time.Hour),
		User: limit.UserLimits{LoginDelay: limit.Delay(time.Hour)},
	})
	for range 20 {
		v := admit(t, g, "192.0.2.66")
		login(t, v, "anna", policy.Refused, "")
		enter(t, v, query("anna", "guess"), route("anna"))
	}
	wantHeld(t, k, 20, 1, 0)
	if n := k.Turns(); n != 0 {
		t.Errorf("got turns of %d keys out, want none", n)
	}
	login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
}

func TestLoginsPerUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, g := limited(t, policy.Config{Sessions: 100, SessionsPerIP: 100, SessionsPerUser: 1, LoginsPerUser: per(2, time.Minute)})
		for _, want := range []string{"", "", "per_user.logins", "per_user.logins"} {
			v := admit(t, g, "192.0.2.1")
			login(t, v, "anna", policy.Accepted, want)
			if want == "" {
				v.Settle()
			} else {
				wantHeld(t, k, 1, 1, 0)
			}
			v.Close()
		}
		v := admit(t, g, "192.0.2.1")
		login(t, v, "berta", policy.Accepted, "")
		v.Settle()
		v.Close()
		<-time.After(30 * time.Second)
		v = admit(t, g, "192.0.2.1")
		login(t, v, "anna", policy.Accepted, "")
		// Its record could not be written, so it is taken back: nothing of it may count.
		if err := v.Done(t.Context(), policy.Undecided); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, k, 1, 1, 0)
		login(t, v, "anna", policy.Accepted, "")
		v.Settle()
		wantHeld(t, k, 1, 1, 1)
		v.Close()
		wantHeld(t, k, 0, 0, 0)
		login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "per_user.logins")
	})
}

// TestLoginDelay: the time between two logins of a user begins with one that was accepted, and the longest is announced.
func TestLoginDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := limit.DefaultOverride()
		o.Tenants, o.User.LoginDelay = []string{"slow"}, limit.Delay(5*time.Minute)
		_, g := limited(t, policy.Config{
			User: limit.UserLimits{LoginDelay: limit.Delay(time.Minute)}, Overrides: []limit.Override{o},
		})
		if got := g.MaxLoginDelay(); got != 5*time.Minute {
			t.Errorf("got the longest delay %v, want 5m", got)
		}
		in := func(to *auth.Route, o policy.Outcome, want string) {
			t.Helper()
			v := admit(t, g, "192.0.2.1")
			enter(t, v, query("anna", "secret"), to)
			wantLimit(t, v.Done(t.Context(), o), want)
			if o == policy.Accepted && want == "" {
				v.Settle()
			}
			v.Close()
		}
		quick, slow := route("anna"), routeOf("berta", "slow")
		in(quick, policy.Accepted, "")
		in(slow, policy.Accepted, "")
		in(quick, policy.Refused, "") // told to nobody without the right password
		in(quick, policy.Accepted, "per_user.login_delay")
		<-time.After(time.Minute)
		in(quick, policy.Accepted, "") // what was refused has not put it off
		in(slow, policy.Accepted, "per_user.login_delay")
		<-time.After(4 * time.Minute)
		in(slow, policy.Accepted, "")
	})
}

// TestExemptLogins: an exempt network passes every limit of a login, and takes places of the user's.
func TestExemptLogins(t *testing.T) {
	one := per(1, time.Hour)
	k, g := limited(t, policy.Config{
		Sessions: 100, SessionsPerIP: 100, SessionsPerUser: 1, LoginsPerIP: one, LoginsPerUser: one, Exempt: prefixes("192.0.2.0/24"),
		User: limit.UserLimits{LoginDelay: limit.Delay(time.Hour)},
	})
	for range 3 {
		v := admit(t, g, "192.0.2.1")
		login(t, v, "anna", policy.Refused, "")
		login(t, v, "anna", policy.Accepted, "")
		v.Settle()
	}
	wantHeld(t, k, 3, 1, 1)
	if n := k.Turns(); n != 1 { // the address, which failed, and not the user, whose logins elsewhere a webmail must not use up
		t.Errorf("got turns of %d keys out, want 1", n)
	}
	login(t, admit(t, g, "198.51.100.1"), "anna", policy.Accepted, "per_user.sessions")
}

// TestHandshake: places of handshakes last as long as these, however the visit ends.
func TestHandshake(t *testing.T) {
	k, g := limited(t, policy.Config{
		IP: limit.ClientLimits{Handshakes: 1}, Network: limit.NetworkLimits{IPv4Prefix: 24, IPv6Prefix: 48, Handshakes: 2},
		Listener: limit.ClientLimits{Handshakes: 3}, Exempt: prefixes("10.0.0.0/8"),
	})
	for _, h := range []struct{ addr, want string }{
		{"192.0.2.1", ""}, {"192.0.2.1", "per_ip.handshakes"}, {"192.0.2.2", ""}, {"192.0.2.3", "per_network.handshakes"},
		{"10.0.0.1", ""}, {"10.0.0.1", ""}, {"198.51.100.1", "per_listener.handshakes"},
	} {
		wantLimit(t, admit(t, g, h.addr).Handshake(t.Context()), h.want)
	}
	last := admit(t, g, "10.0.0.2")
	wantLimit(t, last.Handshake(t.Context()), "")
	wantHeld(t, k, 5, 6, 0)
	last.Handshaken()
	last.Handshaken()
	wantHeld(t, k, 4, 5, 0)
	wantLimit(t, last.Handshake(t.Context()), "")
	wantLimit(t, last.Handshake(t.Context()), "") // one visit has one
	wantHeld(t, k, 5, 6, 0)
	last.Close()
	last.Close()
	wantHeld(t, k, 4, 5, 0)
}
