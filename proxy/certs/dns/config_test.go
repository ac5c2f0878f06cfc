package dns

import (
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	rfc := func(r RFC2136) func(*Config) {
		return func(c *Config) { c.Provider, c.RFC2136 = ProviderRFC2136, r }
	}
	good := RFC2136{Server: "ns1.example.org", KeyFile: "/etc/popgate/key"}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // "" where all is well; else the beginning of the one fault
	}{
		{"defaults", func(*Config) {}, ""},
		{"rfc2136", rfc(good), ""},
		{"acme-dns", func(c *Config) {
			c.Provider, c.ACMEDNS = ProviderACMEDNS, ACMEDNS{Server: "https://auth.example.org", Accounts: "/etc/popgate/acme-dns"}
		}, ""},
		{"webhook on loopback", func(c *Config) { c.Provider, c.Webhook.URL = ProviderWebhook, "http://[::1]:8080/x" }, ""},
		{"unknown provider", func(c *Config) { c.Provider = "rfc2163" }, `provider "rfc2163" is not in this popgate: write one of acme_dns, exec, rfc2136, webhook`},
		{"section without provider", func(c *Config) { c.RFC2136 = good }, "rfc2136 has no effect without provider: rfc2136"},
		{"another's section", func(c *Config) { rfc(good)(c); c.Exec.Command = []string{"/bin/true"} }, "exec has no effect"},
		{"settings for none", func(c *Config) { rfc(good)(c); c.SettingsFile = "/etc/x" }, "settings_file is only for"},
		{"no server", rfc(RFC2136{KeyFile: "k"}), "rfc2136.server is missing"},
		{"bad server", rfc(RFC2136{Server: "ns1:port", KeyFile: "k"}), `rfc2136.server "ns1:port" has no usable port`},
		{"server is a URL", rfc(RFC2136{Server: "https://ns1", KeyFile: "k"}), "rfc2136.server "},
		{"no key", rfc(RFC2136{Server: "192.0.2.1"}), "rfc2136.key_file is missing"},
		{"bad zone", rfc(RFC2136{Server: "::1", KeyFile: "k", Zone: "a..b"}), "rfc2136.zone"},
		{"bad key name", rfc(RFC2136{Server: "[::1]:53", KeyFile: "k", KeyName: "my key"}), "rfc2136.key_name"},
		{"old algorithm", rfc(RFC2136{Server: "[::1]", KeyFile: "k", Algorithm: "hmac-md5"}), `rfc2136.algorithm "hmac-md5" is not offered`},
		{"no accounts", func(c *Config) { c.Provider, c.ACMEDNS.Server = ProviderACMEDNS, "https://a" }, "acme_dns.accounts is missing"},
		{"acme-dns in clear", func(c *Config) {
			c.Provider, c.ACMEDNS = ProviderACMEDNS, ACMEDNS{Server: "http://auth.example.org", Accounts: "/a"}
		}, "acme_dns.server would send secrets in clear"},
		{"no command", func(c *Config) { c.Provider = ProviderExec }, "exec.command is missing"},
		{"relative command", func(c *Config) { c.Provider, c.Exec.Command = ProviderExec, []string{"hook"} }, `exec.command "hook" is no full path`},
		{"bad variable", func(c *Config) {
			c.Provider, c.Exec = ProviderExec, Exec{Command: []string{"/h"}, Env: []string{"A=1", "B"}}
		}, `exec.env[1] "B" sets nothing`},
		{"no URL", func(c *Config) { c.Provider = ProviderWebhook }, "webhook.url is missing"},
		{"half a URL", func(c *Config) { c.Provider, c.Webhook.URL = ProviderWebhook, "dns.example.org/x" }, "webhook.url"},
		{"password in URL", func(c *Config) { c.Provider, c.Webhook.URL = ProviderWebhook, "https://u:p@a/" }, "webhook.url holds a password"},
		{"override", func(c *Config) { c.OverrideDomain = "*.example.org" }, "override_domain"},
		{"resolver", func(c *Config) { c.Resolver = "a b" }, "resolver"},
		{"resolvers", func(c *Config) { c.Propagation.Resolvers = []string{"192.0.2.1", "192.0.2.1:0"} }, "propagation.resolvers[1]"},
		{"no ttl", func(c *Config) { c.TTL = 0 }, "ttl is 0s"},
		{"odd ttl", func(c *Config) { c.TTL = 1500 * time.Millisecond }, "ttl is 1.5s"},
		{"no timeout", func(c *Config) { c.Timeout = 0 }, "timeout is 0s"},
		{"delay", func(c *Config) { c.Propagation.Delay = -1 }, "propagation.delay"},
		{"wait", func(c *Config) { c.Propagation.Timeout = -1 }, "propagation.timeout"},
	} {
		c := DefaultConfig()
		tt.change(&c)
		var faults []string
		c.Validate(func(key, problem string) { faults = append(faults, key+" "+problem) })
		if tt.want == "" && len(faults) > 0 || tt.want != "" && (len(faults) != 1 || !strings.HasPrefix(faults[0], tt.want)) {
			t.Errorf("%s: faults %q, want %q", tt.name, faults, tt.want)
		}
		if want := c.Provider != ""; c.Enabled() != want {
			t.Errorf("%s: enabled %v", tt.name, c.Enabled())
		}
	}
	_, err := New(Config{Provider: "nobody"}, nil)
	wantError(t, err, `"nobody" is not in this popgate`)
}

func TestServerAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.53": "192.0.2.53:53", "192.0.2.53:5353": "192.0.2.53:5353", "2001:db8::53": "[2001:db8::53]:53", "[2001:db8::53]": "[2001:db8::53]:53",
		"[2001:db8::53]:5353": "[2001:db8::53]:5353", "ns1.example.org": "ns1.example.org:53", "ns1.example.org:54": "ns1.example.org:54",
		"": "", ":53": "", "a:b:c": "", "ns1:70000": "", "[ns1]": "", "udp://ns1": "", "ns1/24": "",
	} {
		got, err := serverAddress(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}
