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
	// How many sessions there may be at once, of all clients together. 0 is no limit.
	Sessions int `yaml:"sessions"`
	// How many sessions one client address may have at once; an IPv6 client is counted by its /64. 0 is no limit.
	SessionsPerIP int `yaml:"sessions_per_ip"`
	// How many sessions one user may have at once. One more is told `[IN-USE]`, after the right password only.
	// 0 is no limit.
	SessionsPerUser int `yaml:"sessions_per_user"`
	// How often one client address (an IPv6 client: its /64) may fail to log in, such as `60/m`. A login takes a turn
	// when it begins and gives it back when it succeeds, or when the backend could not say. Empty is no limit.
	LoginsPerIP limit.Rate `yaml:"logins_per_ip"`
	// How often one user may log in with the right password, such as `30/m`. More is told `[LOGIN-DELAY]`.
	// Wrong passwords do not count, so that nobody can use up another's logins. Empty is no limit.
	LoginsPerUser limit.Rate `yaml:"logins_per_user"`
	// Client networks that none of these limits refuses, such as those of your own webmail. They are counted all the
	// same: their sessions take places that others then do not get.
	Exempt []netip.Prefix `yaml:"exempt"`
	// The tick on which refusals leave, so that their time tells a stranger nothing: a refused login is answered at
	// the next multiple of it after the password came. 0 answers at once.
	FailureDelay time.Duration `yaml:"failure_delay"`
}

// DefaultConfig has every limit off, and refusals leave on a tick of two seconds.
func DefaultConfig() Config {
	return Config{FailureDelay: 2 * time.Second}
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
	for i, p := range c.Exempt {
		key := fmt.Sprintf("exempt[%d]", i)
		switch {
		case !p.IsValid():
			fault(key, "is not a network: write it such as 10.0.0.0/8 or 2001:db8::/32")
		case p.Addr().Is4In6():
			fault(key, fmt.Sprintf("%s is an IPv4 network in IPv6 form: write it as IPv4, such as 10.0.0.0/8", p))
		}
	}
	if c.FailureDelay < 0 || c.FailureDelay > maxFailureDelay {
		fault("failure_delay", fmt.Sprintf("%s is not between 0s and %s: write such as 2s", c.FailureDelay, maxFailureDelay))
	}
}
