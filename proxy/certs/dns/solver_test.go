package dns

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libdns/libdns"
)

// A notebook is a libdns provider as they are compiled in: it knows nothing of zones and delegation.
type notebook struct {
	Token string `json:"api_token"`

	mu      sync.Mutex
	entries []string // "zone name value"
	fail    error
	late    bool // the record is written although the call fails
}

func (n *notebook) AppendRecords(_ context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail == nil || n.late {
		n.entries = append(n.entries, entry(zone, recs[0]))
	}
	return recs, n.fail
}

func (n *notebook) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.entries = slices.DeleteFunc(n.entries, func(e string) bool { return e == entry(zone, recs[0]) })
	return recs, ctx.Err()
}

func (n *notebook) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.entries)
}

func entry(zone string, r libdns.Record) string {
	return zone + " " + r.RR().Name + " " + r.RR().Data
}

func solverWith(t *testing.T, p Provider, b *book, change ...func(*Config)) *Solver {
	t.Helper()
	c := DefaultConfig()
	c.Provider = ProviderWebhook
	c.Webhook.URL = "http://127.0.0.1:1/"
	c.Resolver = b.serve(t)
	c.Propagation.Resolvers = []string{c.Resolver}
	for _, f := range change {
		f(&c)
	}
	s, err := NewSolver(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.provider = p
	return s
}

func zones(t *testing.T) *book {
	return newBook(t, "example.org. 60 IN SOA ns hostmaster 1 1 1 1 1", "acme.example.net. 60 IN SOA ns hostmaster 1 1 1 1 1",
		"_acme-challenge.a.example.org. 60 IN CNAME a.acme.example.net.",
		"_acme-challenge.b.example.org. 60 IN CNAME acme.example.net.",
		"_acme-challenge.c.example.org. 60 IN CNAME elsewhere.example.net.")
}

func TestSolverPlaces(t *testing.T) {
	override := func(c *Config) { c.OverrideDomain = "acme.example.net" }
	blind := func(c *Config) { c.FollowCNAME = false }
	for _, tt := range []struct {
		name, domain string
		change       []func(*Config)
		want         string // entry, or what the error says
		fails        bool
	}{
		{name: "own zone", domain: "mail.example.org", want: "example.org. _acme-challenge.mail value"},
		{name: "CNAME", domain: "a.example.org", want: "acme.example.net. a value"},
		{name: "CNAME not to be followed", domain: "a.example.org", change: []func(*Config){blind}, want: "example.org. _acme-challenge.a value"},
		{name: "override", domain: "b.example.org", change: []func(*Config){override}, want: "acme.example.net. @ value"},
		{name: "override without a look", domain: "mail.example.org", change: []func(*Config){override, blind}, want: "acme.example.net. @ value"},
		{
			name: "override, no CNAME", domain: "mail.example.org", change: []func(*Config){override}, fails: true,
			want: "_acme-challenge.mail.example.org has no CNAME: add `_acme-challenge.mail.example.org. CNAME acme.example.net.`",
		},
		{
			name: "override, CNAME elsewhere", domain: "c.example.org", change: []func(*Config){override}, fails: true,
			want: "leads to elsewhere.example.net: it must lead to acme.example.net",
		},
		{name: "no zone", domain: "example.com", want: "find the zone of _acme-challenge.example.com", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &notebook{}
			s := solverWith(t, n, zones(t), tt.change...)
			name := challengeLabel + tt.domain
			err := s.Present(t.Context(), name, "value")
			if tt.fails {
				wantError(t, err, tt.want)
				if got := n.list(); len(got) != 0 {
					t.Errorf("written all the same: %q", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := n.list(); !slices.Equal(got, []string{tt.want}) {
				t.Errorf("written %q, want %q", got, tt.want)
			}
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.CleanUp(gone, strings.ToUpper(name)+".", "value"); err != nil {
				t.Fatal(err)
			}
			if got := n.list(); len(got) != 0 || len(s.places) != 0 {
				t.Errorf("left over: %q, %v", got, s.places)
			}
		})
	}
}

func TestSolverWait(t *testing.T) {
	b := zones(t)
	s := solverWith(t, &notebook{}, b)
	const name = "_acme-challenge.a.example.org"
	wantError(t, s.Wait(t.Context(), name, "value"), "was not written")
	if err := s.Present(t.Context(), name, "value"); err != nil {
		t.Fatal(err)
	}
	b.add(t, "a.acme.example.net. 60 IN TXT value")
	if err := s.Wait(t.Context(), name, "value"); err != nil {
		t.Errorf("the record is there: %v", err)
	}
	if b.count("a.acme.example.net. TXT") != 1 {
		t.Errorf("looked for elsewhere: %v", b.asked)
	}
}

// A record that was written although the provider's call failed is removed, and nothing is remembered.
func TestSolverPresentFails(t *testing.T) {
	broken := errors.New("timed out")
	n := &notebook{fail: broken, late: true}
	s := solverWith(t, n, zones(t))
	err := s.Present(t.Context(), "_acme-challenge.mail.example.org", "value")
	if !errors.Is(err, broken) {
		t.Fatalf("got %v, want the provider's", err)
	}
	wantError(t, err, "write the record _acme-challenge.mail.example.org")
	if got := n.list(); len(got) != 0 || len(s.places) != 0 {
		t.Errorf("left over: %q, %v", got, s.places)
	}
	if err := s.CleanUp(t.Context(), "_acme-challenge.mail.example.org", "value"); err != nil {
		t.Errorf("clean up after nothing: %v", err)
	}
}

// What an operator's own file in this package does.
func TestCompileIn(t *testing.T) {
	name := CompileIn("notebook", func() Provider { return new(notebook) })
	t.Cleanup(func() { delete(compiledIn, name) })
	c := DefaultConfig()
	c.Provider = name
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	if _, err := New(c, nil); err != nil {
		t.Errorf("without settings: %v", err)
	}
	c.SettingsFile = writeFile(t, `{"api_token": "secret"}`)
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	p, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.(*notebook).Token; got != "secret" {
		t.Errorf("token %q did not arrive", got)
	}
	c.SettingsFile = writeFile(t, `{"api_tokn": "secret"}`)
	_, err = New(c, nil)
	wantError(t, err, "does not fit provider notebook", "api_tokn")
	c.SettingsFile = t.TempDir()
	_, err = New(c, nil)
	wantError(t, err, "settings_file of provider notebook", "is no file")

	defer func() {
		if recover() == nil {
			t.Error("two providers of one name")
		}
	}()
	CompileIn(ProviderExec, func() Provider { return new(notebook) })
}

func TestLongest(t *testing.T) {
	c := DefaultConfig()
	c.Timeout, c.Propagation = 10*time.Second, Propagation{Delay: time.Second, Timeout: time.Minute}
	if got := c.Longest(); got != 81*time.Second {
		t.Errorf("got %s", got)
	}
}
