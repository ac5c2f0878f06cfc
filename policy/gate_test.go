package policy_test

import (
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/lockout"
)

func TestAdmit(t *testing.T) {
	type arrival struct {
		addr string
		want string // the limit that refuses it
	}
	tests := []struct {
		name     string
		config   policy.Config
		arrivals []arrival
		places   int // that the first holds
	}{
		{"all off", policy.Config{}, []arrival{{"192.0.2.1", ""}, {"192.0.2.1", ""}, {"192.0.2.1", ""}}, 0},
		{"sessions", policy.Config{Sessions: 2},
			[]arrival{{"192.0.2.1", ""}, {"192.0.2.2", ""}, {"192.0.2.3", "all.sessions"}}, 1},
		{"sessions_per_ip", policy.Config{SessionsPerIP: 2}, []arrival{
			{"192.0.2.1", ""}, {"192.0.2.1", ""}, {"192.0.2.1", "per_ip.sessions"}, {"192.0.2.2", ""},
		}, 1},
		{"IPv6 by /64", policy.Config{SessionsPerIP: 1}, []arrival{
			{"2001:db8::1", ""}, {"2001:db8::ffff:1:2:3", "per_ip.sessions"}, {"2001:db8:0:1::1", ""},
		}, 1},
		{"IPv4 in IPv6 form is IPv4", policy.Config{SessionsPerIP: 1}, []arrival{
			{"192.0.2.1", ""}, {"::ffff:192.0.2.1", "per_ip.sessions"}, {"::ffff:192.0.2.2", ""},
		}, 1},
		{"a zone is no other network", policy.Config{SessionsPerIP: 1}, []arrival{
			{"fe80::1%eth0", ""}, {"fe80::2%eth1", "per_ip.sessions"},
		}, 1},
		{"exempt", policy.Config{Sessions: 1, SessionsPerIP: 1, Exempt: prefixes("192.0.2.0/24", "2001:db8::/32")}, []arrival{
			{"192.0.2.1", ""}, {"192.0.2.1", ""}, {"::ffff:192.0.2.1", ""}, {"2001:db8::1", ""}, {"2001:db8::1", ""},
			{"198.51.100.1", "all.sessions"}, // for the exempt are counted
		}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, g := limited(t, tt.config)
			var visits []*policy.Visit
			for i, a := range tt.arrivals {
				v, err := g.Admit(t.Context(), client(a.addr))
				if (err == nil) != (v != nil) {
					t.Fatalf("arrival %d, %s: got %v, %v", i, a.addr, v, err)
				}
				wantLimit(t, err, a.want)
				if v != nil {
					visits = append(visits, v)
				}
			}
			for _, v := range visits {
				v.Close()
				v.Close() // once more gives back nothing more
			}
			wantHeld(t, k, 0, 0, 0)
			admit(t, g, tt.arrivals[0].addr)
			if _, _, _, n := k.Held(); n != tt.places {
				t.Errorf("one more client: got %d places held, want %d", n, tt.places)
			}
		})
	}
}

// TestAdmitRefusedLeavesNothing: the session counted in all must not stay when the network is full.
func TestAdmitRefusedLeavesNothing(t *testing.T) {
	k, g := limited(t, policy.Config{Sessions: 2, SessionsPerIP: 1})
	admit(t, g, "192.0.2.1")
	for range 10 {
		_, err := g.Admit(t.Context(), client("192.0.2.1"))
		wantLimit(t, err, "per_ip.sessions")
	}
	wantHeld(t, k, 1, 1, 0)
	admit(t, g, "192.0.2.2")
}

// TestReload: counts go on under new rules, and a visit ends by the rules it began with.
func TestReload(t *testing.T) {
	k, before := limited(t, policy.Config{Sessions: 100, SessionsPerIP: 100})
	old := admit(t, before, "192.0.2.1")
	after := gateOf(t, k, policy.Parts{Limits: policy.Config{SessionsPerIP: 1, LoginsPerIP: per(1, time.Hour)}})
	_, err := after.Admit(t.Context(), client("192.0.2.1"))
	wantLimit(t, err, "per_ip.sessions")
	for range 3 {
		login(t, old, "anna", policy.Refused, "")
	}
	old.Close()
	wantHeld(t, k, 0, 0, 0)
	v := admit(t, after, "192.0.2.1")
	login(t, v, "anna", policy.Refused, "")
	wantLimit(t, v.Attempt(t.Context(), query("anna", "x")), "per_ip.failures")
}

// TestTogether is many clients at once, for the race detector and for the bounds.
func TestTogether(t *testing.T) {
	const most, perIP = 20, 3
	k := policy.New(policy.Options{})
	g := gateOf(t, k, policy.Parts{Lockout: lockout.DefaultConfig(), Limits: policy.Config{
		Sessions: most, SessionsPerIP: perIP, SessionsPerUser: 2, LoginsPerIP: per(50, time.Hour), LoginsPerUser: per(100, time.Hour),
	}})
	addrs := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8:1::1"}
	var in atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 200 {
				v, err := g.Admit(t.Context(), client(addrs[(i+j)%len(addrs)]))
				if err != nil {
					continue
				}
				if s, n, u, _ := k.Held(); s > most || n > len(addrs) || u > 4 {
					t.Errorf("counted: %d sessions, %d networks, %d users", s, n, u)
				}
				user := string(rune('a' + j%4))
				if v.Attempt(t.Context(), query(user, user)) == nil && v.Enter(t.Context(), route(user)) == nil {
					o := policy.Outcome(j % 3)
					if v.Done(t.Context(), o) == nil && o == policy.Accepted && j%2 == 0 {
						in.Add(1)
						v.Settle()
					}
				}
				v.Close()
			}
		})
	}
	wg.Wait()
	if in.Load() == 0 {
		t.Error("nobody ever came in")
	}
	wantHeld(t, k, 0, 0, 0)
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
