package limit_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// override is a possible one, for the table to break.
func override() limit.Override {
	o := limit.DefaultOverride()
	o.Name, o.Tenants, o.User.Sessions = "big", []string{"acme"}, 50
	return o
}

func TestValidate(t *testing.T) {
	type change func(c *limit.Config, o *limit.Override)
	for _, tt := range []struct {
		name   string
		change change
		key    string
		want   string
	}{
		{"inherited count", func(c *limit.Config, _ *limit.Override) { c.All.Sessions = limit.InheritCount }, "all.sessions", "is for limits.overrides"},
		{"inherited rate", func(c *limit.Config, _ *limit.Override) { c.IP.Failures = limit.InheritRate }, "per_ip.failures", "is for limits.overrides"},
		{"inherited bandwidth", func(c *limit.Config, _ *limit.Override) { c.User.Download = limit.InheritBandwidth }, "per_user.download", "is for limits.overrides"},
		{"inherited delay", func(c *limit.Config, _ *limit.Override) { c.User.LoginDelay = limit.InheritDelay }, "per_user.login_delay", "is for limits.overrides"},
		{"fine delay", func(c *limit.Config, _ *limit.Override) { c.User.LoginDelay = limit.Delay(time.Second / 2) }, "per_user.login_delay", "whole seconds"},
		{"large rate", func(c *limit.Config, _ *limit.Override) { c.All.Logins = limit.Rate{Count: 1 << 31, Per: time.Second} }, "all.logins", "whole number"},
		{"long burst", func(c *limit.Config, _ *limit.Override) {
			c.Tenant.Logins = limit.Rate{Count: 1, Per: 24 * time.Hour, Burst: 1000}
		}, "per_tenant.logins", "not back in 100 days"},
		{"wide network", func(c *limit.Config, _ *limit.Override) { c.Network.IPv4Prefix = 0 }, "per_network.ipv4_prefix", "from 1 to 32"},
		{"narrow network", func(c *limit.Config, _ *limit.Override) { c.Network.IPv6Prefix = 129 }, "per_network.ipv6_prefix", "from 1 to 128"},
		{"exempt", func(c *limit.Config, _ *limit.Override) { c.Exempt = []netip.Prefix{{}} }, "exempt[0]", "is not a network"},
		{"no name", func(_ *limit.Config, o *limit.Override) { o.Name = "" }, "overrides[1].name", "is missing"},
		{"a name twice", func(_ *limit.Config, o *limit.Override) { o.Name = "first" }, "overrides[1].name", "choose another"},
		{"for everybody", func(_ *limit.Config, o *limit.Override) { o.Tenants = nil }, "overrides[1].name", "for everybody"},
		{"sets nothing", func(_ *limit.Config, o *limit.Override) { o.User.Sessions = limit.InheritCount }, "overrides[1].name", "sets nothing"},
		{"no tenant", func(_ *limit.Config, o *limit.Override) { o.Tenants = []string{"a", ""} }, "overrides[1].tenants[1]", "is empty"},
		{"no user", func(_ *limit.Config, o *limit.Override) { o.Users = []string{"bob smith"} }, "overrides[1].users[0]", "is not a user"},
		{"no domain", func(_ *limit.Config, o *limit.Override) { o.Users = []string{"bob", "@-x"} }, "overrides[1].users[1]", "is not a domain"},
		{"mapped network", func(_ *limit.Config, o *limit.Override) {
			o.Networks = networks("::ffff:10.0.0.0/104")
		}, "overrides[1].networks[0]", "write it as IPv4"},
		{"value", func(_ *limit.Config, o *limit.Override) {
			o.User.Logins = limit.Rate{Count: 1, Per: 24 * time.Hour, Burst: 1000}
		}, "overrides[1].per_user.logins", "not back in 100 days"},
		{"sessions of a tenant's addresses", func(_ *limit.Config, o *limit.Override) { o.IP.Sessions = 5 }, "overrides[1].per_ip.sessions", "before it is known which user"},
		{"connections, off", func(_ *limit.Config, o *limit.Override) { o.Network.Connections = limit.Rate{} }, "overrides[1].per_network.connections", "before it is known which user"},
		{"handshakes of a user", func(_ *limit.Config, o *limit.Override) {
			o.Tenants, o.Users, o.IP.Handshakes = nil, []string{"bob"}, 1
		}, "overrides[1].per_ip.handshakes", "for networks alone"},
		{"failures", func(_ *limit.Config, o *limit.Override) {
			o.Networks, o.Network.Failures = networks("10.0.0.0/8"), limit.Rate{Count: 1, Per: time.Second}
		}, "overrides[1].per_network.failures", "before it is known which user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := override()
			first.Name = "first"
			c := limit.Config{Network: limit.DefaultNetwork(), Overrides: []limit.Override{first, override()}}
			c.Validate(func(key, problem string) { t.Errorf("before: %s %s", key, problem) })
			tt.change(&c, &c.Overrides[1])
			faults := map[string]string{}
			c.Validate(func(key, problem string) { faults[key] = problem })
			if len(faults) != 1 || !strings.Contains(faults[tt.key], tt.want) {
				t.Errorf("got %q, want %s alone, with %q", faults, tt.key, tt.want)
			}
		})
	}
}

// TestValidateLate: what is decided once the user is known can be set for users, whosever count it is.
func TestValidateLate(t *testing.T) {
	o := override()
	o.IP.Logins, o.IP.Download, o.Network.Commands = limit.Rate{}, limit.Bandwidth{PerSecond: 1 << 20}, limit.Rate{Count: 1, Per: time.Second}
	o.Tenant.Sessions, o.Tenant.Failures, o.User.LoginDelay = 1, limit.Rate{}, 0
	alone := limit.DefaultOverride()
	alone.Name, alone.Networks, alone.IP.Sessions, alone.Network.Failures = "webmail", networks("10.0.0.0/8"), 0, limit.Rate{}
	c := limit.Config{Network: limit.DefaultNetwork(), Overrides: []limit.Override{o, alone}}
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
}
