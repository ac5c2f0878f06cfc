package backend

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
)

// Config describes one backend: a set of equivalent POP3 servers.
type Config struct {
	// Name is what routes, logs and metrics call this backend.
	Name string `yaml:"name"`
	// Servers are the machines that hold the mail. Each of them must be able to serve every account of this backend.
	Servers []ServerConfig `yaml:"servers"`
	// Balance is how a server is chosen. With hash, an account always meets the same server as long as that one lives.
	Balance string `yaml:"balance"`
	// TLS is how the connection to the servers is encrypted: none (port 110), starttls (port 110, the STLS command) or
	// implicit (port 995).
	TLS string `yaml:"tls"`
	// TLSCA is a PEM file with the certificates of the CA to believe; without it, those the system believes.
	TLSCA string `yaml:"tls_ca"`
	// TLSServerName is the name the servers' certificates must carry; without it, the host of the server's address.
	TLSServerName string `yaml:"tls_server_name"`
	// TLSMinVersion is the oldest TLS version to accept: 1.0, 1.1, 1.2 or 1.3. Below 1.2 the old cipher suites are
	// offered as well, for servers that know no others.
	TLSMinVersion string `yaml:"tls_min_version"`
	// TLSPinSHA256 lists the public keys to accept, each as the SHA-256 of the certificate's SubjectPublicKeyInfo in
	// hex or base64. With a pin and no tls_ca, the pin alone decides: chain and name are not verified.
	TLSPinSHA256 []string `yaml:"tls_pin_sha256"`
	// ClientInfo is how the servers learn who the client is: none, proxy_v1, proxy_v2, xclient (Dovecot, needs our
	// address in its login_trusted_networks) or xoip (Zimbra).
	ClientInfo string `yaml:"client_info"`
	// ConnectTimeout bounds connecting to a server, TLS included. 0 leaves it to timeouts.backend_login, which bounds all of
	// a login, at all servers that are tried.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// GreetingTimeout bounds the wait for a server's greeting. 0 leaves it to timeouts.backend_login.
	GreetingTimeout time.Duration `yaml:"greeting_timeout"`
	// ReplyTimeout bounds the wait for the answer to each command of the login. 0 leaves it to timeouts.backend_login.
	ReplyTimeout time.Duration `yaml:"reply_timeout"`
	// RetryAfter is how long a server that could not be reached is passed over before it is tried again. With 0 it
	// never is: each login tries it.
	RetryAfter time.Duration `yaml:"retry_after"`
}

// ServerConfig describes one server of a backend.
type ServerConfig struct {
	// Address is host:port. The host may be a name, which is looked up at each connection. The port may be left out:
	// it is 110, or 995 with tls: implicit.
	Address string `yaml:"address"`
	// Weight is the server's share of the accounts, relative to the others. 0 drains it: it gets no new logins.
	Weight int `yaml:"weight"`
}

// The values of Config.Balance, Config.TLS and Config.ClientInfo.
const (
	BalanceHash = "hash"

	TLSNone     = "none"
	TLSStart    = "starttls"
	TLSImplicit = "implicit"

	ClientNone    = "none"
	ClientProxyV1 = "proxy_v1"
	ClientProxyV2 = "proxy_v2"
	ClientXClient = "xclient"
	ClientXOIP    = "xoip"
)

const maxWeight = 10000

// DefaultConfig is what a backend has where its section says nothing.
func DefaultConfig() Config {
	return Config{
		Balance:         BalanceHash,
		TLS:             TLSNone,
		TLSMinVersion:   "1.2",
		ClientInfo:      ClientNone,
		ConnectTimeout:  5 * time.Second,
		GreetingTimeout: 10 * time.Second,
		ReplyTimeout:    30 * time.Second,
		RetryAfter:      10 * time.Second,
	}
}

// DefaultServerConfig is what a server has where its entry says nothing.
func DefaultServerConfig() ServerConfig {
	return ServerConfig{Weight: 1}
}

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

// Hints say what of a valid section works and yet may surprise, each in a sentence: what must be arranged at the servers.
// They look at no names: where passwords go to the public address of a server with one, its checks say so.
func (c Config) Hints() []string {
	var all []string
	if c.ClientInfo == ClientNone {
		all = append(all, fmt.Sprintf("backend %s sees all clients at popgate's address (client_info: none): "+
			"exempt that address from its limits and penalties for failed logins, or set client_info", c.Name))
	}
	if c.TLS != TLSNone {
		return all
	}
	for _, s := range c.Servers {
		if a, err := parseAddress(s.Address, c.TLS); err == nil && a.ip.IsValid() && !private(a.ip.Addr()) {
			all = append(all, fmt.Sprintf("backend %s: passwords go to %s in clear over an address that is not private; "+
				"set tls: starttls or implicit there, or use a private network", c.Name, a.text))
		}
	}
	return all
}

// private says that ip is on a network that no stranger carries.
func private(ip netip.Addr) bool {
	return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()
}

func oneOf(fault func(key, problem string), key, value string, allowed ...string) {
	for _, a := range allowed {
		if value == a {
			return
		}
	}
	fault(key, fmt.Sprintf("is %q; write %s", value, strings.Join(allowed, " or ")))
}

// An address is a server's address, taken apart once.
type address struct {
	text string         // host:port, always with a port: what the server is known by
	host string         // the host alone, as certificates carry it
	ip   netip.AddrPort // the address itself where the host is none that must be looked up
}

func parseAddress(s, tlsMode string) (address, error) {
	host, port, err := splitAddress(s)
	if err != nil {
		return address{}, err
	}
	if port == "" {
		port = "110"
		if tlsMode == TLSImplicit {
			port = "995"
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return address{}, fmt.Errorf("has the port %q; write a number from 1 to 65535", port)
	}
	port = strconv.FormatUint(n, 10)
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		ap := netip.AddrPortFrom(ip, uint16(n))
		return address{text: ap.String(), host: ip.WithZone("").String(), ip: ap}, nil
	}
	host = strings.ToLower(host)
	if !hostName(host) {
		return address{}, fmt.Errorf("has the host %q, which is neither a name nor an IP address", host)
	}
	return address{text: net.JoinHostPort(host, port), host: strings.TrimSuffix(host, ".")}, nil
}

// splitAddress parts host and port; the port may be missing, an IPv6 address without one may do without brackets.
func splitAddress(s string) (host, port string, err error) {
	if s == "" {
		return "", "", errors.New("is missing; write host:port")
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return s, "", nil
	}
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		return strings.TrimSuffix(inner, "]"), "", nil
	}
	if !strings.Contains(s, ":") {
		return s, "", nil
	}
	host, port, err = net.SplitHostPort(s)
	if err != nil || port == "" {
		return "", "", fmt.Errorf("is %q; write host:port, an IPv6 address in brackets", s)
	}
	return host, port, nil
}

// hostName says that s, in lower case, can be looked up as a host name. A last label of digits alone is a mistyped address.
func hostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	last := s[strings.LastIndexByte(s, '.')+1:]
	return auth.Hostname(s) && strings.Trim(last, "0123456789") != ""
}
