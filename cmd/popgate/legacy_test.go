package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/legacy"
)

// TestLegacyReport prints what a gateway tells, for people, programs and spreadsheets.
func TestLegacyReport(t *testing.T) {
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	uses := func() []legacy.Use {
		return []legacy.Use{
			{User: "anna@example.org", Tenant: "acme", Network: netip.MustParsePrefix("192.0.2.7/32"), Version: "TLS 1.0", Listener: "old",
				First: now.AddDate(0, 0, -40), Last: now.Add(-time.Hour), Count: 12,
				Until: time.Date(2026, 7, 1, 0, 0, 0, 0, time.FixedZone("", 2*3600))},
			{User: "=cmd(),\x1b[2J", Network: netip.MustParsePrefix("2001:db8:1:2::/64"), Version: legacy.NoTLS, Listener: "old",
				First: now.AddDate(0, 0, -40), Last: now.AddDate(0, 0, -40), Count: 1},
		}
	}
	for _, tt := range []struct {
		name   string
		report legacyReport
		want   string
	}{
		{"table", legacyReport{}, "USER              TENANT  NETWORK            TLS      LISTENER  LOGINS  LAST              LAST DAY\n" +
			"anna@example.org  acme    192.0.2.7          TLS 1.0  old       12      2026-03-10 11:00  2026-06-30\n" +
			"=cmd(), [2J       -       2001:db8:1:2::/64  no TLS   old       1       2026-01-29 12:00  -\n2 users\n"},
		{"tenant", legacyReport{tenant: "other"}, "nobody has used the legacy lane\n"},
		{"csv", legacyReport{asCSV: true}, "user,tenant,network,tls,listener,logins,first,last,last_day\n" +
			"anna@example.org,acme,192.0.2.7,TLS 1.0,old,12,2026-01-29T12:00:00Z,2026-03-10T11:00:00Z,2026-06-30\n" +
			"\"'=cmd(),\x1b[2J\",,2001:db8:1:2::/64,no TLS,old,1,2026-01-29T12:00:00Z,2026-01-29T12:00:00Z,\n"},
		{"csv of some days", legacyReport{asCSV: true, days: 30, tenant: "acme"}, "user,tenant,network,tls,listener,logins,first,last,last_day\n" +
			"anna@example.org,acme,192.0.2.7,TLS 1.0,old,12,2026-01-29T12:00:00Z,2026-03-10T11:00:00Z,2026-06-30\n"},
	} {
		var out strings.Builder
		if err := tt.report.print(&out, uses(), now); err != nil || out.String() != tt.want {
			t.Errorf("%s: got %v\n%s\nwant\n%s", tt.name, err, &out, tt.want)
		}
	}
	var out strings.Builder
	report := legacyReport{asJSON: true, days: 30}
	if err := report.print(&out, uses(), now); err != nil || !strings.Contains(out.String(), `"network": "192.0.2.7/32"`) || strings.Contains(out.String(), "cmd") {
		t.Errorf("json: got %v, %s", err, &out)
	}
}
