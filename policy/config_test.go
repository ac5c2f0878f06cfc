package policy_test

import (
	"testing"
	"time"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/limit"
)

// TestShortForms: each short form is the same as the full one, and both together are a fault.
func TestShortForms(t *testing.T) {
	rate := limit.Rate{Count: 60, Per: time.Minute}
	for key, tt := range map[string]struct{ short, full func(c *policy.Config) }{
		"sessions":          {func(c *policy.Config) { c.Sessions = 5 }, func(c *policy.Config) { c.All.Sessions = 5 }},
		"sessions_per_ip":   {func(c *policy.Config) { c.SessionsPerIP = 5 }, func(c *policy.Config) { c.IP.Sessions = 5 }},
		"sessions_per_user": {func(c *policy.Config) { c.SessionsPerUser = 5 }, func(c *policy.Config) { c.User.Sessions = 5 }},
		"logins_per_ip":     {func(c *policy.Config) { c.LoginsPerIP = rate }, func(c *policy.Config) { c.IP.Failures = rate }},
		"logins_per_user":   {func(c *policy.Config) { c.LoginsPerUser = rate }, func(c *policy.Config) { c.User.Logins = rate }},
	} {
		short, full := policy.DefaultConfig(), policy.DefaultConfig()
		tt.short(&short)
		tt.full(&full)
		none := policy.DefaultConfig().Limits()
		a, b := short.Limits(), full.Limits()
		if a.All != b.All || a.IP != b.IP || a.User != b.User || a.All == none.All && a.IP == none.IP && a.User == none.User {
			t.Errorf("%s: got %+v, want %+v", key, a, b)
		}
		for _, c := range []policy.Config{short, full} {
			c.Validate(func(k, problem string) { t.Errorf("%s alone: %s %s", key, k, problem) })
		}
		tt.short(&full)
		faults := map[string]string{}
		full.Validate(func(k, problem string) { faults[k] = problem })
		if len(faults) != 1 || faults[key] == "" {
			t.Errorf("%s, both forms: got %q, want one fault of it", key, faults)
		}
	}
}
