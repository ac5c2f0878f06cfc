package directory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
)

// sprintf keeps vet from looking for a fitting verb.
var sprintf = fmt.Sprintf

// A client has to show all that the answer asks for, cached or not.
func TestAdmission(t *testing.T) {
	const hash = "{PLAIN}right"
	for _, tt := range []struct {
		name   string
		verify bool
		answer Answer
		secret string // "" is none presented
		want   error
		proven bool // Verified
		stored bool // Secret is in the answer
	}{
		{"a backend alone", false, Answer{Backend: "b"}, "any", nil, false, false},
		{"a hash nobody checks", false, Answer{Hash: hash}, "wrong", nil, false, false},
		{"the right password", true, Answer{Hash: hash}, "right", nil, true, false},
		{"a wrong password", true, Answer{Hash: hash}, "wrong", auth.ErrWrongPassword, false, false},
		{"no hash to check", true, Answer{Backend: "b"}, "any", nil, false, false},
		{"a hash that is none", true, Answer{Hash: "{NOSUCH}x"}, "any", auth.ErrDirectoryDown, false, false},
		{"a stored password for the right one", true, Answer{Hash: hash, Secret: "s"}, "right", nil, true, true},
		{"a stored password for a wrong one", true, Answer{Hash: hash, Secret: "s"}, "wrong", auth.ErrWrongPassword, false, false},
		{"a stored password, unchecked", false, Answer{Hash: hash, Secret: "s"}, "right", auth.ErrDirectoryDown, false, false},
		{"a stored password without a hash", true, Answer{Secret: "s", User: "anna", Master: "m"}, "right", auth.ErrDirectoryDown, false, false},
		{"a stored password, nobody asking", true, Answer{Hash: hash, Secret: "s"}, "", nil, false, false},
		{"a source that was not told the password and says it is right", false, Answer{Secret: "s", Verified: true}, "any", auth.ErrDirectoryDown, false, false},
		{"the right network", true, Answer{Hash: hash, AllowNets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, "right", nil, true, false},
		{"another network", true, Answer{Hash: hash, AllowNets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, "right", auth.ErrNetwork, false, false},
	} {
		source := &fakeSource{lookup: func(context.Context, *auth.Query) (Answer, error) { return tt.answer, nil }}
		d := cacheOver(t, source, VaryUser, func(c *Config) { c.Verify = tt.verify })
		for _, how := range []How{Fresh, Cached} {
			f, err := d.Lookup(t.Context(), askFor(t, "anna", tt.secret))
			if !errors.Is(err, tt.want) || f.How != how {
				t.Errorf("%s, %s: got %s, %v, want %v", tt.name, how, f.How, err, tt.want)
			}
			if err == nil && (f.Verified != tt.proven || (f.Secret != "") != tt.stored) {
				t.Errorf("%s, %s: got %v", tt.name, how, f)
			}
			if err != nil && strings.Contains(err.Error(), "wrong") && strings.Contains(err.Error(), tt.answer.Hash) && tt.answer.Hash != "" {
				t.Errorf("%s: the error has the hash in it: %v", tt.name, err)
			}
		}
	}
}

// A source in memory is asked each time, by the same rules.
func TestMemory(t *testing.T) {
	source := &fakeSource{lookup: func(_ context.Context, q *auth.Query) (Answer, error) {
		if q.Secret != nil {
			t.Error("it was told the password")
		}
		return Answer{Hash: "{PLAIN}right"}, nil
	}}
	c := DefaultConfig()
	c.Name, c.Verify = "users", true
	d := New(passwords(), nil, nil).newDirectory(c, Opened{Source: source, Vary: VaryUser, Memory: true})
	for i := range 3 {
		if f, err := d.Lookup(t.Context(), askFor(t, "anna", "right")); err != nil || !f.Verified || f.How != Fresh || source.calls.Load() != int64(i+1) {
			t.Errorf("got %v, %v, asked %d times", f, err, source.calls.Load())
		}
	}
	if _, err := d.Lookup(t.Context(), askFor(t, "anna", "wrong")); !errors.Is(err, auth.ErrWrongPassword) {
		t.Errorf("a wrong password: %v", err)
	}
	d.Refresh(askFor(t, "anna", "wrong"))
	if err := d.asker.close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Lookup(t.Context(), askFor(t, "anna", "right")); !errors.Is(err, auth.ErrDirectoryDown) {
		t.Errorf("when it is closed: %v", err)
	}
}

// knowing is a source that can tell of domains.
type knowing struct {
	fakeSource
	domain func(ctx context.Context, domain string) (bool, error)
}

func (k *knowing) KnowsDomain(ctx context.Context, domain string) (bool, error) {
	k.calls.Add(1)
	return k.domain(ctx, domain)
}

func TestKnowsDomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now atomic.Value
		become := func(state string) { now.Store(state) }
		become("up")
		source := &knowing{domain: func(ctx context.Context, domain string) (bool, error) {
			switch now.Load() {
			case "down":
				return false, errors.New("connection refused")
			case "hung":
				<-ctx.Done()
				return false, ctx.Err()
			case "slipping":
				panic("a slip")
			}
			return domain == "example.org", nil
		}}
		d := cacheOver(t, source, VaryUser)
		ask := func(domain string, want bool, calls int64, took time.Duration) {
			t.Helper()
			before, began := source.calls.Load(), time.Now()
			if got := d.KnowsDomain(domain); got != want || source.calls.Load()-before != calls || time.Since(began) != took {
				t.Errorf("%v, %s: %t, asked %d times, took %s; want %t, %d, %s", now.Load(), domain, got, source.calls.Load()-before, time.Since(began), want, calls, took)
			}
		}
		ask("example.org", true, 1, 0)
		ask("example.org", true, 0, 0)
		ask("example.net", false, 1, 0)
		ask("example.net", false, 0, 0)
		time.Sleep(knownDomain)
		become("down")
		ask("example.org", true, 1, 0) // as it was
		ask("example.net", false, 1, 0)
		ask("example.com", false, 1, 0)
		become("slipping")
		ask("example.com", false, 1, 0)
		become("hung")
		ask("example.org", true, 1, domainWait)
		for i := range 2 * domainLookups {
			go d.KnowsDomain(fmt.Sprintf("d%d.example", i))
		}
		before := source.calls.Load()
		time.Sleep(100 * time.Millisecond)
		if got := source.calls.Load() - before; got > domainLookups {
			t.Errorf("%d questions about domains at once, want %d at most", got, domainLookups)
		}
		time.Sleep(d.config.Timeout)
		become("up")
		ask("example.com", false, 1, 0)
		ask("example.org", true, 1, 0)
	})
	if cacheOver(t, &fakeSource{lookup: everybody}, VaryUser).KnowsDomain("example.org") {
		t.Error("a source that cannot tell knows a domain")
	}
}
