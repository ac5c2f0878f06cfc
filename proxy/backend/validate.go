package backend

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
)

// Validate reports each fault of the section by the key it stands at. It looks at no files and no names.
func (c Config) Validate(fault func(key, problem string)) {
	if c.Name == "" {
		fault("name", "is missing; routes refer to a backend by its name")
	}
	c.validateServers(fault)
	oneOf(fault, "balance", c.Balance, BalanceHash, BalanceLeast, BalanceFailover)
	oneOf(fault, "tls", c.TLS, TLSNone, TLSStart, TLSImplicit)
	oneOf(fault, "client_info", c.ClientInfo, ClientNone, ClientProxyV1, ClientProxyV2, ClientXClient, ClientXOIP)
	c.validateTLS(fault)
	c.validateDurations(fault)
	c.validateNumbers(fault)
	c.validateSource(fault)
	c.validateFamilies(fault)
	c.Check.validate(fault)
	c.validateTexts(fault)
}

func (c Config) validateDurations(fault func(key, problem string)) {
	const unbounded = "0 to leave it to timeouts.backend_login"
	for _, d := range []struct {
		key   string
		value time.Duration
		zero  string
	}{
		{"connect_timeout", c.ConnectTimeout, unbounded},
		{"greeting_timeout", c.GreetingTimeout, unbounded},
		{"reply_timeout", c.ReplyTimeout, unbounded},
		{"retry_after", c.RetryAfter, "0 to never pass a server over"},
		{"slow_start", c.SlowStart, "0 for all at once"},
		{"queue_timeout", c.QueueTimeout, "0 to not wait"},
		{"check.interval", c.Check.Interval, "0 to check a server that is up only once"},
	} {
		if d.value < 0 {
			fault(d.key, "is negative; write a duration such as 10s, or "+d.zero)
		}
	}
	if c.Check.Interval > 0 && c.Check.Interval < time.Second {
		fault("check.interval", fmt.Sprintf("is %v; write 1s or more", c.Check.Interval))
	}
	if c.ResolveInterval < time.Second {
		fault("resolve_interval", fmt.Sprintf("is %v; write 1s or more", c.ResolveInterval))
	}
}

func (c Config) validateNumbers(fault func(key, problem string)) {
	type number struct {
		key       string
		value, to int
	}
	all := []number{
		{"max_sessions", c.MaxSessions, math.MaxInt32},
		{"logins_per_second", c.LoginsPerSecond, maxPace},
		{"queue", c.Queue, maxQueue},
		{"breaker_networks", c.BreakerNetworks, maxBreaker},
	}
	for i, s := range c.Servers {
		key := fmt.Sprintf("servers[%d].", i)
		all = append(all, number{key + "max_sessions", s.MaxSessions, math.MaxInt32},
			number{key + "logins_per_second", s.LoginsPerSecond, maxPace})
	}
	for _, n := range all {
		if n.value < 0 || n.value > n.to {
			fault(n.key, fmt.Sprintf("is %d; write a number from 0 to %d", n.value, n.to))
		}
	}
}

func (c Config) validateSource(fault func(key, problem string)) {
	for i, s := range c.Source {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.IsUnspecified() || ip.IsMulticast() {
			fault(fmt.Sprintf("source[%d]", i), fmt.Sprintf("is %q; write an IP address of this machine", s))
		}
	}
}

// validateFamilies reports servers that no source address reaches.
func (c Config) validateFamilies(fault func(key, problem string)) {
	var v4, v6 bool
	for _, s := range c.Source {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return
		}
		v4, v6 = v4 || ip.Unmap().Is4(), v6 || !ip.Unmap().Is4()
	}
	if len(c.Source) == 0 {
		return
	}
	for i, s := range c.Servers {
		a, err := parseAddress(s.Address, c.TLS)
		if err == nil && a.ip.IsValid() && (a.ip.Addr().Is4() && !v4 || !a.ip.Addr().Is4() && !v6) {
			fault(fmt.Sprintf("servers[%d].address", i), "is of a family (IPv4, IPv6) that no address in source has; add one there")
		}
	}
}

func (c CheckConfig) validate(fault func(key, problem string)) {
	oneOf(fault, "check.type", c.Type, CheckGreeting, CheckCapa, CheckLogin)
	switch {
	case c.Type == CheckLogin && c.User == "":
		fault("check.user", "is missing; check.type: login needs an account to log in as")
	case c.Type == CheckLogin && strings.ContainsAny(c.User, "\r\n\x00"):
		fault("check.user", "has a control character in it")
	case c.Type != CheckLogin && c.User != "":
		fault("check.user", "has no effect without check.type: login")
	}
	switch {
	case c.Type == CheckLogin && c.PasswordFile == "":
		fault("check.password_file", "is missing; check.type: login needs the file with the account's password")
	case c.Type != CheckLogin && c.PasswordFile != "":
		fault("check.password_file", "has no effect without check.type: login")
	}
}

func (c Config) validateTexts(fault func(key, problem string)) {
	for _, list := range []struct {
		key   string
		words []string
	}{
		{"inuse_text", c.InUseText}, {"temporary_text", c.TemporaryText}, {"disabled_text", c.DisabledText}, {"wrong_text", c.WrongText},
	} {
		if len(list.words) > maxTexts {
			fault(list.key, fmt.Sprintf("has %d entries, and at most %d are taken", len(list.words), maxTexts))
		}
		for i, w := range list.words {
			if len(strings.TrimSpace(w)) < minTextSize {
				fault(fmt.Sprintf("%s[%d]", list.key, i), fmt.Sprintf("is %q; write %d characters or more, or it is in too many answers", w, minTextSize))
			}
		}
	}
}

func (c Config) validateServers(fault func(key, problem string)) {
	if len(c.Servers) == 0 && !c.DirectoryServers {
		fault("servers", "is empty; a backend needs at least one server, such as {address: \"10.0.0.5:110\"}, or directory_servers: true")
	}
	seen := map[string]int{}
	for i, s := range c.Servers {
		key := fmt.Sprintf("servers[%d].", i)
		if s.Weight < 0 || s.Weight > maxWeight {
			fault(key+"weight", fmt.Sprintf("is %d; write a number from 0 to %d", s.Weight, maxWeight))
		}
		a, err := parseAddress(s.Address, c.TLS)
		if err != nil {
			fault(key+"address", err.Error())
			continue
		}
		if first, ok := seen[a.text]; ok {
			fault(key+"address", fmt.Sprintf("is the same server as servers[%d]; give it a higher weight instead", first))
			continue
		}
		seen[a.text] = i
	}
}

func (c Config) validateTLS(fault func(key, problem string)) {
	if _, ok := tlsVersions[c.TLSMinVersion]; !ok {
		fault("tls_min_version", fmt.Sprintf("is %q; write one of 1.0, 1.1, 1.2, 1.3, in quotes", c.TLSMinVersion))
	}
	for i, p := range c.TLSPinSHA256 {
		if _, err := parsePin(p); err != nil {
			fault(fmt.Sprintf("tls_pin_sha256[%d]", i), err.Error())
		}
	}
	if c.TLS != TLSNone {
		return
	}
	const useless = "has no effect with tls: none; write tls: starttls or tls: implicit beside it"
	if c.TLSCA != "" {
		fault("tls_ca", useless)
	}
	if c.TLSServerName != "" {
		fault("tls_server_name", useless)
	}
	if len(c.TLSPinSHA256) > 0 {
		fault("tls_pin_sha256", useless)
	}
}

func oneOf(fault func(key, problem string), key, value string, allowed ...string) {
	for _, a := range allowed {
		if value == a {
			return
		}
	}
	fault(key, fmt.Sprintf("is %q; write %s", value, strings.Join(allowed, " or ")))
}
