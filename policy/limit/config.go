package limit

import "net/netip"

// Config is all limits. The zero Config limits nothing.
type Config struct {
	All       AllLimits
	Listener  ClientLimits
	IP        ClientLimits
	Network   NetworkLimits
	User      UserLimits
	Tenant    TenantLimits
	Overrides []Override
	// Exempt are networks that nothing refuses and nothing paces.
	Exempt []netip.Prefix
}

// AllLimits are what all clients may have together.
type AllLimits struct {
	// How many sessions there may be at once. 0 is no limit.
	Sessions Count `yaml:"sessions"`
	// How often somebody may connect, such as `500/s burst 2000`. 0 is no limit.
	Connections Rate `yaml:"connections"`
	// How often somebody may log in with the right password. 0 is no limit.
	Logins Rate `yaml:"logins"`
	// How often a login may fail. 0 is no limit.
	Failures Rate `yaml:"failures"`
	// How many bytes a second may go to clients, such as `100MiB/s`. More waits, and is never refused. 0 is no limit.
	Download Bandwidth `yaml:"download"`
	// How often a client that is logged in may send a command, such as `1000/s`. More waits, and is never refused. 0 is no limit.
	Commands Rate `yaml:"commands"`
}

func (c AllLimits) values() values {
	return values{
		Sessions: c.Sessions, Connections: c.Connections, Logins: c.Logins, Failures: c.Failures, Download: c.Download, Commands: c.Commands,
	}
}

// ClientLimits are what each listener's clients, each client address, or each client network may have.
type ClientLimits struct {
	// How many sessions there may be at once. 0 is no limit.
	Sessions Count `yaml:"sessions"`
	// How often a client may connect, such as `60/m burst 200`. 0 is no limit.
	Connections Rate `yaml:"connections"`
	// How many TLS handshakes may be in flight at once. 0 is no limit but `bounds.handshakes`.
	Handshakes Count `yaml:"handshakes"`
	// How often somebody may log in with the right password, such as `600/m`. 0 is no limit.
	Logins Rate `yaml:"logins"`
	// How often a login may fail, such as `60/m`. A login takes a turn when it begins, and gives it back when it succeeds or when nobody
	// could say whether the password is right. 0 is no limit.
	Failures Rate `yaml:"failures"`
	// How many bytes a second may go to clients, such as `4MiB/s burst 16MiB`. More waits, and is never refused. 0 is no limit.
	Download Bandwidth `yaml:"download"`
	// How often a client that is logged in may send a command, such as `20/s burst 100`. More waits, and is never refused. 0 is no limit.
	Commands Rate `yaml:"commands"`
}

func (c ClientLimits) values() values {
	return values{
		Sessions: c.Sessions, Connections: c.Connections, Handshakes: c.Handshakes, Logins: c.Logins, Failures: c.Failures,
		Download: c.Download, Commands: c.Commands,
	}
}

// NetworkLimits are ClientLimits of networks that are as wide as they say.
type NetworkLimits struct {
	// How many bits of an IPv4 address tell its network.
	IPv4Prefix int `yaml:"ipv4_prefix"`
	// How many bits of an IPv6 address tell its network.
	IPv6Prefix int `yaml:"ipv6_prefix"`
	// How many sessions there may be at once. 0 is no limit.
	Sessions Count `yaml:"sessions"`
	// How often a client may connect, such as `600/m burst 2000`. 0 is no limit.
	Connections Rate `yaml:"connections"`
	// How many TLS handshakes may be in flight at once. 0 is no limit but `bounds.handshakes`.
	Handshakes Count `yaml:"handshakes"`
	// How often somebody may log in with the right password. 0 is no limit.
	Logins Rate `yaml:"logins"`
	// How often a login may fail, such as `300/m`; counted as `per_ip.failures` are. 0 is no limit.
	Failures Rate `yaml:"failures"`
	// How many bytes a second may go to clients. More waits, and is never refused. 0 is no limit.
	Download Bandwidth `yaml:"download"`
	// How often a client that is logged in may send a command. More waits, and is never refused. 0 is no limit.
	Commands Rate `yaml:"commands"`
}

// DefaultNetwork has no limit, for networks of an IPv4 /24 and an IPv6 /48.
func DefaultNetwork() NetworkLimits { return NetworkLimits{IPv4Prefix: 24, IPv6Prefix: 48} }

func (c NetworkLimits) values() values {
	return values{
		Sessions: c.Sessions, Connections: c.Connections, Handshakes: c.Handshakes, Logins: c.Logins, Failures: c.Failures,
		Download: c.Download, Commands: c.Commands,
	}
}

// UserLimits are what each user may have. They count what comes after the right password alone, so that nobody can use up
// another's.
type UserLimits struct {
	// How many sessions a user may have at once. One more is told `[IN-USE]`. 0 is no limit.
	Sessions Count `yaml:"sessions"`
	// How often a user may log in, such as `30/m`. More is told `[LOGIN-DELAY]`. 0 is no limit.
	Logins Rate `yaml:"logins"`
	// The time that must pass between two logins of a user, in whole seconds, as RFC 2449 has it: the next before that is told
	// `[LOGIN-DELAY]`, and the largest of all users is announced by CAPA. 0 is none.
	LoginDelay Delay `yaml:"login_delay"`
	// How many bytes a second may go to the user. More waits, and is never refused. 0 is no limit.
	Download Bandwidth `yaml:"download"`
	// How often the user's clients may send a command. More waits, and is never refused. 0 is no limit.
	Commands Rate `yaml:"commands"`
}

func (c UserLimits) values() values {
	return values{Sessions: c.Sessions, Logins: c.Logins, LoginDelay: c.LoginDelay, Download: c.Download, Commands: c.Commands}
}

// TenantLimits are what the users of each tenant may have together. Who goes where no tenant is named is not counted.
type TenantLimits struct {
	// How many sessions there may be at once, counted after the right password. 0 is no limit.
	Sessions Count `yaml:"sessions"`
	// How often a user may log in with the right password. 0 is no limit.
	Logins Rate `yaml:"logins"`
	// How often a login may fail; counted as `per_ip.failures` are, once it is known where the login goes. 0 is no limit.
	Failures Rate `yaml:"failures"`
	// How many bytes a second may go to clients. More waits, and is never refused. 0 is no limit.
	Download Bandwidth `yaml:"download"`
	// How often clients that are logged in may send a command. More waits, and is never refused. 0 is no limit.
	Commands Rate `yaml:"commands"`
}

func (c TenantLimits) values() values {
	return values{Sessions: c.Sessions, Logins: c.Logins, Failures: c.Failures, Download: c.Download, Commands: c.Commands}
}

// An Override has limits of its own for some clients or users. Each limit is that of the first override that fits and writes it.
type Override struct {
	// What faults and operators call the override.
	Name string `yaml:"name"`
	// The client networks that it is for. Empty are all.
	Networks []netip.Prefix `yaml:"networks"`
	// The tenants whose users it is for. Empty are all.
	Tenants []string `yaml:"tenants"`
	// The users that it is for, such as bob@example.org, or @example.org for a whole domain. Empty are all.
	Users []string `yaml:"users"`
	// Limits of each client address. What is decided before the user is known can be set for networks alone.
	IP ClientLimits `yaml:"per_ip"`
	// Limits of each client network, as wide as `limits.per_network` says.
	Network ClientLimits `yaml:"per_network"`
	// Limits of each user.
	User UserLimits `yaml:"per_user"`
	// Limits of each tenant.
	Tenant TenantLimits `yaml:"per_tenant"`
}

// DefaultOverride sets nothing: all is inherited.
func DefaultOverride() Override {
	client := ClientLimits{
		Sessions: InheritCount, Connections: InheritRate, Handshakes: InheritCount, Logins: InheritRate, Failures: InheritRate,
		Download: InheritBandwidth, Commands: InheritRate,
	}
	return Override{
		IP: client, Network: client,
		User: UserLimits{
			Sessions: InheritCount, Logins: InheritRate, LoginDelay: InheritDelay, Download: InheritBandwidth, Commands: InheritRate,
		},
		Tenant: TenantLimits{
			Sessions: InheritCount, Logins: InheritRate, Failures: InheritRate, Download: InheritBandwidth, Commands: InheritRate,
		},
	}
}

// sections are the values of all that an override can set.
func (o *Override) sections() [scopes]values {
	return [scopes]values{IP: o.IP.values(), Network: o.Network.values(), User: o.User.values(), Tenant: o.Tenant.values()}
}

func (c *Config) sections() [scopes]values {
	return [scopes]values{
		All: c.All.values(), Listener: c.Listener.values(), IP: c.IP.values(), Network: c.Network.values(),
		User: c.User.values(), Tenant: c.Tenant.values(),
	}
}

// values are what is written for each quantity; nil for one that the scope does not have.
type values [quantities]value

// A value is what one key says.
type value interface {
	// Inherited says that it is for an override that says nothing.
	Inherited() bool
	// bound is what the value asks for.
	bound() bound
	// problem is why it cannot be; "" where it can.
	problem() string
}

// A bound is a value resolved. The zero bound is off.
type bound struct{ turn, most int64 }

func (b bound) off() bool { return b.most <= 0 }

func (c Count) bound() bound { return bound{0, int64(c)} }

func (d Delay) bound() bound {
	if d <= 0 {
		return bound{}
	}
	return bound{int64(d), 1}
}

func (r Rate) bound() bound {
	if r.Off() {
		return bound{}
	}
	return bound{r.turn(), r.most()}
}

func (b Bandwidth) bound() bound {
	if b.Off() {
		return bound{}
	}
	return bound{b.turn(), b.most()}
}
