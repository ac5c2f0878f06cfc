package access

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/auth"
)

var monday = time.Date(2026, 7, 6, 10, 0, 0, 0, time.UTC)

func over(version string) *auth.Client {
	c := from("192.0.2.1")
	c.TLS = &auth.TLS{Version: version}
	return c
}

func TestRules(t *testing.T) {
	dir := t.TempDir()
	country, asn := filepath.Join(dir, "country.mmdb"), filepath.Join(dir, "asn.mmdb")
	write(t, country, countries(t, map[string]string{"192.0.2.0/24": "AT", "198.51.100.0/24": "KP", "2001:db8::/32": "DE"}))
	write(t, asn, asns(t))
	plain, certificate := from("192.0.2.1"), over("TLS 1.3")
	certificate.TLS.Subject = "CN=bob"
	legacy := from("192.0.2.1")
	legacy.Listener = "old"
	offloaded := over("")
	offloaded.TLS.Offloaded = true
	bob := &auth.Route{Tenant: "acme", Backend: "b1", Account: "bob@example.org"}
	eve := &auth.Route{Tenant: "other", Backend: "b2", Account: "eve@gone.example"}
	type test struct {
		name   string
		rule   RuleConfig
		client *auth.Client
		route  *auth.Route // nil: before the handshake
		now    time.Time
		want   Reason
		detail string
	}
	lists := []ListConfig{{Name: "office", Networks: []string{"192.0.2.0/25", "2001:db8::/48"}}, {Name: "bad", Networks: []string{"192.0.2.1"}}}
	for _, tt := range []test{
		{"denied network", RuleConfig{Networks: NetworksRule{Deny: []string{"office", "bad"}}}, plain, nil, monday, NetworkDenied, "office"},
		{"other network", RuleConfig{Networks: NetworksRule{Deny: []string{"bad"}}}, from("192.0.2.2"), nil, monday, "", ""},
		{"mapped", RuleConfig{Networks: NetworksRule{Deny: []string{"bad"}}}, from("::ffff:192.0.2.1"), nil, monday, NetworkDenied, "bad"},
		{"allowed network", RuleConfig{Networks: NetworksRule{Allow: []string{"office"}}}, plain, nil, monday, "", ""},
		{"not allowed network", RuleConfig{Networks: NetworksRule{Allow: []string{"office"}}}, from("192.0.2.129"), nil, monday, NetworkNotAllowed, ""},
		{"deny before allow", RuleConfig{Networks: NetworksRule{Allow: []string{"office"}, Deny: []string{"bad"}}}, plain, nil, monday, NetworkDenied, "bad"},
		{"excepted", RuleConfig{Except: []string{"bad"}, Networks: NetworksRule{Deny: []string{"office"}}}, plain, nil, monday, "", ""},
		{"other listener", RuleConfig{Listeners: []string{"old"}, Networks: NetworksRule{Deny: []string{"bad"}}}, plain, nil, monday, "", ""},
		{"listener", RuleConfig{Listeners: []string{"old"}, Networks: NetworksRule{Deny: []string{"bad"}}}, legacy, nil, monday, NetworkDenied, "bad"},
		{"not twice", RuleConfig{Networks: NetworksRule{Deny: []string{"bad"}}}, plain, bob, monday, "", ""},
		{"tenant, too early", RuleConfig{Tenants: []string{"acme"}, Networks: NetworksRule{Deny: []string{"bad"}}}, plain, nil, monday, "", ""},
		{"tenant", RuleConfig{Tenants: []string{"acme"}, Networks: NetworksRule{Deny: []string{"bad"}}}, plain, bob, monday, NetworkDenied, "bad"},
		{"other tenant", RuleConfig{Tenants: []string{"acme"}, Networks: NetworksRule{Deny: []string{"bad"}}}, plain, eve, monday, "", ""},
		{"backend", RuleConfig{Backends: []string{"b2"}, Networks: NetworksRule{Deny: []string{"bad"}}}, plain, eve, monday, NetworkDenied, "bad"},
		{"user", RuleConfig{Users: []string{"Bob@Example.org"}, Networks: NetworksRule{Deny: []string{"bad"}}}, plain, bob, monday, NetworkDenied, "bad"},
		{"domain", RuleConfig{Users: []string{"@gone.example"}, Networks: NetworksRule{Deny: []string{"bad"}}}, plain, eve, monday, NetworkDenied, "bad"},
		{"other user", RuleConfig{Users: []string{"@gone.example"}, Networks: NetworksRule{Deny: []string{"bad"}}}, plain, bob, monday, "", ""},
		{"country", RuleConfig{Countries: CountriesRule{Deny: []string{"KP"}}}, from("198.51.100.1"), nil, monday, Country, "KP"},
		{"allowed country", RuleConfig{Countries: CountriesRule{Allow: []string{"AT", "unknown"}}}, plain, nil, monday, "", ""},
		{"not allowed country", RuleConfig{Countries: CountriesRule{Allow: []string{"AT"}}}, from("2001:db8::1"), nil, monday, Country, "DE"},
		{"unknown country", RuleConfig{Countries: CountriesRule{Allow: []string{"AT"}}}, from("10.0.0.1"), nil, monday, Country, "unknown"},
		{"unknown country allowed", RuleConfig{Countries: CountriesRule{Allow: []string{"unknown"}}}, from("10.0.0.1"), nil, monday, "", ""},
		{"asn", RuleConfig{ASNs: ASNsRule{Deny: []uint32{64500}}}, plain, nil, monday, ASN, "AS64500"},
		{"allowed asn", RuleConfig{ASNs: ASNsRule{Allow: []uint32{64500}}}, plain, nil, monday, "", ""},
		{"unknown asn", RuleConfig{ASNs: ASNsRule{Allow: []uint32{64500}}}, from("10.0.0.1"), nil, monday, ASN, "AS0"},
		{"open", RuleConfig{Hours: []string{"mon 10:00-11:00"}}, plain, bob, monday, "", ""},
		{"closed", RuleConfig{Hours: []string{"mon 10:00-11:00"}}, plain, bob, monday.Add(time.Hour), Hours, ""},
		{"hours, too early", RuleConfig{Hours: []string{"mon 10:00-11:00"}}, plain, nil, monday.Add(time.Hour), "", ""},
		{"tls", RuleConfig{TLS: TLSRule{MinVersion: "1.2"}}, over("TLS 1.2"), bob, monday, "", ""},
		{"old tls", RuleConfig{TLS: TLSRule{MinVersion: "1.3"}}, over("TLS 1.2"), bob, monday, TLSVersion, "TLS 1.2"},
		{"no tls", RuleConfig{TLS: TLSRule{MinVersion: "1.0"}}, plain, bob, monday, TLSVersion, "no TLS"},
		{"nobody tells", RuleConfig{TLS: TLSRule{MinVersion: "1.0"}}, offloaded, bob, monday, TLSVersion, "TLS of a version that is not known"},
		{"certificate", RuleConfig{TLS: TLSRule{ClientCertificate: true}}, certificate, bob, monday, "", ""},
		{"no certificate", RuleConfig{TLS: TLSRule{ClientCertificate: true}}, over("TLS 1.3"), bob, monday, ClientCertificate, ""},
		{"no tls, no certificate", RuleConfig{TLS: TLSRule{ClientCertificate: true}}, plain, bob, monday, ClientCertificate, ""},
		{"legacy, last day", RuleConfig{Tenants: []string{"acme"}, TLS: TLSRule{LegacyUntil: "2026-07-06"}}, over("TLS 1.1"), bob, monday.Add(14*time.Hour - 1), "", ""},
		{"legacy, over", RuleConfig{Tenants: []string{"acme"}, TLS: TLSRule{LegacyUntil: "2026-07-06"}}, over("TLS 1"), bob, monday.Add(14 * time.Hour), LegacyOver, "TLS 1"},
		{"legacy, over, in its zone", RuleConfig{TLS: TLSRule{LegacyUntil: "2026-07-06"}, TimeZone: "Etc/GMT-2"}, plain, bob, monday.Add(12 * time.Hour), LegacyOver, "no TLS"},
		{"not legacy", RuleConfig{TLS: TLSRule{LegacyUntil: "2026-01-06"}}, over("TLS 1.2"), bob, monday, "", ""},
		{"offloaded is not legacy", RuleConfig{TLS: TLSRule{LegacyUntil: "2026-01-06"}}, offloaded, bob, monday, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, action := range []string{actionDeny, actionLog} {
				c := DefaultConfig()
				c.Lists, c.Geo = lists, GeoConfig{country, asn}
				tt.rule.Name, tt.rule.Action = "r", action
				c.Rules = []RuleConfig{tt.rule}
				r := prepared(t, New(nil, nil), c)
				want := Verdict{}
				if tt.want != "" {
					want = Verdict{Deny, tt.want, "r", tt.detail}
					if action == actionLog {
						want.Action = Log
					}
				}
				var got Verdict
				if tt.route == nil {
					got = r.Client(t.Context(), tt.client)
				} else {
					got = r.User(t.Context(), tt.client, tt.route, tt.now)
				}
				if got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
		})
	}
}

// Who is refused anyway is not asked about.
func TestBlocklistsLast(t *testing.T) {
	z := newZone(t)
	c := blocklistConfig(z)
	c.Lists = []ListConfig{{Name: "bad", Networks: []string{"192.0.2.1"}}}
	c.Rules = append(c.Rules, RuleConfig{Name: "bad", Networks: NetworksRule{Deny: []string{"bad"}}, Action: actionDeny})
	r := running(t, New(nil, nil), c)
	if got := r.Client(t.Context(), from("192.0.2.1")); got.Rule != "bad" || z.count() != 0 {
		t.Errorf("got %+v after %d questions to the blocklist, want rule bad after none", got, z.count())
	}
	if r.Client(t.Context(), from("192.0.2.2")); z.count() != 1 {
		t.Errorf("the blocklist was asked %d times, want once", z.count())
	}
}

// The worst wins, and of equals the first.
func TestSeveralRules(t *testing.T) {
	c := DefaultConfig()
	c.Lists = []ListConfig{{Name: "a", Networks: []string{"192.0.2.0/24"}}, {Name: "b", Networks: []string{"192.0.2.1"}}}
	for _, r := range []struct{ name, list, action string }{{"log a", "a", "log"}, {"log b", "b", "log"}, {"deny b", "b", "deny"}, {"deny a", "b", "deny"}} {
		c.Rules = append(c.Rules, RuleConfig{Name: r.name, Networks: NetworksRule{Deny: []string{r.list}}, Action: r.action})
	}
	reg := prometheus.NewPedanticRegistry()
	k := New(nil, reg)
	r := prepared(t, k, c)
	k.Use(r)
	for addr, want := range map[string]string{"192.0.2.1": "deny b", "192.0.2.2": "log a", "198.51.100.1": ""} {
		if got := r.Client(t.Context(), from(addr)); got.Rule != want {
			t.Errorf("%s: got %+v, want rule %q", addr, got, want)
		}
	}
	want := `
# HELP popgate_access_files_failing Files of lists, accounts, countries and operators whose newest state could not be taken.
# TYPE popgate_access_files_failing gauge
popgate_access_files_failing 0
# HELP popgate_access_list_entries Ranges of addresses on a list of networks; neighbours are one.
# TYPE popgate_access_list_entries gauge
popgate_access_list_entries{list="a"} 1
popgate_access_list_entries{list="b"} 1
# HELP popgate_access_refused_total Clients and logins that a rule held something against, by the rule, its action (deny, log) and the reason.
# TYPE popgate_access_refused_total counter
popgate_access_refused_total{action="deny",reason="network_denied",rule="deny b"} 1
popgate_access_refused_total{action="log",reason="network_denied",rule="log a"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	c.Rules = c.Rules[:1]
	k.Use(prepared(t, k, c))
	if got := testutil.CollectAndCount(k.metrics.verdicts); got != 1 {
		t.Errorf("%d counters are left after a reload, want that of the rule that stayed", got)
	}
}

func TestDisabled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disabled")
	write(t, path, []byte("# gone\neve@gone.example\n"))
	c := DefaultConfig()
	c.Disabled = DisabledConfig{Users: []string{"bob@example.org"}, Files: []string{path}}
	k := New(nil, nil)
	r := prepared(t, k, c)
	k.Use(r)
	check := func(account string, want Action) {
		t.Helper()
		got := r.User(t.Context(), over("TLS 1.3"), &auth.Route{Account: account}, monday)
		if got.Action != want || want == Deny && got.Reason != Disabled {
			t.Errorf("%s: got %+v, want %v", account, got, want)
		}
	}
	check("bob@example.org", Deny)
	check("eve@gone.example", Deny)
	check("alice@example.org", Allow)
	write(t, path, []byte("alice@example.org\n"))
	k.look(true)
	check("eve@gone.example", Allow)
	check("alice@example.org", Deny)
}

// A new file takes effect; a bad one leaves the one before in force, and the line is named.
func TestFileReload(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feed")
	write(t, path, []byte("192.0.2.0/24\n"))
	c := DefaultConfig()
	c.Lists = []ListConfig{{Name: "feed", Networks: []string{"203.0.113.1"}, Files: []string{path}}}
	c.Rules = []RuleConfig{{Name: "r", Networks: NetworksRule{Deny: []string{"feed"}}, Action: actionDeny}}
	k := New(nil, nil)
	r := prepared(t, k, c)
	k.Use(r)
	denied := func(want ...string) {
		t.Helper()
		for _, addr := range []string{"192.0.2.1", "198.51.100.1", "203.0.113.1"} {
			expected := Allow
			for _, w := range want {
				if w == addr {
					expected = Deny
				}
			}
			if got := r.Client(t.Context(), from(addr)); got.Action != expected {
				t.Errorf("%s: got %v, want %v", addr, got.Action, expected)
			}
		}
	}
	denied("192.0.2.1", "203.0.113.1")

	write(t, path, []byte("198.51.100.0/24\n"))
	k.look(false) // it may still be written
	denied("192.0.2.1", "203.0.113.1")
	k.look(false)
	denied("198.51.100.1", "203.0.113.1")

	for _, bad := range []struct{ text, want string }{
		{"192.0.2.0/24\n<html>\n", path + `: line 2: "<html>" is not a network`},
		{"", path + " has become empty"},
	} {
		write(t, path, []byte(bad.text))
		k.look(true)
		denied("198.51.100.1", "203.0.113.1")
		if err := k.Trouble(); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("got trouble %v, want %q", err, bad.want)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	k.look(true)
	denied("198.51.100.1", "203.0.113.1")
	if err := k.Trouble(); err == nil || !strings.Contains(err.Error(), "put the file there") {
		t.Errorf("got trouble %v", err)
	}

	write(t, path, []byte("# nothing for now\n"))
	k.look(true)
	denied("203.0.113.1")
	if err := k.Trouble(); err != nil {
		t.Error(err)
	}
	// A file in use is not opened anew, one of other rules is looked at no more.
	if next := prepared(t, k, c); next.lists[0].files[0] != r.lists[0].files[0] {
		t.Error("a reload reads a file again that has not changed")
	}
}

func TestPrepareFaults(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	write(t, bad, []byte("x\n10.0.0.0/8\n"))
	c := DefaultConfig()
	c.Lists = []ListConfig{{Name: "a", Files: []string{filepath.Join(dir, "none"), bad, dir}}}
	c.Geo = GeoConfig{Country: bad, ASN: filepath.Join(dir, "none")}
	c.Disabled.Files = []string{filepath.Join(dir, "none")}
	_, err := New(nil, nil).Prepare(c)
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"access.lists[0].files[0]: ", `access.lists[0].files[1]: read ` + bad + `: line 1: "x" is not`, "access.lists[0].files[2]: " + dir + " is no ordinary file",
		"access.geo.country: ", "access.geo.asn: ", "access.disabled.files[0]: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	if got := faults(DefaultConfig()); len(got) > 0 {
		t.Errorf("the default is at fault: %v", got)
	}
	rule := DefaultRule()
	c := Config{
		Lists:      []ListConfig{{Name: "a", Networks: []string{"10.0.0.0/33"}}, {Name: "a"}, {Files: []string{""}}},
		Blocklists: []BlocklistConfig{{Name: "bl", Zone: "a b", Codes: []string{"10.0.0.1", "126.0.0.0/7", "::1"}}, {Name: strings.Repeat("x", 65), Zone: "zen.example"}},
		DNS:        DNSConfig{Resolvers: []string{"dns.example"}, MaxLookups: 0, CacheSize: -1},
		Disabled:   DisabledConfig{Users: []string{"@"}, Files: []string{""}},
		Rules: []RuleConfig{rule, {
			Name: "r", Except: []string{"b"}, Networks: NetworksRule{Allow: []string{"b"}, Deny: []string{"b"}}, Blocklists: []string{"b"}, Users: []string{"a b"},
			Countries: CountriesRule{Allow: []string{"at"}, Deny: []string{"XYZ"}}, ASNs: ASNsRule{Deny: []uint32{1}},
			Hours: []string{"never"}, TimeZone: "Mars/Olympus", TLS: TLSRule{MinVersion: "1.4", LegacyUntil: "soon"}, Action: "maybe",
		}},
	}
	got := faults(c)
	for _, key := range []string{
		"lists[0].networks[0]", "lists[1].name", "lists[1].networks", "lists[2].name", "lists[2].files[0]",
		"blocklists[0].zone", "blocklists[0].codes[0]", "blocklists[0].codes[1]", "blocklists[0].codes[2]", "blocklists[1].name",
		"dns.resolvers[0]", "dns.timeout", "dns.max_lookups", "dns.cache_size", "disabled.users[0]", "disabled.files[0]",
		"rules[0].name", "rules[1].except[0]", "rules[1].networks.allow[0]", "rules[1].networks.deny[0]", "rules[1].blocklists[0]", "rules[1].users[0]",
		"rules[1].countries", "rules[1].countries.allow[0]", "rules[1].countries.deny[0]", "rules[1].asns", "rules[1].hours[0]", "rules[1].time_zone",
		"rules[1].tls.min_version", "rules[1].tls.legacy_until", "rules[1].action",
	} {
		if got[key] == "" {
			t.Errorf("nothing is said of %s", key)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("and more is said: %v", got)
	}
}

func faults(c Config) map[string]string {
	found := map[string]string{}
	c.Validate(func(key, problem string) { found[key] = problem })
	return found
}

// The set of reasons is closed, each has its own text, and the document has them all.
func TestReasons(t *testing.T) {
	doc, err := os.ReadFile("../../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Reason]bool{"": true}
	for _, r := range []Reason{
		NetworkDenied, NetworkNotAllowed, Country, ASN, Blocklisted, Hours, TLSVersion, ClientCertificate, LegacyOver, Disabled,
	} {
		if seen[r] {
			t.Errorf("%q is there twice", r)
		}
		seen[r] = true
		if !strings.Contains(string(doc), "`"+string(r)) {
			t.Errorf("docs/access.md has no %s", r)
		}
	}
}

func BenchmarkClient(b *testing.B) {
	dir := b.TempDir()
	country := filepath.Join(dir, "country.mmdb")
	write(b, country, countries(b, map[string]string{"192.0.2.0/24": "AT"}))
	feed := filepath.Join(dir, "feed")
	write(b, feed, manyNetworks(1_000_000))
	c := DefaultConfig()
	c.Lists, c.Geo.Country = []ListConfig{{Name: "feed", Files: []string{feed}}}, country
	c.Rules = []RuleConfig{
		{Name: "feed", Networks: NetworksRule{Deny: []string{"feed"}}, Action: actionDeny},
		{Name: "home", Countries: CountriesRule{Allow: []string{"AT"}}, Action: actionDeny},
	}
	r, err := New(nil, nil).Prepare(c)
	if err != nil {
		b.Fatal(err)
	}
	client := from("192.0.2.1")
	client.Addr = netip.MustParseAddrPort("192.0.2.1:4711")
	b.ReportAllocs()
	for b.Loop() {
		if r.Client(b.Context(), client).Action != Allow {
			b.Fatal("refused")
		}
	}
}

// TestLegacyUntil: the earliest last day that holds for a login, and what the audit says of who comes after it.
func TestLegacyUntil(t *testing.T) {
	k := New(nil, nil)
	day := func(text string) TLSRule { return TLSRule{LegacyUntil: text} }
	r, err := k.Prepare(Config{
		DNS: DefaultConfig().DNS,
		Rules: []RuleConfig{
			{Name: "all", Action: actionDeny, TLS: day("2026-12-31")},
			{Name: "acme", Action: actionDeny, Tenants: []string{"acme"}, TLS: day("2026-06-30"), TimeZone: "Europe/Vienna"},
			{Name: "tried", Action: actionLog, TLS: day("2026-01-31")},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := from("192.0.2.1")
	acme, other := &auth.Route{Tenant: "acme", Account: "bob@example.org"}, &auth.Route{Tenant: "other", Account: "eve@example.net"}
	end := r.LegacyUntil(c, acme)
	if want := "2026-07-01T00:00:00+02:00"; end.Format(time.RFC3339) != want {
		t.Errorf("acme: got %s, want %s", end.Format(time.RFC3339), want)
	}
	if got, want := r.LegacyUntil(c, other).Format(time.RFC3339), "2027-01-01T00:00:00Z"; got != want {
		t.Errorf("other: got %s, want %s", got, want)
	}
	if v := r.User(t.Context(), c, acme, end.Add(-time.Second)); v.Action != Log || v.Rule != "tried" {
		t.Errorf("on the last day: got %+v", v)
	}
	if v := r.User(t.Context(), c, acme, end); v.Action != Deny || v.Rule != "acme" || v.Because() != "legacy_over no TLS" {
		t.Errorf("after the last day: got %+v", v)
	}
	none, err := k.Prepare(Config{DNS: DefaultConfig().DNS})
	if err != nil || !none.LegacyUntil(c, acme).IsZero() || (Verdict{}).Because() != "" {
		t.Errorf("no rules: got %v, %v", none.LegacyUntil(c, acme), err)
	}
}
