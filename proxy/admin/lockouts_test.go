package admin

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/lockout"
)

var _ Lockouts = (*lockout.Keeper)(nil)

// serveLockouts serves l on a socket and returns a client of it.
func serveLockouts(t *testing.T, l Lockouts) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "popgate.sock")
	ln := listenAt(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, SocketHandler(ServeLockouts(l)), slog.New(slog.DiscardHandler)) }()
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

func TestLockoutsOverSocket(t *testing.T) {
	keeper := lockout.New("", lockout.Options{})
	client := serveLockouts(t, keeper)
	ctx := t.Context()
	if list, err := client.Lockouts(ctx); list == nil || len(list) != 0 || err != nil {
		t.Errorf("none: got %v, %v, want an empty list", list, err)
	}
	for _, l := range []struct{ network, user string }{
		{"192.0.2.7", ""},
		{"::ffff:192.0.2.8", "Anna+lists@EXAMPLE.org"}, // as a person may type her
		{"2001:db8:1:2:3::4", "bert"},
		{"2001:db8:5::/48", ""},
	} {
		if err := client.LockOut(ctx, l.network, l.user, time.Hour); err != nil {
			t.Errorf("lock out %v: %v", l, err)
		}
	}
	list, err := client.Lockouts(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, l := range list {
		got[l.Network.String()] = l.Name
		if l.Cause != lockout.Manual || l.Until.Sub(l.Since) != time.Hour || l.Times != 1 {
			t.Errorf("got %+v, want a manual lockout of an hour", l)
		}
	}
	for network, user := range map[string]string{
		"192.0.2.7/32": "", "192.0.2.8/32": "anna@example.org", "2001:db8:1:2::/64": "bert", "2001:db8:5::/48": "",
	} {
		if name, ok := got[network]; !ok || name != user {
			t.Errorf("%s: got %q, %v, want %q", network, name, ok, user)
		}
	}
	// What counts is the key that logins are counted by.
	view, err := keeper.Prepare(lockout.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	_, v := view.Attempt(lockout.Login{Network: keeper.Network(netip.MustParsePrefix("192.0.2.8/32")), User: keeper.User("anna@example.org")})
	if v.Action != lockout.Refuse {
		t.Errorf("anna: got %+v, want her refused", v)
	}

	var key string
	for _, l := range list {
		if l.Name == "bert" {
			key = "#" + l.User.String()
		}
	}
	for _, l := range []struct{ network, user string }{{"192.0.2.7/32", ""}, {"192.0.2.8", "ANNA@example.org."}, {"2001:db8:1:2::/64", key}} {
		if err := client.EndLockout(ctx, l.network, l.user); err != nil {
			t.Errorf("end %v: %v", l, err)
		}
	}
	if list, err := client.Lockouts(ctx); len(list) != 1 || err != nil {
		t.Errorf("after three of four: got %+v, %v", list, err)
	}
}

func TestLockoutsErrors(t *testing.T) {
	client := serveLockouts(t, lockout.New("", lockout.Options{}))
	for _, tt := range []struct {
		network, user string
		length        time.Duration // 0: end it
		want          string
	}{
		{"192.0.2.7", "", 0, "192.0.2.7/32: it is not locked out; popgate lockouts lists what is"},
		{"192.0.2.7", "anna@example.org", 0, "anna@example.org from 192.0.2.7/32: it is not locked out"},
		{"mail.example.org", "", 0, `"mail.example.org" is no network; write an address such as 192.0.2.7`},
		{"10.0.0.0/8", "", time.Hour, "wider ones belong in a deny list"},
		{"192.0.2.7", "anna maria", time.Hour, `user "anna maria": `},
		{"192.0.2.7", "", -time.Hour, "write such as 1h"},
		{"", "", time.Hour, `"" is no network`},
	} {
		err := client.EndLockout(t.Context(), tt.network, tt.user)
		if tt.length != 0 {
			err = client.LockOut(t.Context(), tt.network, tt.user, tt.length)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s %s: got %v, want it to say %s", tt.network, tt.user, tt.length, err, tt.want)
		}
	}
}
