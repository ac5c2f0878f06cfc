package policy_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/limit"
)

// ruled is a keeper and a gate with rules that know the list bad, of 192.0.2.66, and some limits.
func ruled(t *testing.T, rules ...access.RuleConfig) (*policy.Keeper, *policy.Gate) {
	t.Helper()
	for i := range rules {
		if rules[i].Action == "" {
			rules[i].Action = "deny"
		}
	}
	k := policy.New(policy.Options{})
	return k, gateOf(t, k, policy.Parts{
		Access: access.Config{
			Lists:    []access.ListConfig{{Name: "bad", Networks: []string{"192.0.2.66"}}},
			Disabled: access.DisabledConfig{Users: []string{"dora@example.org"}}, Rules: rules,
		},
		Limits: policy.Config{
			Sessions: 100, SessionsPerIP: 100, SessionsPerUser: 100, LoginsPerIP: per(100, time.Hour),
			Tenant: limit.TenantLimits{Failures: per(100, time.Hour)},
		},
	})
}

var badNetworks = access.NetworksRule{Deny: []string{"bad"}}

// TestOriginDenied: who comes from where nobody may come from is refused before it costs anything.
func TestOriginDenied(t *testing.T) {
	k, g := ruled(t, access.RuleConfig{Name: "abuse", Networks: badNetworks})
	v, err := g.Admit(t.Context(), client("192.0.2.66"))
	if v != nil {
		t.Fatal("got a visit")
	}
	wantDenied(t, err, "abuse", access.NetworkDenied, false)
	wantHeld(t, k, 0, 0, 0)
	login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
}

// TestTenantOrigin: a rule for a tenant refuses in Enter, whatever the password is, and gives everything back.
func TestTenantOrigin(t *testing.T) {
	k, g := ruled(t, access.RuleConfig{Name: "acme", Tenants: []string{"acme"}, Networks: badNetworks})
	v := admit(t, g, "192.0.2.66")
	if err := errors.Join(v.Attempt(t.Context(), query("anna", "x")), v.Hold(t.Context())); err != nil {
		t.Fatal(err)
	}
	wantDenied(t, v.Enter(t.Context(), routeOf("anna", "acme")), "acme", access.NetworkDenied, false)
	if got := v.Verdict(); got.Rule != "acme" || got.Action != access.Deny {
		t.Errorf("got the verdict %+v, want that of acme, for the record", got)
	}
	if err := v.Done(t.Context(), policy.Undecided); err != nil {
		t.Fatal(err)
	}
	if n := k.Turns(); n != 0 {
		t.Errorf("got turns of %d keys out, want none", n)
	}
	enter(t, v, query("anna", "x"), routeOf("anna", "other"))
	if err := v.Done(t.Context(), policy.Accepted); err != nil || v.Verdict() != (access.Verdict{}) {
		t.Errorf("another tenant: got %v, the verdict %+v, want none", err, v.Verdict())
	}
	enter(t, admit(t, g, "192.0.2.1"), query("anna", "x"), routeOf("anna", "acme"))
}

// TestToldAfterPassword: what has to do with the account is told to who has the right password, and to nobody else.
func TestToldAfterPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time begins on Saturday, 2000-01-01 00:00 UTC
		_, g := ruled(t,
			access.RuleConfig{Name: "office", Users: []string{"anna@example.org"}, Hours: []string{"mon-fri 07:00-19:00"}},
			access.RuleConfig{Name: "modern", Users: []string{"berta@example.org"}, TLS: access.TLSRule{MinVersion: "1.3"}},
			access.RuleConfig{Name: "legacy", Tenants: []string{"old"}, TLS: access.TLSRule{LegacyUntil: "1999-12-31"}},
		)
		for _, tt := range []struct {
			rule   string
			reason access.Reason
			to     *auth.Route
			tls    *auth.TLS
		}{
			{"office", access.Hours, route("anna"), &auth.TLS{Version: "TLS 1.3"}},
			{"modern", access.TLSVersion, route("berta"), &auth.TLS{Version: "TLS 1.2"}},
			{"modern", access.TLSVersion, route("berta"), nil},
			{"legacy", access.LegacyOver, routeOf("cleo", "old"), &auth.TLS{Version: "TLS 1.0"}},
			{"", access.Disabled, route("dora"), &auth.TLS{Version: "TLS 1.3"}},
		} {
			c := client("192.0.2.1")
			c.TLS = tt.tls
			v, err := g.Admit(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			enter(t, v, query("anna", "x"), tt.to)
			if got := v.Verdict(); got != (access.Verdict{}) {
				t.Errorf("%s: before the password got the verdict %+v, want none", tt.reason, got)
			}
			for _, o := range []policy.Outcome{policy.Refused, policy.Unknown, policy.Undecided} {
				if err := v.Done(t.Context(), o); err != nil || v.Verdict() != (access.Verdict{}) {
					t.Errorf("%s: without the right password got %v, the verdict %+v, want none", tt.reason, err, v.Verdict())
				}
				enter(t, v, query("anna", "x"), tt.to)
			}
			wantDenied(t, v.Done(t.Context(), policy.Accepted), tt.rule, tt.reason, true)
			if got := v.Verdict(); got.Rule != tt.rule || got.Reason != tt.reason {
				t.Errorf("%s: got the verdict %+v, want the same, for the record", tt.reason, got)
			}
			login(t, v, "emma", policy.Accepted, "")
		}
		<-time.After(2*24*time.Hour + 12*time.Hour) // Monday noon
		login(t, admit(t, g, "192.0.2.1"), "anna", policy.Accepted, "")
	})
}

// TestDeniedTakesNothing: who may not log in takes neither a place nor a turn of the user's, and its own turns come back.
func TestDeniedTakesNothing(t *testing.T) {
	k, g := ruled(t)
	v := admit(t, g, "192.0.2.1")
	enter(t, v, query("dora", "x"), routeOf("dora", "acme"))
	wantDenied(t, v.Done(t.Context(), policy.Accepted), "", access.Disabled, true)
	wantHeld(t, k, 1, 1, 0)
	if n := k.Turns(); n != 0 {
		t.Errorf("got turns of %d keys out, want none", n)
	}
}

// TestOnlyLogged: a rule that only logs lets pass, and leaves its verdict for the record until the login is over.
func TestOnlyLogged(t *testing.T) {
	_, g := ruled(t,
		access.RuleConfig{Name: "tried", Action: "log", Networks: badNetworks},
		access.RuleConfig{Name: "slow", Action: "log", Tenants: []string{"acme"}, Hours: []string{"mon 00:00-00:01"}, TLS: access.TLSRule{ClientCertificate: true}},
	)
	v := admit(t, g, "192.0.2.66")
	want := func(when, rule string) {
		t.Helper()
		if got := v.Verdict(); got.Rule != rule || rule != "" && got.Action != access.Log {
			t.Errorf("%s: got the verdict %+v, want that of %q", when, got, rule)
		}
	}
	want("admitted", "tried")
	enter(t, v, query("anna", "x"), routeOf("anna", "acme"))
	want("entered", "slow")
	if err := v.Done(t.Context(), policy.Refused); err != nil {
		t.Fatal(err)
	}
	want("refused", "slow")
	enter(t, v, query("berta", "x"), route("berta"))
	want("the next login", "tried")
	if err := v.Done(t.Context(), policy.Accepted); err != nil {
		t.Fatal(err)
	}
	want("accepted", "tried")
	v.Settle()
	want("settled", "")
}
