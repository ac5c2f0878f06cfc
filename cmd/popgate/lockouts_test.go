package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/lockout"
)

func TestLockoutsTable(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	var b strings.Builder
	err := lockoutsTable(&b, []lockout.Lockout{
		{Network: netip.MustParsePrefix("192.0.2.7/32"), Since: now.Add(-time.Minute), Until: now.Add(4 * time.Minute), Failures: 100, Times: 1, Cause: lockout.NetworkFailures},
		{
			Network: netip.MustParsePrefix("2001:db8:1:2::/64"), User: 7, Name: "anna\x1b[31m@example.org", Since: now, Until: now.Add(10 * time.Minute), Failures: 10,
			Times: 2, Cause: lockout.UserFailures,
		},
		{Network: netip.MustParsePrefix("192.0.2.9/32"), User: 0xabc, Since: now, Until: now.Add(-time.Second), Times: 1, Cause: lockout.Manual},
	}, now)
	want := `
NETWORK            USER                  CAUSE             FAILURES  SINCE             LEFT   TIMES
192.0.2.7          -                     network_failures  100       2026-03-01 11:59  4m0s   1
2001:db8:1:2::/64  anna [31m@example.org  user_failures     10        2026-03-01 12:00  10m0s  2
192.0.2.9          #0000000000000abc     manual            0         2026-03-01 12:00  0s     1
`
	if got := "\n" + b.String(); strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") || err != nil {
		t.Errorf("got %v%s\nwant%s", err, got, want)
	}
	b.Reset()
	if err := lockoutsTable(&b, nil, now); b.String() != "nobody is locked out\n" || err != nil {
		t.Errorf("none: got %q, %v", b.String(), err)
	}
}
