package policy

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// maxFailureDelay bounds failure_delay: above it mail clients give up before the answer comes.
const maxFailureDelay = 30 * time.Second

// Config is the limits section of the configuration. Each limit is off at its zero value.
type Config struct {
	// How many sessions there may be at once, of all clients together; short for `all.sessions`. 0 is no limit.
	Sessions int `yaml:"sessions"`
	// How many sessions one client address may have at once; an IPv6 client is counted by its /64. Short for `per_ip.sessions`.
	// 0 is no limit.
	SessionsPerIP int `yaml:"sessions_per_ip"`
	// How many sessions one user may have at once; short for `per_user.sessions`. One more is told `[IN-USE]`, after the right
	// password only. 0 is no limit.
	SessionsPerUser int `yaml:"sessions_per_user"`
	// How often one client address (an IPv6 client: its /64) may fail to log in, such as `60/m`; short for `per_ip.failures`. A login
	// takes a turn when it begins and gives it back when it succeeds, or when the backend could not say. Empty is no limit.
	LoginsPerIP limit.Rate `yaml:"logins_per_ip"`
	// How often one user may log in with the right password, such as `30/m`; short for `per_user.logins`. More is told
	// `[LOGIN-DELAY]`. Wrong passwords do not count, so that nobody can use up another's logins. Empty is no limit.
	LoginsPerUser limit.Rate `yaml:"logins_per_user"`
	// What all clients may have together.
	All limit.AllLimits `yaml:"all"`
	// What the clients of each listener may have together.
	Listener limit.ClientLimits `yaml:"per_listener"`
	// What each client address may have; an IPv6 client is counted by its /64.
	IP limit.ClientLimits `yaml:"per_ip"`
	// What each wider client network may have.
	Network limit.NetworkLimits `yaml:"per_network"`
	// What each user may have. Only what comes after the right password counts, so that nobody can use up another's.
	User limit.UserLimits `yaml:"per_user"`
	// What the users of each tenant may have together. Users whose route names no tenant have no such limits.
	Tenant limit.TenantLimits `yaml:"per_tenant"`
	// Limits of their own for some networks, tenants or users. All that an entry names of these must fit; each limit is that of the
	// first entry that fits and sets it, and where none does, the one above. 0 turns a limit off, `inherit` is as if the key was not
	// written.
	Overrides []limit.Override `yaml:"overrides"`
	// Client networks that none of these limits refuses or slows down, such as those of your own webmail. They are counted all the
	// same: their sessions take places that others then do not get.
	Exempt []netip.Prefix `yaml:"exempt"`
	// The tick on which refusals leave, so that their time tells a stranger nothing: a refused login is answered at
	// the next multiple of it after the password came. 0 answers at once.
	FailureDelay time.Duration `yaml:"failure_delay"`
}

// DefaultConfig has every limit off, and refusals leave on a tick of two seconds.
func DefaultConfig() Config {
	return Config{Network: limit.DefaultNetwork(), FailureDelay: 2 * time.Second}
}

// Limits are the limits, with the short forms in their places.
func (c Config) Limits() limit.Config {
	full := limit.Config{
		All: c.All, Listener: c.Listener, IP: c.IP, Network: c.Network, User: c.User, Tenant: c.Tenant,
		Overrides: c.Overrides, Exempt: c.Exempt,
	}
	short(&full.All.Sessions, limit.Count(c.Sessions))
	short(&full.IP.Sessions, limit.Count(c.SessionsPerIP))
	short(&full.User.Sessions, limit.Count(c.SessionsPerUser))
	short(&full.IP.Failures, c.LoginsPerIP)
	short(&full.User.Logins, c.LoginsPerUser)
	return full
}

// short stores what a short form says where the full one says nothing.
func short[T comparable](full *T, value T) {
	var off T
	if *full == off {
		*full = value
	}
}

// Validate tells fault of every value that cannot be meant, by its key.
func (c Config) Validate(fault func(key, problem string)) {
	for _, n := range []struct {
		key   string
		value int
	}{{"sessions", c.Sessions}, {"sessions_per_ip", c.SessionsPerIP}, {"sessions_per_user", c.SessionsPerUser}} {
		if n.value < 0 {
			fault(n.key, fmt.Sprintf("%d is below zero: write how many there may be, or 0 for no limit", n.value))
		}
	}
	for _, f := range []struct {
		key, full string
		both      bool
	}{
		{"sessions", "all.sessions", c.Sessions != 0 && c.All.Sessions != 0},
		{"sessions_per_ip", "per_ip.sessions", c.SessionsPerIP != 0 && c.IP.Sessions != 0},
		{"sessions_per_user", "per_user.sessions", c.SessionsPerUser != 0 && c.User.Sessions != 0},
		{"logins_per_ip", "per_ip.failures", !c.LoginsPerIP.Off() && !c.IP.Failures.Off()},
		{"logins_per_user", "per_user.logins", !c.LoginsPerUser.Off() && !c.User.Logins.Off()},
	} {
		if f.both {
			fault(f.key, fmt.Sprintf("is short for limits.%s, which is written too: remove one of them", f.full))
		}
	}
	full := c.Limits()
	// What the short forms say has been looked at already.
	full.All, full.IP, full.User = c.All, c.IP, c.User
	full.Validate(fault)
	if c.FailureDelay < 0 || c.FailureDelay > maxFailureDelay {
		fault("failure_delay", fmt.Sprintf("%s is not between 0s and %s: write such as 2s", c.FailureDelay, maxFailureDelay))
	}
}
