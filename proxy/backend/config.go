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
	// DirectoryServers says that a directory names the server of each user, so that `servers` may be empty. What else is
	// written here holds for those servers too.
	DirectoryServers bool `yaml:"directory_servers"`
	// Balance is how a server is chosen. With hash, an account always meets the same server as long as that one lives. With
	// least_sessions it meets the one with the fewest sessions for its weight. With failover it meets the first in the list
	// that lives.
	Balance string `yaml:"balance"`
	// SlowStart is the time over which a server that is back, or that a reload has added, gets its share little by little. 0
	// gives it all at once.
	SlowStart time.Duration `yaml:"slow_start"`
	// Drain takes the backend out of service: nobody can log in there any more, sessions go on until they end.
	Drain bool `yaml:"drain"`
	// MaxSessions is how many sessions popgate holds at one server, logins that have begun included. Who comes then waits in
	// a queue. 0 is no limit.
	MaxSessions int `yaml:"max_sessions"`
	// LoginsPerSecond is how many logins begin at one server in a second; others wait for their turn. It is for servers that
	// fall over when everybody comes back at once. 0 is no limit.
	LoginsPerSecond int `yaml:"logins_per_second"`
	// Queue is how many logins may wait for a place among max_sessions, at each server. 0 turns the queue off: who finds no
	// place is told to try again later.
	Queue int `yaml:"queue"`
	// QueueTimeout is how long a login waits, for a place and for its turn, before its client is told to try again later.
	QueueTimeout time.Duration `yaml:"queue_timeout"`
	// Source lists addresses of this machine to connect from, in turn. Without it the system chooses.
	Source []string `yaml:"source"`
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
	// Check is how the servers are looked at in the background.
	Check CheckConfig `yaml:"check"`
	// BreakerNetworks is how many client networks must have met a server that greets and then fails (silence, a broken
	// connection, "try later"), with no login between that succeeded, before it is passed over like a dead one. 0 never
	// passes it over for that.
	BreakerNetworks int `yaml:"breaker_networks"`
	// ResolveInterval is how often the names of servers are looked up. While the DNS fails, its last good answer stands.
	ResolveInterval time.Duration `yaml:"resolve_interval"`
	// InUseText lists words in a refusal without a code that mean that another session has the mailbox, whatever their case.
	InUseText []string `yaml:"inuse_text"`
	// TemporaryText lists words in a refusal without a code that mean that the user shall try again later.
	TemporaryText []string `yaml:"temporary_text"`
	// DisabledText lists words in a refusal without a code that mean that the account cannot log in. Only for servers that
	// say so to the right password alone: else strangers find out who has an account.
	DisabledText []string `yaml:"disabled_text"`
	// WrongText lists words in a refusal without a code that mean a wrong name or password, where popgate would take them
	// for something else. It counts before the other three.
	WrongText []string `yaml:"wrong_text"`
}

// CheckConfig is how servers are looked at in the background.
type CheckConfig struct {
	// Type is how far a check goes: greeting, capa (which also finds out what the server can do) or login.
	Type string `yaml:"type"`
	// Interval is the time between two checks of a server that is up, give or take a fifth. One that is down is checked
	// every `retry_after`. 0 looks at one that is up only once.
	Interval time.Duration `yaml:"interval"`
	// User is the account that a check of type login logs in as.
	User string `yaml:"user"`
	// PasswordFile is the file with that account's password in its first line.
	PasswordFile string `yaml:"password_file"`
}

// ServerConfig describes one server of a backend.
type ServerConfig struct {
	// Address is host:port. The host may be a name, which is looked up again every `resolve_interval`. The port may be left
	// out: it is 110, or 995 with tls: implicit.
	Address string `yaml:"address"`
	// Weight is the server's share of the accounts, relative to the others. 0 drains it: it gets no new logins.
	Weight int `yaml:"weight"`
	// Drain takes the server out of service: it gets no new logins, sessions go on until they end.
	Drain bool `yaml:"drain"`
	// MaxSessions is the server's own limit of sessions; 0 is the backend's.
	MaxSessions int `yaml:"max_sessions"`
	// LoginsPerSecond is the server's own pace of logins; 0 is the backend's.
	LoginsPerSecond int `yaml:"logins_per_second"`
}

// The values of Config.Balance, Config.TLS, Config.ClientInfo and CheckConfig.Type.
const (
	BalanceHash     = "hash"
	BalanceLeast    = "least_sessions"
	BalanceFailover = "failover"

	TLSNone     = "none"
	TLSStart    = "starttls"
	TLSImplicit = "implicit"

	ClientNone    = "none"
	ClientProxyV1 = "proxy_v1"
	ClientProxyV2 = "proxy_v2"
	ClientXClient = "xclient"
	ClientXOIP    = "xoip"

	CheckGreeting = "greeting"
	CheckCapa     = "capa"
	CheckLogin    = "login"
)

const (
	maxWeight   = 10000
	maxQueue    = 10000
	maxPace     = 100000
	maxTexts    = 100
	minTextSize = 3 // a shorter one is in too much
)

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
		Queue:           100,
		QueueTimeout:    5 * time.Second,
		Check:           CheckConfig{Type: CheckCapa, Interval: 5 * time.Minute},
		BreakerNetworks: 5,
		ResolveInterval: 30 * time.Second,
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
