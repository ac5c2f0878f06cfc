package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/backend"
)

// fakeBackends answers with what a test gives it, and notes what it was asked.
type fakeBackends struct {
	list  []backend.Status
	err   error
	asked []string
}

func (f *fakeBackends) Status() []backend.Status { return f.list }

func (f *fakeBackends) Drain(name string, drained bool) error {
	f.asked = append(f.asked, fmt.Sprint(name, " ", drained))
	return f.err
}

var _ Backends = (*backend.Backends)(nil)

// serveBackends serves b on a socket and returns a client of it.
func serveBackends(t *testing.T, b Backends) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "popgate.sock")
	ln := listenAt(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, SocketHandler(ServeBackends(b)), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	client, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestBackendsOverSocket(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fake := &fakeBackends{list: []backend.Status{
		{Name: "old", Balance: "hash", Drained: true, Servers: []backend.ServerStatus{
			{
				Address: "mail.example.org:110", Weight: 2, Up: true, Drained: true, State: "starting", Sessions: 3, MaxSessions: 4, Queued: 5,
				LoginsPerSecond: 6, Ahead: 1500 * time.Millisecond, LastError: "dial <x>", LastErrorAt: now,
				Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, LookupError: "no DNS", Capabilities: []string{"TOP", "UIDL"},
			},
			{Address: "192.0.2.1:110", Directory: true, State: "down"},
		}},
		{Name: "new", Balance: "failover"},
	}}
	client := serveBackends(t, fake)
	got, err := client.Backends(t.Context())
	want := []Backend{
		{Name: "old", Balance: "hash", Drained: true, Servers: []Server{
			{
				Address: "mail.example.org:110", Weight: 2, Up: true, Drained: true, State: "starting", Sessions: 3, MaxSessions: 4, Queued: 5,
				LoginsPerSecond: 6, AheadMS: 1500, LastError: "dial <x>", LastErrorAt: now,
				Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, LookupError: "no DNS", Capabilities: []string{"TOP", "UIDL"},
			},
			{Address: "192.0.2.1:110", Directory: true, State: "down"},
		}},
		{Name: "new", Balance: "failover", Servers: []Server{}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, name := range []string{"old", "old/10.0.0.5:110", "old/[2001:db8::1]:110", "a b/c%2Fd?#"} {
		if err := client.Drain(t.Context(), name, true); err != nil {
			t.Errorf("drain %s: %v", name, err)
		}
		if err := client.Drain(t.Context(), name, false); err != nil {
			t.Errorf("undrain %s: %v", name, err)
		}
	}
	if want := []string{
		"old true", "old false", "old/10.0.0.5:110 true", "old/10.0.0.5:110 false", "old/[2001:db8::1]:110 true", "old/[2001:db8::1]:110 false",
		"a b/c%2Fd?# true", "a b/c%2Fd?# false",
	}; !slices.Equal(fake.asked, want) {
		t.Errorf("got %q, want %q", fake.asked, want)
	}
	for _, cause := range []error{backend.ErrUnknown, backend.ErrConfigured} {
		fake.err = fmt.Errorf("old: %w", cause)
		if err := client.Drain(t.Context(), "old", true); err == nil || err.Error() != fake.err.Error() {
			t.Errorf("got %v, want the gateway's own words: %v", err, fake.err)
		}
	}
	if errors.Is(fake.err, backend.ErrUnknown) {
		t.Error("the two causes are one")
	}
}
