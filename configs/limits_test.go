package configs

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// overridden has each kind of limit, inside overrides and outside.
const overridden = plain + `
limits:
  sessions: 20000
  all: {connections: 500/s burst 2000, download: 100MiB/s}
  per_network: {failures: 300/m, ipv4_prefix: 20}
  per_user: {sessions: 10, login_delay: 30s}
  overrides:
    - {name: webmail, networks: [10.1.0.0/16], per_ip: {sessions: 5000, failures: 0, handshakes: inherit}}
    - {name: big, tenants: [acme], per_user: {sessions: 50, login_delay: 5m, logins: ""}, per_tenant: {download: 4MiB/s burst 16MiB}}
    - name: anna
      users: [anna@example.org, "@example.net"]
      per_user: {download: 1MiB/s, login_delay: 0}
`

// TestOverrides: what is not written is inherited, what is written as 0 is off, and the print says both.
func TestOverrides(t *testing.T) {
	c := mustLoad(t, overridden)
	webmail, big := limit.DefaultOverride(), limit.DefaultOverride()
	webmail.Name, webmail.Networks, webmail.IP.Sessions, webmail.IP.Failures = "webmail", c.Limits.Overrides[0].Networks, 5000, limit.Rate{}
	big.Name, big.Tenants, big.User.Sessions, big.User.LoginDelay = "big", []string{"acme"}, 50, limit.Delay(5*time.Minute)
	big.User.Logins, big.Tenant.Download = limit.Rate{}, limit.Bandwidth{PerSecond: 4 << 20, Burst: 16 << 20}
	if got := c.Limits.Overrides; len(got) != 3 || !reflect.DeepEqual(got[0], webmail) || !reflect.DeepEqual(got[1], big) || got[2].User.LoginDelay != 0 {
		t.Errorf("got %+v, want %+v, %+v and one more", got, webmail, big)
	}
	if l := c.Limits; l.All.Connections.String() != "500/s burst 2000" || l.Network.IPv4Prefix != 20 || l.Network.IPv6Prefix != 48 || l.User.Sessions != 10 {
		t.Errorf("got %+v", l)
	}
	var b strings.Builder
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	if got := mustLoad(t, b.String()); !reflect.DeepEqual(got, c) {
		t.Errorf("the print\n%s\nloads as %+v\nwant %+v", &b, got.Limits, c.Limits)
	}
	if got := b.String(); !strings.Contains(got, "handshakes: inherit") || !strings.Contains(got, `failures: "0"`) {
		t.Errorf("want what is inherited and what is off told apart in\n%s", got)
	}
}

func TestOverridesFaults(t *testing.T) {
	_, err := loadString(plain + `limits:
  sessions: 5
  all: {sessions: 6, logins: inherit}
  overrides:
  - {name: a, users: [anna], per_ip: {sessions: 7}}
  - {name: a, tenants: [t], per_user: {sessions: 7, handshakes: 1}}
`)
	want := []string{
		`popgate.yaml:3:13: limits.sessions: is short for limits.all.sessions, which is written too: remove one of them`,
		`popgate.yaml:4:30: limits.all.logins: "inherit" is for limits.overrides: write a value, or 0 for no limit`,
		`popgate.yaml:6:49: limits.overrides[0].per_ip.sessions: is decided before it is known which user comes: set it in an override for networks alone`,
		`popgate.yaml:7:12: limits.overrides[1].name: is "a", which is the name of another override too: choose another`,
		`popgate.yaml:7:53: limits.overrides[1].per_user.handshakes: there is no such key; did you mean limits.per_listener.handshakes?`,
	}
	if err == nil {
		t.Fatal("got no error")
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want) {
		t.Fatalf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got\n%s\nwant\n%s", got[i], want[i])
		}
	}
}
