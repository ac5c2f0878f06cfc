package backend

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

func TestParseAddress(t *testing.T) {
	tests := []struct{ in, mode, text, host string }{
		{"10.0.0.5:110", TLSNone, "10.0.0.5:110", "10.0.0.5"},
		{"10.0.0.5", TLSNone, "10.0.0.5:110", "10.0.0.5"},
		{"10.0.0.5", TLSStart, "10.0.0.5:110", "10.0.0.5"},
		{"10.0.0.5", TLSImplicit, "10.0.0.5:995", "10.0.0.5"},
		{"[2001:db8::5]:1110", TLSNone, "[2001:db8::5]:1110", "2001:db8::5"},
		{"[2001:db8::5]", TLSNone, "[2001:db8::5]:110", "2001:db8::5"},
		{"2001:DB8::5", TLSImplicit, "[2001:db8::5]:995", "2001:db8::5"},
		{"::ffff:10.0.0.5", TLSNone, "10.0.0.5:110", "10.0.0.5"},
		{"Mail.Example.ORG:0110", TLSNone, "mail.example.org:110", "mail.example.org"},
		{"mail.example.org.", TLSNone, "mail.example.org.:110", "mail.example.org"},
		{"old_box", TLSNone, "old_box:110", "old_box"},
	}
	for _, tt := range tests {
		a, err := parseAddress(tt.in, tt.mode)
		if err != nil || a.text != tt.text || a.host != tt.host {
			t.Errorf("%s: got %q, %q, %v, want %q, %q", tt.in, a.text, a.host, err, tt.text, tt.host)
		}
	}
	for _, in := range []string{
		"", ":110", "host:", "host:0", "host:65536", "host:pop3", "host:-1", "a b:110", "10.0.0.256", "10.0.0:110",
		"http://host:110", "unix:/run/pop3", "[host", "[::1]110", "-host", "a..b", strings.Repeat("a", 64), "*.example.org",
	} {
		if a, err := parseAddress(in, TLSNone); err == nil {
			t.Errorf("%q: got %+v, want an error", in, a)
		}
	}
}

func TestValidate(t *testing.T) {
	server := func(a string, w int) ServerConfig { return ServerConfig{Address: a, Weight: w} }
	tests := []struct {
		name   string
		change func(*Config)
		want   []string // the keys
	}{
		{"good", func(*Config) {}, nil},
		{"drained", func(c *Config) { c.Servers = []ServerConfig{server("a", 0), server("b", 5)} }, nil},
		{"limits off", func(c *Config) { c.ConnectTimeout, c.ReplyTimeout, c.RetryAfter = 0, 0, 0 }, nil},
		{"empty", func(c *Config) { *c = Config{} },
			[]string{"balance", "check.type", "client_info", "name", "resolve_interval", "servers", "tls", "tls_min_version"}},
		{"servers", func(c *Config) {
			c.Servers = []ServerConfig{server("a", -1), server("A:110", 1), server("a:x", 1), server("b", 10001)}
		}, []string{"servers[0].weight", "servers[1].address", "servers[2].address", "servers[3].weight"}},
		{"values", func(c *Config) { c.Balance, c.TLS, c.ClientInfo = "random", "yes", "proxy" },
			[]string{"balance", "client_info", "tls"}},
		{"durations", func(c *Config) {
			c.ConnectTimeout, c.GreetingTimeout, c.ReplyTimeout, c.RetryAfter = -1, -1, -1, -time.Second
		}, []string{"connect_timeout", "greeting_timeout", "reply_timeout", "retry_after"}},
		{"more durations", func(c *Config) {
			c.SlowStart, c.QueueTimeout, c.Check.Interval, c.ResolveInterval = -1, -1, time.Millisecond, 0
		}, []string{"check.interval", "queue_timeout", "resolve_interval", "slow_start"}},
		{"numbers", func(c *Config) {
			c.MaxSessions, c.LoginsPerSecond, c.Queue, c.BreakerNetworks = -1, 1_000_000, -5, 100
			c.Servers[0].MaxSessions, c.Servers[0].LoginsPerSecond = -1, -1
		}, []string{"breaker_networks", "logins_per_second", "max_sessions", "queue", "servers[0].logins_per_second", "servers[0].max_sessions"}},
		{"sources", func(c *Config) { c.Source = []string{"10.0.0.1", "fd00::1", "mail", "10.0.0.1:0", "0.0.0.0"} },
			[]string{"source[2]", "source[3]", "source[4]"}},
		{"probe login", func(c *Config) { c.Check.Type = CheckLogin }, []string{"check.password_file", "check.user"}},
		{"no probe login", func(c *Config) { c.Check.User, c.Check.PasswordFile = "probe", "file" },
			[]string{"check.password_file", "check.user"}},
		{"directory's servers", func(c *Config) { c.Servers, c.DirectoryServers = nil, true }, nil},
		{"texts", func(c *Config) {
			c.InUseText, c.WrongText = []string{"lock", "ab", ""}, make([]string, maxTexts+1)
			for i := range c.WrongText {
				c.WrongText[i] = "some"
			}
		}, []string{"inuse_text[1]", "inuse_text[2]", "wrong_text"}},
		{"TLS options without TLS", func(c *Config) {
			c.TLSCA, c.TLSServerName, c.TLSPinSHA256 = "ca.pem", "mail", []string{strings.Repeat("a0", 32)}
		}, []string{"tls_ca", "tls_pin_sha256", "tls_server_name"}},
		{"pins", func(c *Config) {
			c.TLS = TLSStart
			c.TLSPinSHA256 = []string{"abcd", strings.Repeat("A0:", 31) + "A0", "sha256//" + strings.Repeat("A", 43) + "="}
			c.TLSMinVersion = "1"
		}, []string{"tls_min_version", "tls_pin_sha256[0]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config("10.0.0.5:110")
			tt.change(&c)
			var keys []string
			c.Validate(func(key, problem string) {
				keys = append(keys, key)
				if tt.name == "durations" && strings.Contains(problem, "0 to never pass") != (key == "retry_after") {
					t.Errorf("%s: the problem %q says something else of 0 than is true", key, problem)
				}
				if problem == "" || strings.HasSuffix(problem, ".") {
					t.Errorf("%s: the problem %q is no sentence fragment", key, problem)
				}
			})
			slices.Sort(keys)
			if !slices.Equal(keys, tt.want) {
				t.Errorf("got faults at %q, want %q", keys, tt.want)
			}
		})
	}
}

func TestHints(t *testing.T) {
	const sees, clear = "sees all clients at popgate's address", "passwords go to "
	tests := []struct {
		tls, info string
		servers   []string
		want      []string // what each hint has in it
	}{
		{TLSNone, ClientNone, []string{"10.0.0.5:110"}, []string{sees}},
		{TLSNone, ClientXClient, []string{"10.0.0.5", "127.0.0.1", "fd00::5", "[fe80::5]:110", "0.0.0.0", "mail.example.org"}, nil},
		{TLSNone, ClientXOIP, []string{"192.0.2.5:110", "10.0.0.5", "192.0.2.6", "2001:db8::5", "::ffff:192.0.2.7"},
			[]string{clear + "192.0.2.5:110", clear + "192.0.2.6:110", clear + "[2001:db8::5]:110", clear + "192.0.2.7:110"}},
		{TLSNone, ClientNone, []string{"192.0.2.5"}, []string{sees, clear}},
		{TLSStart, ClientProxyV2, []string{"192.0.2.5"}, nil},
		{TLSImplicit, ClientNone, []string{"192.0.2.5"}, []string{sees}},
	}
	for _, tt := range tests {
		c := config(tt.servers...)
		c.TLS, c.ClientInfo = tt.tls, tt.info
		got := c.Hints()
		fits := len(got) == len(tt.want)
		for i := 0; fits && i < len(got); i++ {
			fits = strings.Contains(got[i], tt.want[i]) && strings.HasPrefix(got[i], "backend old")
		}
		if !fits {
			t.Errorf("%s, %s, %q: got %q, want %q in them", tt.tls, tt.info, tt.servers, got, tt.want)
		}
	}
}

func TestPrepareFaults(t *testing.T) {
	good, badCA, twice := config("10.0.0.5"), config("10.0.0.6"), config("nowhere:x")
	badCA.Name, badCA.TLS, badCA.TLSCA = "ca", TLSStart, "testdata/none.pem"
	v, err := New(nil, nil).Prepare([]Config{good, badCA, twice})
	if v != nil || err == nil {
		t.Fatalf("got %v, %v, want an error", v, err)
	}
	var all auth.Faults
	if !errors.As(err, &all) || len(all) != 3 {
		t.Fatalf("got %d faults, want 3", len(all))
	}
	var f *auth.Fault
	if !errors.As(err, &f) || f.Key != "backends[1].tls_ca" || !errors.Is(f, fs.ErrNotExist) {
		t.Errorf("got the fault %+v, want its key and cause", f)
	}
	got := fmt.Sprint(err)
	for _, want := range []string{
		"backends[1].tls_ca: open testdata/none.pem", "backends[2].servers[0].address: ", "backends[2].name: is \"old\"",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

// FuzzAddress holds that an address that is taken can be read again, to the same.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.5:110", "[2001:db8::5]:1", "fe80::1%eth0", "mail.example.org", "a:b:c", "[::]", "[]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s, TLSNone)
		if err != nil {
			return
		}
		b, err := parseAddress(a.text, TLSImplicit)
		if err != nil || a != b {
			t.Errorf("%q gives %+v, and that %+v, %v", s, a, b, err)
		}
	})
}
