package limit_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

var hasher = store.NewHasher()

func networks(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// valid makes rules of a Config that has to be possible.
func valid(t *testing.T, c limit.Config) *limit.Rules {
	t.Helper()
	c.Validate(func(key, problem string) { t.Errorf("%s: %s", key, problem) })
	return limit.NewRules(c)
}

// at is a client at an address.
func at(addr string) *auth.Client {
	return &auth.Client{Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 1024), Listener: "pop3s"}
}

// to is a route of a user.
func to(account, tenant string) *auth.Route {
	return &auth.Route{Backend: "old", Account: account, Tenant: tenant}
}

// asked is what a subject asks for at a moment.
func asked(r *limit.Rules, m limit.Moment, c *auth.Client, route *auth.Route) []store.Ask {
	return r.Ask(nil, m, &hasher, &limit.Subject{Client: c, Route: route, Exempt: r.Exempt(c.Addr.Addr())})
}

// text writes asks as "what turn/most".
func text(asks []store.Ask) string {
	var all []string
	for _, a := range asks {
		all = append(all, limit.Of(a.Tag).String()+" "+time.Duration(a.Turn).String()+"/"+limit.Count(max(a.Most, 0)).String())
	}
	return strings.Join(all, ", ")
}

// everything has every limit that there is.
func everything() limit.Config {
	r := func(n int) limit.Rate { return limit.Rate{Count: n, Per: time.Minute, Burst: 2 * n} }
	b := limit.Bandwidth{PerSecond: 1 << 20}
	client := limit.ClientLimits{Sessions: 2, Connections: r(3), Handshakes: 4, Logins: r(5), Failures: r(6), Download: b, Commands: r(60)}
	return limit.Config{
		All:      limit.AllLimits{Sessions: 1, Connections: r(1), Logins: r(1), Failures: r(1), Download: b, Commands: r(60)},
		Listener: client, IP: client,
		Network: limit.NetworkLimits{
			IPv4Prefix: 24, IPv6Prefix: 48,
			Sessions: 2, Connections: r(3), Handshakes: 4, Logins: r(5), Failures: r(6), Download: b, Commands: r(60),
		},
		User:   limit.UserLimits{Sessions: 7, Logins: r(10), LoginDelay: limit.Delay(time.Minute), Download: b, Commands: r(60)},
		Tenant: limit.TenantLimits{Sessions: 8, Logins: r(12), Failures: r(15), Download: b, Commands: r(60)},
	}
}

func TestMoments(t *testing.T) {
	r := valid(t, everything())
	c, known := at("192.0.2.7"), to("bob@example.org", "acme")
	for _, tt := range []struct {
		name  string
		m     limit.Moment
		route *auth.Route
		want  string
	}{
		{"admission", limit.Admission, nil, "per_ip.sessions 0s/2, per_ip.connections 20s/6, per_network.sessions 0s/2, per_network.connections 20s/6, " +
			"per_listener.sessions 0s/2, per_listener.connections 20s/6, all.sessions 0s/1, all.connections 1m0s/2"},
		{"handshake", limit.Handshake, nil, "per_ip.handshakes 0s/4, per_network.handshakes 0s/4, per_listener.handshakes 0s/4"},
		{"attempt", limit.Attempt, nil, "per_ip.failures 10s/12, per_network.failures 10s/12, per_listener.failures 10s/12, all.failures 1m0s/2"},
		{"entry", limit.Entry, known, "per_tenant.failures 4s/30"},
		{"entry, without a tenant", limit.Entry, to("bob", ""), ""},
		{"entry, before it is known", limit.Entry, nil, ""},
		{"acceptance", limit.Acceptance, known, "per_user.sessions 0s/7, per_user.login_delay 1m0s/1, per_user.logins 6s/20, per_tenant.sessions 0s/8, " +
			"per_tenant.logins 5s/24, per_ip.logins 12s/10, per_network.logins 12s/10, per_listener.logins 12s/10, all.logins 1m0s/2"},
		{"download", limit.Downloading, to("bob", ""), "per_user.download 976.562µs/1024, per_ip.download 976.562µs/1024, per_network.download 976.562µs/1024, " +
			"per_listener.download 976.562µs/1024, all.download 976.562µs/1024"},
		{"commands", limit.Commanding, known, "per_user.commands 1s/120, per_ip.commands 1s/120, per_network.commands 1s/120, per_tenant.commands 1s/120, " +
			"per_listener.commands 1s/120, all.commands 1s/120"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asks := asked(r, tt.m, c, tt.route)
			if got := text(asks); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !r.Any(tt.m) {
				t.Error("Any: got false")
			}
			keys := map[store.Key]bool{}
			for _, a := range asks {
				keys[a.Key] = true
			}
			if len(keys) != len(asks) {
				t.Errorf("got %d keys for %d asks", len(keys), len(asks))
			}
		})
	}
	if got, want := r.Places(), len(asked(r, limit.Admission, c, nil)); got != want {
		t.Errorf("Places: got %d, want %d", got, want)
	}
}

// TestNothing: rules without limits ask for nothing, and say so.
func TestNothing(t *testing.T) {
	r := valid(t, limit.Config{Network: limit.DefaultNetwork()})
	for m := limit.Admission; m <= limit.Commanding; m++ {
		if r.Any(m) || len(asked(r, m, at("192.0.2.7"), to("bob", "acme"))) > 0 {
			t.Errorf("moment %d: got something to ask for", m)
		}
	}
	if r.MaxLoginDelay() != 0 || r.Exempt(netip.MustParseAddr("192.0.2.7")) || r.Exempt(netip.Addr{}) {
		t.Error("got a login delay, or an exempt client")
	}
}

// TestKeys: who shares a count shares its key, and nobody else does.
func TestKeys(t *testing.T) {
	r := valid(t, everything())
	keys := func(addr, listener string) (by map[limit.What]store.Key) {
		by = map[limit.What]store.Key{}
		c := at(addr)
		c.Listener = listener
		for _, a := range asked(r, limit.Admission, c, nil) {
			by[limit.Of(a.Tag)] = a.Key
		}
		return by
	}
	for _, tt := range []struct {
		a, b   string
		shared []limit.Scope
	}{
		{"192.0.2.7", "192.0.2.7", []limit.Scope{limit.All, limit.Listener, limit.IP, limit.Network}},
		{"192.0.2.7", "::ffff:192.0.2.7", []limit.Scope{limit.All, limit.Listener, limit.IP, limit.Network}},
		{"192.0.2.7", "192.0.2.8", []limit.Scope{limit.All, limit.Listener, limit.Network}},
		{"192.0.2.7", "192.0.3.7", []limit.Scope{limit.All, limit.Listener}},
		{"2001:db8::1", "2001:db8::2", []limit.Scope{limit.All, limit.Listener, limit.IP, limit.Network}},
		{"2001:db8::1", "2001:db8:0:1::1", []limit.Scope{limit.All, limit.Listener, limit.Network}},
		{"2001:db8::1", "2001:db8:1::1", []limit.Scope{limit.All, limit.Listener}},
	} {
		a, b := keys(tt.a, "pop3s"), keys(tt.b, "pop3s")
		for what, k := range a {
			if got, want := b[what] == k, slices.Contains(tt.shared, what.Scope); got != want {
				t.Errorf("%s and %s: %s shared: got %v, want %v", tt.a, tt.b, what, got, want)
			}
		}
	}
	other := keys("192.0.2.7", "pop3")
	for what, k := range keys("192.0.2.7", "pop3s") {
		if got, want := other[what] != k, what.Scope == limit.Listener; got != want {
			t.Errorf("another listener: %s has another key: got %v, want %v", what, got, want)
		}
	}
}

// TestPacedByRate: what is owed at one rate is not owed at another; what is refused is the same count at any.
func TestPacedByRate(t *testing.T) {
	slow := everything()
	slow.User.Download.PerSecond, slow.User.Logins.Count = 1000, 1
	a, b := valid(t, everything()), valid(t, slow)
	c, route := at("192.0.2.7"), to("bob", "")
	if x, y := asked(a, limit.Downloading, c, route), asked(b, limit.Downloading, c, route); x[0].Key == y[0].Key || x[1].Key != y[1].Key {
		t.Error("download: want another key where the rate is another, and only there")
	}
	short := everything()
	short.User.Download.Burst = 1 << 30
	if x, y := asked(a, limit.Downloading, c, route), asked(valid(t, short), limit.Downloading, c, route); x[0].Key == y[0].Key {
		t.Error("download: want another key where the burst is another")
	}
	for _, ask := range asked(a, limit.Acceptance, c, route) {
		if what := limit.Of(ask.Tag); ask.Whole != (what.Quantity == limit.LoginDelay) {
			t.Errorf("%s: got whole %v: a delay that was announced is the same on each node", what, ask.Whole)
		}
	}
	if x, y := asked(a, limit.Acceptance, c, route), asked(b, limit.Acceptance, c, route); x[2].Key != y[2].Key {
		t.Error("logins: got another key")
	}
}

// TestExempt: nothing refuses, and what others share is counted all the same.
func TestExempt(t *testing.T) {
	cfg := everything()
	cfg.Exempt = networks("192.0.2.0/24", "2001:db8::/32")
	r := valid(t, cfg)
	for _, addr := range []string{"192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"} {
		for m, want := range map[limit.Moment]int{
			limit.Admission: 8, limit.Handshake: 3, limit.Attempt: 4, limit.Entry: 1, limit.Acceptance: 7, limit.Downloading: 0, limit.Commanding: 0,
		} {
			asks := asked(r, m, at(addr), to("bob", "acme"))
			if len(asks) != want {
				t.Errorf("%s, moment %d: got %s", addr, m, text(asks))
			}
			for _, a := range asks {
				if what := limit.Of(a.Tag); a.Most > 0 || what == (limit.What{Scope: limit.User, Quantity: limit.Logins}) {
					t.Errorf("%s, moment %d: got %s, at most %d", addr, m, what, a.Most)
				}
			}
		}
	}
	if got := asked(r, limit.Admission, at("198.51.100.7"), nil); got[0].Most != 2 {
		t.Errorf("another client: got %s", text(got))
	}
}

// overrides are those that the table below looks at.
func overrides() []limit.Override {
	set := func(name string, change func(*limit.Override)) limit.Override {
		o := limit.DefaultOverride()
		o.Name = name
		change(&o)
		return o
	}
	return []limit.Override{
		set("webmail", func(o *limit.Override) {
			o.Networks = networks("10.1.0.0/16", "2001:db8::/32")
			o.IP.Sessions, o.IP.Failures = 5000, limit.Rate{}
		}),
		set("anna", func(o *limit.Override) {
			o.Users = []string{"Anna+any@Example.org"}
			o.User.Sessions, o.User.LoginDelay = 99, 0
		}),
		set("acme at home", func(o *limit.Override) {
			o.Tenants, o.Networks = []string{"acme", "other"}, networks("10.0.0.0/8")
			o.User.Sessions, o.Tenant.Failures = 60, limit.Rate{Count: 1, Per: time.Second}
		}),
		set("domain", func(o *limit.Override) {
			o.Users = []string{"@Example.net", "carl"}
			o.User.Sessions = 0
		}),
		set("acme", func(o *limit.Override) {
			o.Tenants = []string{"acme"}
			o.User.Sessions, o.User.LoginDelay = 50, limit.Delay(5*time.Minute)
		}),
		set("acme's guests", func(o *limit.Override) {
			o.Tenants, o.Users = []string{"acme"}, []string{"guest@example.org"}
			o.User.Sessions, o.User.Logins = 1, limit.Rate{Count: 1, Per: time.Hour}
		}),
		set("wide", func(o *limit.Override) {
			o.Networks = networks("10.0.0.0/8")
			o.IP.Sessions, o.User.Sessions, o.User.Logins = 40, 41, limit.Rate{Count: 42, Per: time.Second}
		}),
	}
}

func TestOverrides(t *testing.T) {
	cfg := limit.Config{
		IP:      limit.ClientLimits{Sessions: 2, Failures: limit.Rate{Count: 60, Per: time.Minute}},
		Network: limit.DefaultNetwork(),
		User:    limit.UserLimits{Sessions: 7, LoginDelay: limit.Delay(time.Minute)},
		Tenant:  limit.TenantLimits{Sessions: 8},
	}
	cfg.Overrides = overrides()
	r := valid(t, cfg)
	if got := r.MaxLoginDelay(); got != 5*time.Minute {
		t.Errorf("MaxLoginDelay: got %v, want 5m, that of acme", got)
	}
	for _, tt := range []struct {
		name, addr, account, tenant                 string
		admission, attempt, entry, acceptanceOfUser string
	}{
		{"none", "192.0.2.7", "bob@example.org", "t", "per_ip.sessions 0s/2", "per_ip.failures 1s/60", "",
			"per_user.sessions 0s/7, per_user.login_delay 1m0s/1"},
		{"network", "10.1.2.3", "bob@example.org", "t", "per_ip.sessions 0s/5000", "", "",
			"per_user.sessions 0s/41, per_user.login_delay 1m0s/1, per_user.logins 23.809523ms/42"},
		{"mapped address", "::ffff:10.1.2.3", "bob@example.org", "t", "per_ip.sessions 0s/5000", "", "",
			"per_user.sessions 0s/41, per_user.login_delay 1m0s/1, per_user.logins 23.809523ms/42"},
		{"later network", "10.2.2.3", "bob@example.org", "t", "per_ip.sessions 0s/40", "per_ip.failures 1s/60", "",
			"per_user.sessions 0s/41, per_user.login_delay 1m0s/1, per_user.logins 23.809523ms/42"},
		{"user", "192.0.2.7", "anna@example.org", "t", "per_ip.sessions 0s/2", "per_ip.failures 1s/60", "", "per_user.sessions 0s/99"},
		{"user before tenant, by order", "10.2.2.3", "anna@example.org", "acme", "per_ip.sessions 0s/40", "per_ip.failures 1s/60",
			"per_tenant.failures 1s/1", "per_user.sessions 0s/99, per_user.logins 23.809523ms/42"},
		{"tenant and network", "10.2.2.3", "bob@example.org", "acme", "per_ip.sessions 0s/40", "per_ip.failures 1s/60",
			"per_tenant.failures 1s/1", "per_user.sessions 0s/60, per_user.login_delay 5m0s/1, per_user.logins 23.809523ms/42"},
		{"tenant, other network", "192.0.2.7", "bob@example.org", "acme", "per_ip.sessions 0s/2", "per_ip.failures 1s/60", "",
			"per_user.sessions 0s/50, per_user.login_delay 5m0s/1"},
		{"domain, off", "192.0.2.7", "bob@example.net", "t", "per_ip.sessions 0s/2", "per_ip.failures 1s/60", "", "per_user.login_delay 1m0s/1"},
		{"user without a domain", "192.0.2.7", "carl", "t", "per_ip.sessions 0s/2", "per_ip.failures 1s/60", "", "per_user.login_delay 1m0s/1"},
		{"a name like a domain", "192.0.2.7", "example.net", "t", "per_ip.sessions 0s/2", "per_ip.failures 1s/60", "",
			"per_user.sessions 0s/7, per_user.login_delay 1m0s/1"},
		{"user of a tenant", "192.0.2.7", "guest@example.org", "acme", "per_ip.sessions 0s/2", "per_ip.failures 1s/60", "",
			"per_user.sessions 0s/50, per_user.login_delay 5m0s/1, per_user.logins 1h0m0s/1"},
		{"that user of another tenant", "192.0.2.7", "guest@example.org", "t", "per_ip.sessions 0s/2", "per_ip.failures 1s/60", "",
			"per_user.sessions 0s/7, per_user.login_delay 1m0s/1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, route := at(tt.addr), to(tt.account, tt.tenant)
			for m, want := range map[limit.Moment]string{limit.Admission: tt.admission, limit.Attempt: tt.attempt, limit.Entry: tt.entry} {
				if got := text(asked(r, m, c, route)); got != want {
					t.Errorf("moment %d: got %s, want %s", m, got, want)
				}
			}
			got := text(slices.DeleteFunc(asked(r, limit.Acceptance, c, route), func(a store.Ask) bool { return limit.Of(a.Tag).Scope != limit.User }))
			if got != tt.acceptanceOfUser {
				t.Errorf("acceptance: got %s, want %s", got, tt.acceptanceOfUser)
			}
		})
	}
}

// busy has many overrides and everything on.
func busy(t testing.TB) *limit.Rules {
	cfg := everything()
	cfg.Overrides, cfg.Exempt = overrides(), networks("203.0.113.0/24")
	cfg.Validate(func(key, problem string) { t.Errorf("%s: %s", key, problem) })
	return limit.NewRules(cfg)
}

// TestAskAllocs: to ask allocates nothing where there is room, whichever hasher makes the keys.
func TestAskAllocs(t *testing.T) {
	r, c, route := busy(t), at("10.1.2.3"), to("bob@example.org", "acme")
	for name, h := range map[string]store.Hasher{"own": hasher, "shared": store.NewSharedHasher(make([]byte, 32))} {
		asks := make([]store.Ask, 0, 16)
		if got := testing.AllocsPerRun(100, func() {
			for m := limit.Admission; m <= limit.Commanding; m++ {
				asks = r.Ask(asks[:0], m, &h, &limit.Subject{Client: c, Route: route})
			}
		}); got != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, got)
		}
	}
}

func BenchmarkAsk(b *testing.B) {
	plain := limit.Config{
		IP: limit.ClientLimits{Failures: limit.Rate{Count: 60, Per: time.Minute}}, Network: limit.DefaultNetwork(),
		All: limit.AllLimits{Failures: limit.Rate{Count: 60, Per: time.Second}},
	}
	for _, bb := range []struct {
		name  string
		rules *limit.Rules
		m     limit.Moment
	}{
		{"attempt", limit.NewRules(plain), limit.Attempt},
		{"attempt, everything on", busy(b), limit.Attempt},
		{"acceptance, everything on", busy(b), limit.Acceptance},
		{"nothing", limit.NewRules(plain), limit.Downloading},
	} {
		b.Run(bb.name, func(b *testing.B) {
			asks, s := make([]store.Ask, 0, 16), limit.Subject{Client: at("10.1.2.3"), Route: to("bob@example.org", "acme")}
			b.ReportAllocs()
			for b.Loop() {
				asks = bb.rules.Ask(asks[:0], bb.m, &hasher, &s)
			}
		})
	}
}
