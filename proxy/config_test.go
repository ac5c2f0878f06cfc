package proxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// faults collects what a Validate reports, by key.
func faults(validate func(func(key, problem string))) map[string]string {
	got := map[string]string{}
	validate(func(key, problem string) { got[key] = problem })
	return got
}

// wantFault checks that there is just one fault, at key, whose sentence has part in it; no key means no fault.
func wantFault(t *testing.T, name string, got map[string]string, key, part string) {
	t.Helper()
	if key == "" {
		if len(got) > 0 {
			t.Errorf("%s: %v, want no fault", name, got)
		}
		return
	}
	if len(got) != 1 || !strings.Contains(got[key], part) {
		t.Errorf("%s: %v, want one at %s with %q", name, got, key, part)
	}
}

func TestListenerValidate(t *testing.T) {
	for name, tt := range map[string]struct {
		change    func(*ListenerConfig)
		key, part string
	}{
		"the default":          {func(*ListenerConfig) {}, "", ""},
		"an IPv6 address":      {func(c *ListenerConfig) { c.Address = "[::1]:995" }, "", ""},
		"no name":              {func(c *ListenerConfig) { c.Name = "" }, "name", "pop3s"},
		"no port":              {func(c *ListenerConfig) { c.Address = "192.0.2.1" }, "address", `":995"`},
		"a port by name":       {func(c *ListenerConfig) { c.Address = ":pop3s" }, "address", "0 to 65535"},
		"a port too large":     {func(c *ListenerConfig) { c.Address = ":65536" }, "address", "0 to 65535"},
		"a host by name":       {func(c *ListenerConfig) { c.Address = "localhost:995" }, "address", "IP address"},
		"an unknown TLS":       {func(c *ListenerConfig) { c.TLS = "yes" }, "tls", "implicit, starttls or offloaded"},
		"offloaded to anybody": {func(c *ListenerConfig) { c.TLS = TLSOffloaded }, "tls", "proxy_protocol_from"},
		"offloaded": {func(c *ListenerConfig) {
			c.TLS, c.ProxyProtocolFrom = TLSOffloaded, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}, "", ""},
		"an unknown ALPN":         {func(c *ListenerConfig) { c.ALPN = "off" }, "alpn", "strict or lenient"},
		"no separators":           {func(c *ListenerConfig) { c.Separators = "" }, "separators", `"@"`},
		"a forbidden separator":   {func(c *ListenerConfig) { c.Forbidden = "*@" }, "forbidden", "separators"},
		"nothing forbidden":       {func(c *ListenerConfig) { c.Forbidden = "" }, "", ""},
		"no possible domain":      {func(c *ListenerConfig) { c.DefaultDomain = "a b" }, "default_domain", "no domain name"},
		"no possible server name": {func(c *ListenerConfig) { c.DefaultName = "-.-.*" }, "default_name", "no domain name"},
		"legacy for nobody":       {func(c *ListenerConfig) { c.Legacy = true }, "legacy_networks", "named networks"},
		"legacy for everybody": {func(c *ListenerConfig) {
			c.Legacy, c.LegacyNetworks = true, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
		}, "legacy_networks[0]", "everybody"},
		"legacy for IPv4 in IPv6": {func(c *ListenerConfig) {
			c.Legacy, c.LegacyNetworks = true, []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.0/120")}
		}, "legacy_networks[0]", "as IPv4"},
		"legacy networks of a listener that is none": {func(c *ListenerConfig) {
			c.LegacyNetworks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}, "legacy_networks", "legacy: true"},
		"legacy": {func(c *ListenerConfig) {
			c.Legacy, c.TLS, c.LegacyNetworks = true, TLSOptional, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}, "", ""},
		"legacy offloaded": {func(c *ListenerConfig) {
			nets := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			c.Legacy, c.TLS, c.LegacyNetworks, c.ProxyProtocolFrom = true, TLSOffloaded, nets, nets
		}, "legacy", "TLS ends before"},
		"in clear by accident": {func(c *ListenerConfig) { c.TLS = TLSOptional }, "tls", "legacy: true"},
	} {
		c := DefaultListener()
		c.Name, c.Address = "pop3s", ":995"
		tt.change(&c)
		wantFault(t, name, faults(c.Validate), tt.key, tt.part)
	}
}

func TestLimitsValidate(t *testing.T) {
	wantFault(t, "default timeouts", faults(DefaultTimeouts().Validate), "", "")
	wantFault(t, "default bounds", faults(DefaultBounds().Validate), "", "")
	wantFault(t, "default shutdown", faults(DefaultShutdown().Validate), "", "")
	if got := faults(Timeouts{}.Validate); len(got) != 4 || got["idle"]+got["stall"]+got["half_close"] != "" {
		t.Errorf("no timeouts: %v, want those before login missed", got)
	}
	if got := faults(Timeouts{-1, -1, -1, -1, -1, -1, -1}.Validate); len(got) != 7 {
		t.Errorf("negative timeouts: %v", got)
	}
	if got := faults(Bounds{}.Validate); len(got) != 5 {
		t.Errorf("no bounds: %v", got)
	}
	for key, change := range map[string]func(*Bounds){
		"accept_ramp":  func(b *Bounds) { b.AcceptRamp = 2 * time.Hour },
		"accept_rate":  func(b *Bounds) { b.AcceptRate = 0 },
		"accept_burst": func(b *Bounds) { b.AcceptBurst = -1 },
		"":             func(b *Bounds) { b.AcceptRamp, b.AcceptRate = 0, 0 },
	} {
		b := DefaultBounds()
		change(&b)
		wantFault(t, key, faults(b.Validate), key, "")
	}
	b := DefaultBounds()
	b.AuthLine = 2 << 20
	wantFault(t, "a huge line", faults(b.Validate), "auth_line", "1MiB")
	if got := faults(Shutdown{-1, -1}.Validate); len(got) != 2 {
		t.Errorf("negative shutdown: %v", got)
	}
	if d := DefaultTimeouts().Idle; d < 10*time.Minute {
		t.Errorf("idle is %v, RFC 1939 asks for 10 minutes at least", d)
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "512": 512, "512B": 512, "1KiB": 1 << 10, "16 KiB": 16 << 10, "10MiB": 10 << 20, "1GiB": 1 << 30, "1024GiB": 1 << 40,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v, want %d", text, s, err, want)
		}
		var again Size
		text, _ := s.MarshalText()
		if err := again.UnmarshalText(text); err != nil || again != s {
			t.Errorf("%s read back is %d, %v", text, again, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "1kb", "1.5MiB", "1 KiB B", "0x10", "9999999999GiB", "1025GiB"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken for %d", text, s)
		}
	}
	sizes := []string{Size(0).String(), Size(1000).String(), Size(1024).String(), Size(16 << 10).String(), Size(3 << 30).String()}
	if want := []string{"0B", "1000B", "1KiB", "16KiB", "3GiB"}; !slices.Equal(sizes, want) {
		t.Errorf("sizes print as %q, want %q", sizes, want)
	}
}
