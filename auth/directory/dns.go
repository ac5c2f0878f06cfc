package directory

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
)

// The services of RFC 6186, with and without TLS from the start.
const (
	servicePOP3S = "pop3s"
	servicePOP3  = "pop3"
)

// DNSConfig is the section `dns` of a directory.
type DNSConfig struct {
	// The services whose SRV records (RFC 6186) are looked for in the user's domain, in this order: `pop3s` for _pop3s._tcp, with TLS
	// from the start, and `pop3` for _pop3._tcp, where TLS starts as the route's backend has it. The first that has
	// records is taken.
	Services []string `yaml:"services"`
	// The DNS server to ask, such as "192.0.2.53" or "192.0.2.53:5353". Its answers are then kept for as long as their records
	// say. Empty are the system's own, whose answers come without that time.
	Resolver string `yaml:"resolver"`
}

// defaultDNS is what holds where the section says nothing.
func defaultDNS() DNSConfig { return DNSConfig{Services: []string{servicePOP3S, servicePOP3}} }

// validate reports what is wrong with c by itself. It opens no file and asks nobody.
func (c DNSConfig) validate(fault func(key, problem string)) {
	if len(c.Services) == 0 {
		fault("services", "is empty; write pop3s, pop3 or both")
	}
	for i, s := range c.Services {
		key := fmt.Sprintf("services[%d]", i)
		switch {
		case s != servicePOP3S && s != servicePOP3:
			fault(key, fmt.Sprintf("is %q; write pop3s or pop3", clip(s)))
		case slices.Index(c.Services, s) < i:
			fault(key, fmt.Sprintf("is %q a second time", s))
		}
	}
	if c.Resolver != "" {
		if _, err := resolverAddress(c.Resolver); err != nil {
			fault("resolver", err.Error())
		}
	}
}

// resolverAddress is host:port of a DNS server. A name is refused: something would have to resolve it.
func resolverAddress(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return net.JoinHostPort(addr.String(), "53"), nil
	}
	if at, err := netip.ParseAddrPort(text); err == nil && at.Port() != 0 {
		return at.String(), nil
	}
	return "", fmt.Errorf(`is %q; write an IP address such as "192.0.2.53", with a port as "192.0.2.53:5353" or "[2001:db8::53]:53"`, clip(text))
}

// newDNS makes the source of a section. It asks nobody yet.
func newDNS(_ string, c DNSConfig, _ *slog.Logger) (Opened, error) {
	d := &dnsSource{services: c.Services, find: system{net.DefaultResolver}.srv, known: make(map[string]srvAnswer)}
	if c.Resolver != "" {
		address, err := resolverAddress(c.Resolver)
		if err != nil {
			return Opened{}, fmt.Errorf("resolver %w", err)
		}
		d.find = resolver{address}.srv
	}
	return Opened{Source: d, Vary: VaryUser}, nil
}
