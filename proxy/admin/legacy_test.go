package admin

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/legacy"
)

// TestLegacyOverSocket: what the gateway remembers is what its client is told.
func TestLegacyOverSocket(t *testing.T) {
	keeper := legacy.New("", legacy.Options{})
	path := filepath.Join(t.TempDir(), "popgate.sock")
	ln := listenAt(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, SocketHandler(ServeLegacy(keeper.List)), slog.New(slog.DiscardHandler)) }()
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
	if list, err := client.Legacy(t.Context()); list == nil || len(list) != 0 || err != nil {
		t.Errorf("nobody: got %v, %v, want an empty list", list, err)
	}
	now := time.Now().Truncate(time.Microsecond)
	keeper.Mark(legacy.Mark{User: "anna@example.org", Tenant: "acme", Listener: "old", Network: netip.MustParsePrefix("192.0.2.7/32"), Version: "TLS 1.0", When: now})
	list, err := client.Legacy(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("got %v, %v, want one", list, err)
	}
	if u := list[0]; u.User != "anna@example.org" || u.Tenant != "acme" || u.Listener != "old" || u.Version != "TLS 1.0" || u.Count != 1 ||
		!u.Last.Equal(now) || !u.Until.IsZero() || u.Network != netip.MustParsePrefix("192.0.2.7/32") {
		t.Errorf("got %+v", u)
	}
}
