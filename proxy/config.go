package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
)

// How TLS starts on a listener.
const (
	TLSImplicit  = "implicit"
	TLSStartTLS  = "starttls"
	TLSOptional  = "optional"
	TLSOffloaded = "offloaded"
)

// A ListenerConfig is one element of `listeners`: an address that clients connect to.
type ListenerConfig struct {
	// Name of the listener, as it appears in logs, metrics, audit records and routes.
	Name string `yaml:"name"`
	// Address to listen on: "host:port", or ":port" for all addresses, IPv4 and IPv6.
	Address string `yaml:"address"`
	// How TLS starts: `implicit` (from the first byte, port 995), `starttls` (after STLS, port 110; no login before
	// it), `optional` (STLS is offered, and passwords are taken in clear: with legacy alone) or `offloaded` (a load balancer ended
	// TLS before popgate; needs proxy_protocol_from).
	TLS string `yaml:"tls"`
	// Networks that must send a PROXY v1 or v2 header and are believed. When it is not empty, all others are closed
	// at accept; when it is empty, a PROXY header is a protocol error.
	ProxyProtocolFrom []netip.Prefix `yaml:"proxy_protocol_from"`
	// Name of the certificate for clients that send no server name (SNI).
	DefaultName string `yaml:"default_name"`
	// Domain of user names that come without one.
	DefaultDomain string `yaml:"default_domain"`
	// Characters that part the local part of a user name from its domain; the last one found counts.
	Separators string `yaml:"separators"`
	// Characters no user name may have, because backends take them for master-user separators.
	Forbidden string `yaml:"forbidden"`
	// Whether SASL clients may name an authorization identity that differs from the user who logs in. It is passed
	// over, the user logs in as himself.
	AllowAuthzid bool `yaml:"allow_authzid"`
	// What a client gets that offers other application protocols (ALPN) than pop3: `strict` ends the handshake with
	// the no_application_protocol alert, `lenient` goes on without.
	ALPN string `yaml:"alpn"`
	// What a client gets that asks for a name (SNI) which no certificate is for: `default` shows it the one of `default_name`, `alert` ends
	// the handshake with the unrecognized_name alert.
	UnknownName string `yaml:"unknown_name"`
	// Whether clients are let in that are too old for today's TLS: with TLS 1.0 and 1.1 and the cipher suites of their time, and with
	// `tls: optional` without TLS. It needs legacy_networks, and is best an address of its own: docs/legacy.md.
	Legacy bool `yaml:"legacy"`
	// Networks that a legacy listener is for, such as 192.0.2.0/24. Clients from anywhere else are closed at accept.
	LegacyNetworks []netip.Prefix `yaml:"legacy_networks"`
}

// DefaultListener is a listener as it is before the file says anything of it.
func DefaultListener() ListenerConfig {
	return ListenerConfig{TLS: TLSImplicit, Separators: "@", Forbidden: "*", ALPN: "strict", UnknownName: "default"}
}

// NameRules says how user names are read on the listener.
func (c ListenerConfig) NameRules() auth.NameRules {
	return auth.NameRules{DefaultDomain: c.DefaultDomain, Separators: c.Separators, Forbidden: c.Forbidden}
}

// Validate reports what cannot work, by key.
func (c ListenerConfig) Validate(fault func(key, problem string)) {
	if c.Name == "" {
		fault("name", `is missing; give the listener a name, such as "pop3s"`)
	}
	if err := checkAddress(c.Address); err != nil {
		fault("address", err.Error())
	}
	c.validateTLS(fault)
	c.validateLegacy(fault)
	if c.ALPN != "strict" && c.ALPN != "lenient" {
		fault("alpn", fmt.Sprintf("is %q; write strict or lenient", c.ALPN))
	}
	if c.UnknownName != "default" && c.UnknownName != "alert" {
		fault("unknown_name", fmt.Sprintf("is %q; write default or alert", c.UnknownName))
	}
	if c.Separators == "" {
		fault("separators", `is empty; write at least "@"`)
	}
	if strings.ContainsAny(c.Separators, c.Forbidden) && c.Forbidden != "" {
		fault("forbidden", "has a character that separators has too; no user could have a domain")
	}
	for key, name := range map[string]string{"default_name": c.DefaultName, "default_domain": c.DefaultDomain} {
		if _, err := auth.Domain(name); err != nil {
			fault(key, fmt.Sprintf("is %q, which is no domain name", name))
		}
	}
}

func (c ListenerConfig) validateTLS(fault func(key, problem string)) {
	switch c.TLS {
	case TLSImplicit, TLSStartTLS:
	case TLSOptional:
		if !c.Legacy {
			fault("tls", "is optional, which takes passwords in clear: only a listener with legacy: true may do that; write starttls, or see docs/legacy.md")
		}
	case TLSOffloaded:
		if len(c.ProxyProtocolFrom) == 0 {
			fault("tls", "is offloaded, which needs proxy_protocol_from: the networks of the load balancers that end TLS")
		}
	default:
		fault("tls", fmt.Sprintf("is %q; write implicit, starttls or offloaded (optional with legacy: true)", c.TLS))
	}
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf(`is %q; write "host:port" or ":port", such as ":995"`, address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("is %q; its port must be a number from 0 to 65535", address)
	}
	if host == "" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return fmt.Errorf("is %q; its host must be an IP address of this machine, or empty for all", address)
	}
	return nil
}

// Timeouts are the section `timeouts`. Each must be set but idle, stall and half_close, where 0 means no limit.
type Timeouts struct {
	// Time for the whole PROXY header to come, on listeners that want one.
	ProxyHeader time.Duration `yaml:"proxy_header"`
	// Time for the whole TLS handshake, waiting for its turn included.
	Handshake time.Duration `yaml:"handshake"`
	// Time that popgate waits for the client before login, all its commands together.
	ClientLogin time.Duration `yaml:"client_login"`
	// Time for the login at the backend, all servers tried together.
	BackendLogin time.Duration `yaml:"backend_login"`
	// Time without a byte in either direction after which a logged-in session ends. RFC 1939 asks for 10 minutes at
	// least. 0 means no limit.
	Idle time.Duration `yaml:"idle"`
	// Time that one side may take none of the bytes written to it before the session ends. 0 means no limit.
	Stall time.Duration `yaml:"stall"`
	// Time without progress that the backend may go on sending to a client that has said that it sends no more.
	// 0 means no limit of its own; idle still counts.
	HalfClose time.Duration `yaml:"half_close"`
}

// DefaultTimeouts are the section's defaults.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		ProxyHeader:  5 * time.Second,
		Handshake:    10 * time.Second,
		ClientLogin:  60 * time.Second,
		BackendLogin: 45 * time.Second,
		Idle:         10 * time.Minute,
		Stall:        2 * time.Minute,
		HalfClose:    30 * time.Second,
	}
}

// Validate reports what cannot work, by key.
func (t Timeouts) Validate(fault func(key, problem string)) {
	for _, e := range []struct {
		key  string
		d    time.Duration
		zero bool
	}{
		{"proxy_header", t.ProxyHeader, false},
		{"handshake", t.Handshake, false},
		{"client_login", t.ClientLogin, false},
		{"backend_login", t.BackendLogin, false},
		{"idle", t.Idle, true},
		{"stall", t.Stall, true},
		{"half_close", t.HalfClose, true},
	} {
		if e.d < 0 {
			fault(e.key, fmt.Sprintf("is %v; a time cannot be negative", e.d))
		} else if e.d == 0 && !e.zero {
			fault(e.key, "is 0; a stranger could hold a connection for ever, so write a time, such as 10s")
		}
	}
}

// Bounds are the section `bounds`: how much a client may ask of popgate before it has logged in.
type Bounds struct {
	// TLS handshakes at work at once, in all; one client network gets at most an eighth of them. The others wait
	// their turn within timeouts.handshake.
	Handshakes int `yaml:"handshakes"`
	// Commands before login that are unknown or out of place; the last of them ends the connection.
	BadCommands int `yaml:"bad_commands"`
	// Failed logins on one connection; the last of them ends it.
	FailedLogins int `yaml:"failed_logins"`
	// Octets in a command before login. RFC 2449 wants 255 at least.
	Line Size `yaml:"line"`
	// Octets in an AUTH command and in the lines of its exchange; tokens are long.
	AuthLine Size `yaml:"auth_line"`
	// How long after a start connections are taken at a bounded rate, so that those who all come back at once find backends that are not
	// overrun. The rate doubles six times in that time, then the bound ends. A part of it is random, so that gateways that start together do
	// not go in step. 0 takes all at once.
	AcceptRamp time.Duration `yaml:"accept_ramp"`
	// Connections a second that each listener takes at the beginning of accept_ramp. The others wait in the system's queue.
	AcceptRate int `yaml:"accept_rate"`
	// The first connections that each listener takes without any wait, so that a gateway with few clients knows nothing of the ramp.
	AcceptBurst int `yaml:"accept_burst"`
}

// DefaultBounds are the section's defaults.
func DefaultBounds() Bounds {
	return Bounds{
		Handshakes: 512, BadCommands: 5, FailedLogins: 3, Line: 1 << 10, AuthLine: 16 << 10,
		// 200 a second are what a gateway and its backends can do while they are still cold, 6,400 in the last step more than a few
		// processors can: the end is none to be felt. That lets 63,000 in within 30 seconds, and the 4,096 that wait in Linux' queue within 12.
		AcceptRamp: 30 * time.Second, AcceptRate: 200, AcceptBurst: 1000,
	}
}

// Validate reports what cannot work, by key.
func (b Bounds) Validate(fault func(key, problem string)) {
	atLeast := func(key string, got, least int, why string) {
		if got < least {
			fault(key, fmt.Sprintf("is %d; it must be at least %d%s", got, least, why))
		}
	}
	atLeast("handshakes", b.Handshakes, 1, "")
	atLeast("bad_commands", b.BadCommands, 1, "")
	atLeast("failed_logins", b.FailedLogins, 1, "")
	atLeast("line", int(b.Line), 255, ", the length RFC 2449 promises to clients")
	atLeast("auth_line", int(b.AuthLine), 255, ", the length RFC 2449 promises to clients")
	if b.AcceptRamp < 0 || b.AcceptRamp > time.Hour {
		fault("accept_ramp", fmt.Sprintf("is %v; write a time of up to 1h, or 0s for none", b.AcceptRamp))
	}
	if b.AcceptRamp > 0 {
		atLeast("accept_rate", b.AcceptRate, 1, "; for no bound write accept_ramp: 0s")
	}
	atLeast("accept_burst", b.AcceptBurst, 0, "")
	if b.AcceptRate > 1_000_000 {
		fault("accept_rate", "is more than a million; for no bound write accept_ramp: 0s")
	}
	if b.Line > 1<<20 || b.AuthLine > 1<<20 {
		fault("auth_line", "and line may be 1MiB at most: each session that logs in may hold such a line")
	}
}

// Shutdown is the section `shutdown`: how the gateway stops.
type Shutdown struct {
	// Time between /readyz going false and the listeners closing, for load balancers to look elsewhere.
	Delay time.Duration `yaml:"delay"`
	// Time that logged-in sessions have to end by themselves.
	Grace time.Duration `yaml:"grace"`
}

// DefaultShutdown is the section's default.
func DefaultShutdown() Shutdown {
	return Shutdown{Grace: 5 * time.Minute}
}

// Validate reports what cannot work, by key.
func (s Shutdown) Validate(fault func(key, problem string)) {
	if s.Delay < 0 {
		fault("delay", fmt.Sprintf("is %v; a time cannot be negative", s.Delay))
	}
	if s.Grace < 0 {
		fault("grace", fmt.Sprintf("is %v; a time cannot be negative", s.Grace))
	}
}

// A Size is a number of octets. In text it is a number with an optional unit: 512, 1KiB, 10MiB, 1GiB.
type Size int64

// units, largest first.
var units = [...]struct {
	suffix string
	octets Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > 1<<40/int64(u.octets) {
			break
		}
		*s = Size(n) * u.octets
		return nil
	}
	return fmt.Errorf("%q is no size; write a number with a unit, such as 512B, 16KiB or 10MiB", text)
}

// MarshalText writes the size with the largest unit that divides it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the size with the largest unit that divides it.
func (s Size) String() string {
	for _, u := range units {
		if s%u.octets == 0 && s >= u.octets {
			return strconv.FormatInt(int64(s/u.octets), 10) + u.suffix
		}
	}
	return "0B"
}
