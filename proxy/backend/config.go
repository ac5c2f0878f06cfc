package backend

import (
	"fmt"
	"net/netip"
	"time"
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
