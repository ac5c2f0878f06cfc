package policy_test

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/limit"
)

func client(addr string) *auth.Client {
	return &auth.Client{Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 40000), Listener: "pop3s"}
}

func admit(t *testing.T, r *policy.Gate, addr string) *policy.Visit {
	t.Helper()
	v, err := r.Admit(t.Context(), client(addr))
	if err != nil {
		t.Fatalf("admit %s: %v", addr, err)
	}
	t.Cleanup(v.Close)
	return v
}

// wantHeld is the check that nothing is left behind.
func wantHeld(t *testing.T, g *policy.Keeper, sessions, networks, users int) {
	t.Helper()
	s, n, u := g.Held()
	if s != sessions || n != networks || u != users {
		t.Errorf("counted: got %d sessions, %d networks, %d users, want %d, %d, %d", s, n, u, sessions, networks, users)
	}
}

func TestAdmit(t *testing.T) {
	type arrival struct {
		addr string
		want error
	}
	tests := []struct {
		name     string
		config   policy.Config
		arrivals []arrival
	}{
		{"all off", policy.Config{}, []arrival{{"192.0.2.1", nil}, {"192.0.2.1", nil}, {"192.0.2.1", nil}}},
		{"sessions", policy.Config{Sessions: 2},
			[]arrival{{"192.0.2.1", nil}, {"192.0.2.2", nil}, {"192.0.2.3", policy.ErrSessions}}},
		{"sessions_per_ip", policy.Config{SessionsPerIP: 2}, []arrival{
			{"192.0.2.1", nil}, {"192.0.2.1", nil}, {"192.0.2.1", policy.ErrSessionsPerIP}, {"192.0.2.2", nil},
		}},
		{"IPv6 by /64", policy.Config{SessionsPerIP: 1}, []arrival{
			{"2001:db8::1", nil}, {"2001:db8::ffff:1:2:3", policy.ErrSessionsPerIP}, {"2001:db8:0:1::1", nil},
		}},
		{"IPv4 in IPv6 form is IPv4", policy.Config{SessionsPerIP: 1}, []arrival{
			{"192.0.2.1", nil}, {"::ffff:192.0.2.1", policy.ErrSessionsPerIP}, {"::ffff:192.0.2.2", nil},
		}},
		{"a zone is no other network", policy.Config{SessionsPerIP: 1}, []arrival{
			{"fe80::1%eth0", nil}, {"fe80::2%eth1", policy.ErrSessionsPerIP},
		}},
		{"exempt", policy.Config{Sessions: 1, SessionsPerIP: 1, Exempt: prefixes("192.0.2.0/24", "2001:db8::/32")}, []arrival{
			{"192.0.2.1", nil}, {"192.0.2.1", nil}, {"::ffff:192.0.2.1", nil}, {"2001:db8::1", nil}, {"2001:db8::1", nil},
			{"198.51.100.1", policy.ErrSessions}, // for the exempt are counted
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := policy.New()
			r := g.Prepare(tt.config)
			var visits []*policy.Visit
			for i, a := range tt.arrivals {
				v, err := r.Admit(t.Context(), client(a.addr))
				if !errors.Is(err, a.want) || (err == nil) != (v != nil) {
					t.Fatalf("arrival %d, %s: got %v, %v, want %v", i, a.addr, v, err, a.want)
				}
				if v != nil {
					visits = append(visits, v)
				}
			}
			for _, v := range visits {
				v.Close()
				v.Close() // once more gives back nothing more
			}
			wantHeld(t, g, 0, 0, 0)
			admit(t, r, tt.arrivals[0].addr)
			wantHeld(t, g, 1, 1, 0)
		})
	}
}

// TestAdmitRefusedLeavesNothing: the session counted in all must not stay when the network is full.
func TestAdmitRefusedLeavesNothing(t *testing.T) {
	g := policy.New()
	r := g.Prepare(policy.Config{Sessions: 2, SessionsPerIP: 1})
	admit(t, r, "192.0.2.1")
	for range 10 {
		if _, err := r.Admit(t.Context(), client("192.0.2.1")); !errors.Is(err, policy.ErrSessionsPerIP) {
			t.Fatalf("got %v, want %v", err, policy.ErrSessionsPerIP)
		}
	}
	wantHeld(t, g, 1, 1, 0)
	admit(t, r, "192.0.2.2")
}

// TestReload: counts go on under new rules, and a visit ends by the rules it began with.
func TestReload(t *testing.T) {
	g := policy.New()
	before := g.Prepare(policy.Config{})
	old := admit(t, before, "192.0.2.1")
	after := g.Prepare(policy.Config{SessionsPerIP: 1, LoginsPerIP: limit.Rate{Count: 1, Per: time.Hour}})
	if _, err := after.Admit(t.Context(), client("192.0.2.1")); !errors.Is(err, policy.ErrSessionsPerIP) {
		t.Errorf("under the new rules: got %v, want %v", err, policy.ErrSessionsPerIP)
	}
	for range 3 {
		login(t, old, "anna", policy.Refused, nil)
	}
	old.Close()
	wantHeld(t, g, 0, 0, 0)
	v := admit(t, after, "192.0.2.1")
	login(t, v, "anna", policy.Refused, nil)
	if err := v.Attempt(t.Context(), nil); !errors.Is(err, policy.ErrLoginsPerIP) {
		t.Errorf("the second failure under the new rules: got %v, want %v", err, policy.ErrLoginsPerIP)
	}
}

// TestTogether is many clients at once, for the race detector and for the bounds.
func TestTogether(t *testing.T) {
	const most, perIP = 20, 3
	g := policy.New()
	r := g.Prepare(policy.Config{
		Sessions: most, SessionsPerIP: perIP, SessionsPerUser: 2,
		LoginsPerIP: limit.Rate{Count: 50, Per: time.Hour}, LoginsPerUser: limit.Rate{Count: 100, Per: time.Hour},
	})
	addrs := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8:1::1"}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 200 {
				v, err := r.Admit(t.Context(), client(addrs[(i+j)%len(addrs)]))
				if err != nil {
					continue
				}
				if s, n, u := g.Held(); s > most || n > len(addrs) || u > 4 {
					t.Errorf("counted: %d sessions, %d networks, %d users", s, n, u)
				}
				if v.Attempt(t.Context(), nil) == nil {
					_ = v.Enter(t.Context(), &auth.Route{Backend: "old", Account: string(rune('a' + j%4))})
					_ = v.Done(t.Context(), policy.Outcome(j%3))
				}
				v.Close()
			}
		})
	}
	wg.Wait()
	wantHeld(t, g, 0, 0, 0)
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*policy.Config)
		key    string
		want   string
	}{
		{"sessions", func(c *policy.Config) { c.Sessions = -1 }, "sessions", "0 for no limit"},
		{"sessions_per_ip", func(c *policy.Config) { c.SessionsPerIP = -5 }, "sessions_per_ip", "-5 is below zero"},
		{"sessions_per_user", func(c *policy.Config) { c.SessionsPerUser = -1 }, "sessions_per_user", "0 for no limit"},
		{"no network", func(c *policy.Config) { c.Exempt = append(prefixes("10.0.0.0/8"), netip.Prefix{}) }, "exempt[1]", "is not a network"},
		{"mapped network", func(c *policy.Config) { c.Exempt = prefixes("::ffff:10.0.0.0/104") }, "exempt[0]", "write it as IPv4"},
		{"negative delay", func(c *policy.Config) { c.FailureDelay = -1 }, "failure_delay", "such as 2s"},
		{"long delay", func(c *policy.Config) { c.FailureDelay = time.Minute }, "failure_delay", "1m0s is not between 0s and 30s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := policy.DefaultConfig()
			c.Validate(func(key, problem string) { t.Errorf("the default: %s %s", key, problem) })
			tt.change(&c)
			faults := map[string]string{}
			c.Validate(func(key, problem string) { faults[key] = problem })
			if len(faults) != 1 || !strings.Contains(faults[tt.key], tt.want) {
				t.Errorf("got %q, want %s alone, with %q", faults, tt.key, tt.want)
			}
		})
	}
	c := policy.DefaultConfig()
	c.Sessions, c.SessionsPerIP, c.SessionsPerUser, c.Exempt = 1, 1, 1, prefixes("0.0.0.0/0", "::/0")
	c.Validate(func(key, problem string) { t.Errorf("a possible config: %s %s", key, problem) })
}

func prefixes(texts ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range texts {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}
