package backend

import (
	"fmt"
	"strings"
	"time"
)

// Validate reports each fault of the section by the key it stands at. It looks at no files and no names.
func (c Config) Validate(fault func(key, problem string)) {
	if c.Name == "" {
		fault("name", "is missing; routes refer to a backend by its name")
	}
	c.validateServers(fault)
	oneOf(fault, "balance", c.Balance, BalanceHash)
	oneOf(fault, "tls", c.TLS, TLSNone, TLSStart, TLSImplicit)
	oneOf(fault, "client_info", c.ClientInfo, ClientNone, ClientProxyV1, ClientProxyV2, ClientXClient, ClientXOIP)
	c.validateTLS(fault)
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
	} {
		if d.value < 0 {
			fault(d.key, "is negative; write a duration such as 10s, or "+d.zero)
		}
	}
}

func (c Config) validateServers(fault func(key, problem string)) {
	if len(c.Servers) == 0 {
		fault("servers", "is empty; a backend needs at least one server, such as {address: \"10.0.0.5:110\"}")
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
