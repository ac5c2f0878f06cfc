package route

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/directory"
)

// fakeDirectory answers by the local part of names.
type fakeDirectory struct {
	answers   map[string]directory.Answer
	errs      map[string]error // beside, or instead of, an answer
	domains   []string
	refreshed []string
}

func (f *fakeDirectory) Lookup(_ context.Context, q *auth.Query) (directory.Found, error) {
	a, ok := f.answers[q.Name.Local]
	err := f.errs[q.Name.Local]
	if !ok && err == nil {
		err = fmt.Errorf("no row: %w", auth.ErrUnknownUser)
	}
	return directory.Found{Answer: a, How: directory.Cached, Age: time.Minute}, err
}

func (f *fakeDirectory) Refresh(q *auth.Query) { f.refreshed = append(f.refreshed, q.Name.Local) }

func (f *fakeDirectory) KnowsDomain(domain string) bool { return slices.Contains(f.domains, domain) }

// directed makes a table whose routes ask the directories.
func directed(t testing.TB, directories map[string]*fakeDirectory, configs ...Config) *Table {
	t.Helper()
	for i := range configs {
		configs[i].Username = or(configs[i].Username, DefaultConfig().Username)
	}
	tab, err := New(configs, Known{
		Directory: func(name string) Directory {
			if d := directories[name]; d != nil {
				return d
			}
			return nil
		},
		Backends: []string{"old", "new"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func (f *fakeDirectory) Domains() []string { return f.domains }

func TestDirected(t *testing.T) {
	gone := fmt.Errorf("%w: connection refused", auth.ErrDirectoryDown)
	first := &fakeDirectory{
		answers: map[string]directory.Answer{
			"plain":   {},
			"all":     {Backend: "new", User: "u1", Tenant: "other", Server: "10.0.0.7:110", TLS: "none", Verified: true, Disabled: true},
			"master":  {User: "u2", Master: "root", Secret: "s", Verified: true},
			"moving":  {Moving: true},
			"moved":   {Moving: true, Backend: "new"},
			"both":    {Tenant: "first"},
			"nowhere": {Backend: "nonesuch"},
			"wrong":   {Wait: time.Second},
			"tls":     {TLS: "implicit"}, // of no server
		},
		errs: map[string]error{"down": gone, "wrong": auth.ErrWrongPassword, "net": auth.ErrNetwork},
	}
	second := &fakeDirectory{answers: map[string]directory.Answer{"both": {Tenant: "second"}, "late": {}, "down": {}}}
	tab := directed(t, map[string]*fakeDirectory{"first": first, "second": second},
		/* 0 */ Config{Domains: []string{"example.org"}, Directory: Chain{"first", "second"}, Backend: "old", Then: "new", Tenant: "t"},
		/* 1 */ Config{Domains: []string{"example.net"}, Directory: Chain{"first"}, Username: "{local}"},
		/* 2 */ Config{Domains: []string{"example.org"}, Users: []string{"^rest"}, Backend: "new"},
	)
	login := func(user string) auth.BackendLogin { return auth.BackendLogin{User: user} }
	for _, tt := range []struct {
		user string
		want auth.Route
		err  error
	}{
		{"plain@example.org", auth.Route{Backend: "old", Tenant: "t", Directory: "first", Login: login("plain@example.org")}, nil},
		{"all@example.org", auth.Route{
			Backend: "new", Tenant: "other", Directory: "first", Login: login("u1"), Server: auth.Server{Address: "10.0.0.7:110", TLS: "none"}, Verified: true, Disabled: true,
		}, nil},
		{"master@example.org", auth.Route{
			Backend: "old", Tenant: "t", Directory: "first", Verified: true, Login: auth.BackendLogin{User: "root", Authzid: "u2", Method: auth.MethodPlain},
		}, nil},
		{"moving@example.org", auth.Route{Backend: "old", Then: "new", Tenant: "t", Directory: "first", Login: login("moving@example.org")}, nil},
		{"moved@example.org", auth.Route{Backend: "new", Then: "old", Tenant: "t", Directory: "first", Login: login("moved@example.org")}, nil},
		{"tls@example.org", auth.Route{Backend: "old", Tenant: "t", Directory: "first", Login: login("tls@example.org")}, nil},
		{"both@example.org", auth.Route{Backend: "old", Tenant: "first", Directory: "first", Login: login("both@example.org")}, nil},
		{"late@example.org", auth.Route{Backend: "old", Tenant: "t", Directory: "second", Login: login("late@example.org")}, nil},
		{"rest@example.org", auth.Route{Label: "routes[2]", Backend: "new", Login: login("rest@example.org")}, nil},
		{"nobody@example.org", auth.Route{Backend: "old"}, auth.ErrUnknownUser}, // to be refused at its pace
		{"nobody@example.net", auth.Route{}, auth.ErrUnknownUser},
		{"nobody@example.com", auth.Route{}, auth.ErrUnknownUser},
		// A directory that cannot tell ends the chain: the next one may know another user of that name.
		{"down@example.org", auth.Route{Backend: "old", Tenant: "t", Directory: "first"}, auth.ErrDirectoryDown},
		{"wrong@example.org", auth.Route{Backend: "old", Tenant: "t", Directory: "first", Wait: time.Second, Login: login("wrong@example.org")}, auth.ErrWrongPassword},
		{"net@example.org", auth.Route{Backend: "old", Tenant: "t", Directory: "first", Login: login("net@example.org")}, auth.ErrNetwork},
		{"nowhere@example.org", auth.Route{Backend: "nonesuch", Tenant: "t", Directory: "first"}, auth.ErrDirectoryDown},
		{"all@example.net", auth.Route{
			Label: "routes[1]", Backend: "new", Tenant: "other", Directory: "first", Login: login("u1"), Server: auth.Server{Address: "10.0.0.7:110", TLS: "none"}, Verified: true, Disabled: true,
		}, nil},
		{"plain@example.net", auth.Route{Label: "routes[1]", Directory: "first"}, auth.ErrDirectoryDown}, // no backend anywhere
	} {
		q := auth.Query{Name: name(t, tt.user), Client: &auth.Client{}}
		got, err := tab.Route(t.Context(), q)
		if tt.err == nil || tt.want.Directory != "" {
			tt.want.Account = q.Name.Key
			tt.want.Label = or(tt.want.Label, "routes[0]")
		}
		secret := got.Login.Secret
		got.Login.Secret = nil
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: got %+v, %v\nwant %+v, %v", tt.user, got, err, tt.want, tt.err)
		}
		if stored := strings.HasPrefix(tt.user, "master"); (secret != nil) != stored || stored && string(secret.Reveal()) != "s" {
			t.Errorf("%s: got a secret: %t", tt.user, secret != nil)
		}
		if tt.err == auth.ErrDirectoryDown && tt.user != "down@example.org" && (err == nil || !strings.Contains(err.Error(), tt.user) || !strings.Contains(err.Error(), "directory first")) {
			t.Errorf("%s: the error %q names not both user and directory", tt.user, err)
		}
		steps, answer, err2 := tab.Explain(t.Context(), q)
		answer.Login.Secret = nil
		if answer != got || !errors.Is(err2, tt.err) {
			t.Errorf("%s: explained as %+v, %v, routed to %+v", tt.user, answer, err2, got)
		}
		if last := steps[len(steps)-1]; err == nil && (last.Label != got.Label || last.Backend != got.Backend || last.Unknown) {
			t.Errorf("%s: the last step is %+v, the route %+v", tt.user, last, got)
		}
	}
	steps, _, _ := tab.Explain(t.Context(), auth.Query{Name: name(t, "rest@example.org"), Client: &auth.Client{}})
	asked := []Asked{
		{Directory: "first", How: directory.Cached, Age: time.Minute, Err: steps[0].Asked[0].Err},
		{Directory: "second", How: directory.Cached, Age: time.Minute, Err: steps[0].Asked[1].Err},
	}
	if len(steps) != 3 || !steps[0].Unknown || !reflect.DeepEqual(steps[0].Asked, asked) || !errors.Is(asked[1].Err, auth.ErrUnknownUser) || steps[2].Asked != nil {
		t.Errorf("a user whom nobody knows: %+v", steps)
	}
	tab.Refresh(auth.Query{Name: name(t, "late@example.org")}, &auth.Route{Directory: "second"})
	tab.Refresh(auth.Query{Name: name(t, "rest@example.org")}, &auth.Route{})
	if len(first.refreshed) != 0 || !slices.Equal(second.refreshed, []string{"late"}) {
		t.Errorf("refreshed %q and %q", first.refreshed, second.refreshed)
	}
}

func TestDirectoriesKnowDomains(t *testing.T) {
	d := &fakeDirectory{domains: []string{"example.org", "example.net"}}
	narrow := &fakeDirectory{domains: []string{"example.com"}}
	tab := directed(t, map[string]*fakeDirectory{"d": d, "narrow": narrow},
		Config{Domains: []string{"example.edu"}, Directory: Chain{"narrow"}, Backend: "old"}, Config{Directory: Chain{"d"}, Backend: "old"})
	for domain, want := range map[string]bool{
		"example.org": true, "Example.NET.": true, "example.edu": true, "example.com": false, "a.example.org": false, "a..b": false, "": false,
	} {
		if got := tab.Knows(domain); got != want {
			t.Errorf("Knows(%q) = %t", domain, got)
		}
	}
	if got := tab.Domains(); !slices.Equal(got, []string{"example.edu", "example.net", "example.org"}) {
		t.Errorf("Domains() = %q", got)
	}
}

func TestNewWithoutDirectory(t *testing.T) {
	_, err := New([]Config{{Directory: Chain{"users"}, Backend: "b", Username: "{user}"}}, Known{})
	if err == nil || !strings.Contains(err.Error(), `routes[0].directory[0] is "users"`) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkRouteDirected(b *testing.B) {
	tab := directed(b, map[string]*fakeDirectory{"d": {answers: map[string]directory.Answer{"alice": {Backend: "new", User: "u1"}}}}, Config{Directory: Chain{"d"}})
	q := auth.Query{Name: name(b, "alice@example.org"), Client: &auth.Client{}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tab.Route(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
}
