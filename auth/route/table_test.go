package route

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
)

// table makes a table whose routes are given over the defaults, in order.
func table(t testing.TB, configs ...Config) *Table {
	t.Helper()
	for i := range configs {
		configs[i].Username = or(configs[i].Username, DefaultConfig().Username)
		configs[i].Backend = or(configs[i].Backend, fmt.Sprintf("b%d", i))
	}
	table, err := New(configs, Known{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func name(t testing.TB, typed string) auth.Name {
	t.Helper()
	n, err := auth.NameRules{}.Parse([]byte(typed))
	if err != nil {
		t.Fatalf("parse %q: %v", typed, err)
	}
	return n
}

func client(addr, listener, serverName string) *auth.Client {
	c := &auth.Client{Listener: listener}
	if addr != "" {
		c.Addr = netip.AddrPortFrom(netip.MustParseAddr(addr), 4711)
	}
	if serverName != "" {
		c.TLS = &auth.TLS{ServerName: serverName}
	}
	return c
}

func networks(s ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, p := range s {
		ps = append(ps, netip.MustParsePrefix(p))
	}
	return ps
}

func TestRoute(t *testing.T) {
	tab := table(t,
		/* 0 */ Config{Domains: []string{"example.org"}, Users: []string{"^sales-", "^admin@"}},
		/* 1 */ Config{Domains: []string{"Example.ORG", "*.example.org"}, Listeners: []string{"pop3s", "old"}, Tenant: "example"},
		/* 2 */ Config{Domains: []string{"*.mail.example.org"}},
		/* 3 */ Config{Domains: []string{"Bücher.example", "*.xn--bcher-kva.example"}, Username: "{local}"},
		/* 4 */ Config{ServerNames: []string{"pop.tenant.example", "*.sni.example"}},
		/* 5 */ Config{From: networks("192.0.2.0/24", "2001:db8::/32"), Users: []string{"(?i)^ALICE"}},
		/* 6 */ Config{Domains: []string{"example.org"}},
	)
	anybody := client("198.51.100.7", "legacy", "")
	tests := []struct {
		user   string
		client *auth.Client
		want   string // the label; "" for none
	}{
		{"sales-eu@example.org", anybody, "routes[0]"},
		{"admin@EXAMPLE.org", anybody, "routes[0]"},
		{"administrator@example.org", anybody, "routes[6]"},
		{"Sales-eu@example.org", anybody, "routes[6]"},
		{"bob@example.org", client("198.51.100.7", "pop3s", ""), "routes[1]"},
		{"bob@example.org", client("198.51.100.7", "old", ""), "routes[1]"},
		{"bob@example.org.", anybody, "routes[6]"},
		{"bob@a.example.org", client("198.51.100.7", "pop3s", ""), "routes[1]"},
		{"bob@b.a.mail.example.org", client("198.51.100.7", "pop3s", ""), "routes[1]"},
		{"bob@b.a.mail.example.org", anybody, "routes[2]"},
		{"bob@mail.example.org", anybody, ""},
		{"bob@notexample.org", anybody, ""},
		{"bob@org", anybody, ""},
		{"jörg@BÜCHER.example", anybody, "routes[3]"},
		{"jörg@xn--bcher-kva.example", anybody, "routes[3]"},
		{"jörg@x.bücher.example", anybody, "routes[3]"},
		{"bob@elsewhere.example", client("198.51.100.7", "legacy", "pop.tenant.example"), "routes[4]"},
		{"bob", client("198.51.100.7", "legacy", "a.b.sni.example"), "routes[4]"},
		{"bob", client("198.51.100.7", "legacy", "sni.example"), ""},
		{"alice", client("192.0.2.255", "", ""), "routes[5]"},
		{"Alice@elsewhere.example", client("2001:db8:ffff::1", "", ""), "routes[5]"},
		{"alice", client("192.0.3.0", "", ""), ""},
		{"alice", client("", "", ""), ""},
		{"bob", client("192.0.2.1", "", ""), ""},
	}
	for _, tt := range tests {
		q := auth.Query{Name: name(t, tt.user), Client: tt.client}
		got, err := tab.Route(context.Background(), q)
		if got.Label != tt.want || tt.want == "" != errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("Route(%s from %+v) = %q, %v, want %q", tt.user, *tt.client, got.Label, err, tt.want)
		}
		steps, _, _ := tab.Explain(t.Context(), q)
		last := steps[len(steps)-1]
		if last.Matches != (tt.want != "") || last.Matches && last.Label != tt.want {
			t.Errorf("Explain(%s) ends in %+v, want %q", tt.user, last, tt.want)
		}
	}
}

func TestRouteAnswer(t *testing.T) {
	tab := table(t,
		Config{Domains: []string{"example.org"}, Backend: "old", Tenant: "example", Username: "{local}"},
		Config{Users: []string{"^x"}, Username: "{domain}/{local}"},
		Config{Backend: "new"},
	)
	tests := []struct {
		user string
		want auth.Route
	}{
		{"Alice+news@Example.org", auth.Route{
			Label: "routes[0]", Backend: "old", Tenant: "example", Account: "alice@example.org",
			Login: auth.BackendLogin{User: "Alice+news"},
		}},
		{"Bob@Else.example", auth.Route{
			Label: "routes[2]", Backend: "new", Account: "bob@else.example", Login: auth.BackendLogin{User: "Bob@Else.example"},
		}},
		{"xenia@else.example", auth.Route{
			Label: "routes[1]", Backend: "b1", Account: "xenia@else.example", Login: auth.BackendLogin{User: "else.example/xenia"},
		}},
	}
	for _, tt := range tests {
		got, err := tab.Route(context.Background(), auth.Query{Name: name(t, tt.user), Client: &auth.Client{}})
		if got != tt.want || err != nil {
			t.Errorf("Route(%s) = %+v, %v, want %+v", tt.user, got, err, tt.want)
		}
	}
	// The route that takes the user asks for a domain, and there is none: not the next route's turn.
	q := auth.Query{Name: name(t, "xenia"), Client: &auth.Client{}}
	if got, err := tab.Route(context.Background(), q); !errors.Is(err, auth.ErrUnknownUser) || got != (auth.Route{}) || !strings.Contains(err.Error(), "{domain}") {
		t.Errorf("a name without domain: %+v, %v", got, err)
	}
	want := Step{Label: "routes[1]", Backend: "b1", Matches: true, Condition: "username", Want: "{domain}/{local}", Got: "xenia", Username: "{domain}/{local}"}
	if steps, _, err := tab.Explain(t.Context(), q); len(steps) != 2 || !reflect.DeepEqual(steps[1], want) || !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("Explain = %+v, want %+v at its end", steps, want)
	}
}

func TestRouteNothing(t *testing.T) {
	tab := table(t)
	q := auth.Query{Name: name(t, "a@example.org"), Client: &auth.Client{}}
	if _, err := tab.Route(context.Background(), q); !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("an empty table: %v", err)
	}
	if steps, _, err := tab.Explain(t.Context(), q); tab.Knows("example.org") || len(steps) != 0 || !errors.Is(err, auth.ErrUnknownUser) {
		t.Error("an empty table knows something")
	}
}

func TestExplain(t *testing.T) {
	tab := table(t,
		Config{Domains: []string{"Example.com", "*.example.net"}},
		Config{Domains: []string{"example.org"}, Users: []string{"^a", "^b"}},
		Config{Domains: []string{"*.org", "example.org"}, Listeners: []string{"pop3s"}},
		Config{ServerNames: []string{"mail.example.org"}},
		Config{From: networks("192.0.2.0/24", "::1/128")},
		Config{Backend: "rest"},
		Config{Backend: "never"},
	)
	want := []Step{
		{Label: "routes[0]", Backend: "b0", Condition: "domains", Want: "Example.com, *.example.net", Got: "example.org"},
		{Label: "routes[1]", Backend: "b1", Condition: "users", Want: "^a, ^b", Got: "carol@example.org"},
		{Label: "routes[2]", Backend: "b2", Condition: "listeners", Want: "pop3s", Got: "old"},
		{Label: "routes[3]", Backend: "b3", Condition: "server_names", Want: "mail.example.org", Got: "pop.example.org"},
		{Label: "routes[4]", Backend: "b4", Condition: "from", Want: "192.0.2.0/24, ::1/128", Got: "198.51.100.1"},
		{Label: "routes[5]", Backend: "rest", Matches: true, Username: "{user}"},
	}
	got, answer, err := tab.Explain(t.Context(), auth.Query{Name: name(t, "carol@example.org"), Client: client("198.51.100.1", "old", "pop.example.org")})
	if !reflect.DeepEqual(got, want) || answer.Backend != "rest" || err != nil {
		t.Errorf("Explain:\n%+v, want\n%+v", got, want)
	}
	steps, _, _ := tab.Explain(t.Context(), auth.Query{Name: name(t, "carol"), Client: &auth.Client{}})
	for i, want := range map[int]string{0: "a name without a domain", 3: "no server name", 4: "no address"} {
		if steps[i].Got != want {
			t.Errorf("step %d got %q, want %q", i, steps[i].Got, want)
		}
	}
}

func TestKnows(t *testing.T) {
	tab := table(t,
		Config{Domains: []string{"example.org", "*.example.com"}},
		Config{Domains: []string{"Bücher.example"}, Users: []string{"^a"}},
		Config{},
	)
	for domain, want := range map[string]bool{
		"example.org": true, "EXAMPLE.org.": true, "a.example.org": false, "example.com": false, "x.y.example.com": true,
		"bücher.example": true, "xn--bcher-kva.example": true, "": false, ".": false, "a..b": false, "org": false,
	} {
		if got := tab.Knows(domain); got != want {
			t.Errorf("Knows(%q) = %v", domain, got)
		}
	}
}

func TestDomains(t *testing.T) {
	tab := table(t,
		Config{Domains: []string{"example.org", "*.below.example"}},
		Config{Users: []string{"@anything"}},
		Config{Domains: []string{"Example.NET", "example.org", "bücher.example"}},
	)
	want := []string{"example.net", "example.org", "xn--bcher-kva.example"}
	if got := tab.Domains(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The index changes how long a look-up takes and never its answer: it is what going through all routes in order gives.
func TestRouteAsInOrder(t *testing.T) {
	rnd := rand.New(rand.NewPCG(995, 110))
	labels := []string{"a", "b", "c"}
	domain := func() string {
		d := labels[rnd.IntN(3)]
		for range rnd.IntN(10) {
			d = labels[rnd.IntN(3)] + "." + d
		}
		return d
	}
	found := 0
	for range 300 {
		configs := make([]Config, 1+rnd.IntN(40))
		for i := range configs {
			for range rnd.IntN(4) {
				configs[i].Domains = append(configs[i].Domains, strings.Repeat("*.", rnd.IntN(2))+domain())
			}
			if rnd.IntN(2) == 0 {
				configs[i].Listeners = labels[:1+rnd.IntN(2)]
			}
		}
		tab := table(t, configs...)
		for range 30 {
			q := auth.Query{Name: name(t, "u@"+domain()), Client: client("", labels[rnd.IntN(3)], "")}
			steps, _, _ := tab.Explain(t.Context(), q)
			last := steps[len(steps)-1]
			got, err := tab.Route(context.Background(), q)
			if last.Matches != (err == nil) || last.Matches && got.Label != last.Label {
				t.Fatalf("%s by %s: %q, %v, in order %+v", q.Name.Typed, q.Client.Listener, got.Label, err, last)
			}
			if err == nil {
				found++
			}
		}
	}
	if found < 1000 {
		t.Errorf("only %d look-ups found a route", found)
	}
}

func BenchmarkRoute(b *testing.B) {
	var configs []Config
	for i := range 10_000 {
		configs = append(configs, Config{Domains: []string{fmt.Sprintf("customer%d.example", i), fmt.Sprintf("*.customer%d.example", i)}})
	}
	tab := table(b, configs...)
	for _, user := range []string{"alice@customer9999.example", "alice@mail.customer9999.example", "alice@nobody.example"} {
		b.Run(user, func(b *testing.B) {
			q := auth.Query{Name: name(b, user), Client: &auth.Client{}}
			b.ReportAllocs()
			for b.Loop() {
				_, _ = tab.Route(context.Background(), q)
			}
		})
	}
}
