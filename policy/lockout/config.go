package lockout

import (
	"fmt"
	"time"
)

// The bounds of what may be configured.
const (
	maxDelay = 30 * time.Second          // above it mail clients give up before the answer comes
	maxTime  = 10 * 365 * 24 * time.Hour // above it sums of times overflow
	maxCount = 60_000                    // what a tally can count
)

// Config is the lockout section of the configuration.
type Config struct {
	// Whether failed logins are delayed and locked out at all.
	Enabled bool `yaml:"enabled"`
	// How long failures are counted together, from the first of them.
	Window time.Duration `yaml:"window"`
	// What the failures of one user from one client network cost. The same wrong password again counts once.
	User Threshold `yaml:"user"`
	// What the failures of one client network cost (an IPv6 client: its /64), whoever the users are.
	Network Threshold `yaml:"network"`
	// What the failures of an IPv6 client's /48 cost, whoever the users are: many sites have one to themselves, and who
	// guesses can come from each /64 of it.
	Network48 Threshold `yaml:"network48"`
	// How long the first delayed login waits before it goes on. Each further failure doubles it.
	Delay time.Duration `yaml:"delay"`
	// The longest such wait.
	MaxDelay time.Duration `yaml:"max_delay"`
	// How long the first lockout lasts. Each further one doubles it, until `max_duration` has passed without one.
	Duration time.Duration `yaml:"duration"`
	// The longest lockout.
	MaxDuration time.Duration `yaml:"max_duration"`
	// How long a wrong password is known again, so that it counts once. Each time it comes renews it.
	SameSecretFor time.Duration `yaml:"same_secret_for"`
	// How long after a login a user is known in a client network: lockouts and delays that others cause there do not
	// touch it. 0 knows nobody.
	KnownFor time.Duration `yaml:"known_for"`
	// How many different wrong passwords an hour a known user may try in its network before all are answered as wrong.
	// 0 is no limit.
	KnownFailures int `yaml:"known_failures"`
	// When failures look like one password, or one client network, tried on many users.
	Spray Spray `yaml:"spray"`
}

// A Threshold says after how many failures something is done.
type Threshold struct {
	// After how many failures within `window` logins are delayed. 0 delays none.
	DelayAfter int `yaml:"delay_after"`
	// After how many failures within `window` logins are locked out. 0 locks nobody out.
	LockoutAfter int `yaml:"lockout_after"`
}

// Spray says what is taken for password spraying.
type Spray struct {
	// How long failures are looked at together, from the first of them.
	Window time.Duration `yaml:"window"`
	// How many users must fail from one client network. 0 looks for none.
	Users int `yaml:"users"`
	// How many users one wrong password must be tried on, from wherever. 0 looks for none.
	UsersPerPassword int `yaml:"users_per_password"`
	// Whether client networks that spray are locked out: those of `users`, and those that try the password of
	// `users_per_password` on more than one user. Users who are known there are not touched.
	Lockout bool `yaml:"lockout"`
}

// DefaultConfig is what holds where the file says nothing.
func DefaultConfig() Config {
	return Config{
		Enabled:       true,
		Window:        15 * time.Minute,
		User:          Threshold{DelayAfter: 3, LockoutAfter: 10},
		Network:       Threshold{DelayAfter: 20, LockoutAfter: 100},
		Network48:     Threshold{DelayAfter: 100, LockoutAfter: 500},
		Delay:         time.Second,
		MaxDelay:      15 * time.Second,
		Duration:      5 * time.Minute,
		MaxDuration:   24 * time.Hour,
		SameSecretFor: 24 * time.Hour,
		KnownFor:      30 * 24 * time.Hour,
		KnownFailures: 10,
		Spray:         Spray{Window: time.Hour, Users: 20, UsersPerPassword: 20},
	}
}

// Validate tells fault of every value that cannot be meant, by its key.
func (c Config) Validate(fault func(key, problem string)) {
	for _, d := range []struct {
		key   string
		value time.Duration
		least time.Duration
		most  time.Duration
	}{
		{"window", c.Window, time.Second, maxTime},
		{"delay", c.Delay, 0, maxDelay},
		{"max_delay", c.MaxDelay, 0, maxDelay},
		{"duration", c.Duration, time.Second, maxTime},
		{"max_duration", c.MaxDuration, time.Second, maxTime},
		{"same_secret_for", c.SameSecretFor, 0, maxTime},
		{"known_for", c.KnownFor, 0, maxTime},
		{"spray.window", c.Spray.Window, time.Second, maxTime},
	} {
		if d.value < d.least || d.value > d.most {
			fault(d.key, fmt.Sprintf("%s is not between %s and %s", d.value, d.least, d.most))
		}
	}
	for _, n := range []struct {
		key   string
		value int
	}{
		{"user.delay_after", c.User.DelayAfter},
		{"user.lockout_after", c.User.LockoutAfter},
		{"network.delay_after", c.Network.DelayAfter},
		{"network.lockout_after", c.Network.LockoutAfter},
		{"network48.delay_after", c.Network48.DelayAfter},
		{"network48.lockout_after", c.Network48.LockoutAfter},
		{"known_failures", c.KnownFailures},
		{"spray.users", c.Spray.Users},
		{"spray.users_per_password", c.Spray.UsersPerPassword},
	} {
		if n.value < 0 || n.value > maxCount {
			fault(n.key, fmt.Sprintf("%d is not between 0 and %d: write how many failures it takes, or 0 for off", n.value, maxCount))
		}
	}
	if c.MaxDelay < c.Delay {
		fault("max_delay", fmt.Sprintf("%s is shorter than delay, which is %s", c.MaxDelay, c.Delay))
	}
	if c.MaxDuration < c.Duration {
		fault("max_duration", fmt.Sprintf("%s is shorter than duration, which is %s", c.MaxDuration, c.Duration))
	}
}

// wait is what a login waits after so many failures.
func (c *Config) wait(after, failures int) time.Duration {
	if after <= 0 || failures < after {
		return 0
	}
	return grown(c.Delay, c.MaxDelay, failures-after)
}

// grown is first, doubled so many times, and no more than most.
func grown(first, most time.Duration, times int) time.Duration {
	for ; times > 0 && first < most && first > 0; times-- {
		first *= 2
	}
	return min(first, most)
}
