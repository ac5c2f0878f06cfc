package access

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Run takes a change up by itself, once the file has been the same for two looks, and at once after a reload.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feed")
	write(t, path, []byte("192.0.2.0/24\n"))
	c := DefaultConfig()
	c.Lists = []ListConfig{{Name: "feed", Files: []string{path}}}
	c.Rules = []RuleConfig{{Name: "r", Networks: NetworksRule{Deny: []string{"feed"}}, Action: actionDeny}}
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		k := New(slog.New(slog.NewTextHandler(&said, nil)), nil)
		r := running(t, k, c)
		denies := func(addr string, want Action) {
			t.Helper()
			if got := r.Client(t.Context(), from(addr)); got.Action != want {
				t.Errorf("%s: got %v, want %v", addr, got.Action, want)
			}
		}
		synctest.Wait()
		write(t, path, []byte("198.51.100.0/24\n"))
		<-time.After(watchEvery + time.Second)
		denies("198.51.100.1", Allow)
		<-time.After(watchEvery)
		denies("198.51.100.1", Deny)

		write(t, path, []byte("203.0.113.0/24\n"))
		r = prepared(t, k, c)
		k.Use(r)
		synctest.Wait()
		denies("203.0.113.1", Deny)

		write(t, path, []byte("nonsense\n"))
		<-time.After(20 * watchEvery)
		synctest.Wait()
		denies("203.0.113.1", Deny)
		if got := strings.Count(said.String(), "not taken"); got != 1 {
			t.Errorf("a bad file is told %d times, want once:\n%s", got, said.String())
		}
		if !strings.Contains(said.String(), "line 1") {
			t.Errorf("the line is not named:\n%s", said.String())
		}
	})
}

// A decision ends with its context, even where the deadline for blocklists is later.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := DefaultConfig()
		c.Blocklists = []BlocklistConfig{{Name: "bl", Zone: "bl.example"}, {Name: "bl2", Zone: "bl2.example"}}
		c.DNS.Resolvers = []string{"192.0.2.53"}
		c.Rules = []RuleConfig{
			{Name: "r", Blocklists: []string{"bl", "bl2"}, Action: actionDeny},
			{Name: "late", Tenants: []string{"acme"}, Blocklists: []string{"bl"}, Action: actionDeny},
		}
		r := running(t, New(nil, nil), c)
		for _, b := range r.blocklists {
			b.ask = func(ctx context.Context, _ string) (records, error) {
				<-ctx.Done()
				return records{}, ctx.Err()
			}
		}
		for _, tt := range []struct{ patience, want time.Duration }{{time.Hour, c.DNS.Timeout}, {time.Millisecond, time.Millisecond}} {
			ctx, cancel := context.WithTimeout(t.Context(), tt.patience)
			start := time.Now()
			if v := r.Client(ctx, from("192.0.2.1")); v.Action != Allow {
				t.Errorf("got %+v, want that it goes on", v)
			}
			if got := time.Since(start); got != tt.want {
				t.Errorf("the decision took %s, want %s for both blocklists together", got, tt.want)
			}
			cancel()
		}
		<-time.After(2 * lookupTime) // the questions are given up
		synctest.Wait()
		for name, b := range r.blocklists {
			if len(b.flying) != 0 || b.failures != 1 {
				t.Errorf("%s: %d questions are on their way after %d failures, want none after one", name, len(b.flying), b.failures)
			}
		}
	})
}
