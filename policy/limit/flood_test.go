package limit_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

// TestFlood is an attacker with a /32 of IPv6, and another address for each login: the memory stays bounded, and the limits
// of all and of users hold on.
func TestFlood(t *testing.T) {
	const most, logins = 1 << 12, 20 << 12
	hour := limit.Rate{Count: 1, Per: time.Hour}
	r := valid(t, limit.Config{
		All:     limit.AllLimits{Failures: limit.Rate{Count: logins / 2, Per: time.Hour}},
		IP:      limit.ClientLimits{Failures: hour},
		Network: limit.NetworkLimits{IPv4Prefix: 24, IPv6Prefix: 48, Failures: hour},
		User:    limit.UserLimits{LoginDelay: limit.Delay(time.Hour)},
	})
	m, bob := store.NewMemory(most), to("bob@example.org", "")
	if m.Take(t.Context(), asked(r, limit.Acceptance, at("192.0.2.7"), bob)) >= 0 {
		t.Fatal("the first login of the user was refused")
	}
	granted := 0
	addr := netip.MustParseAddr("2001:db8::1").As16()
	for i := range uint32(logins) {
		binary.BigEndian.PutUint32(addr[4:], i*2654435761) // another /48 each, in no order
		c := &auth.Client{Addr: netip.AddrPortFrom(netip.AddrFrom16(addr), 1024), Listener: "pop3s"}
		if m.Take(t.Context(), asked(r, limit.Attempt, c, nil)) < 0 {
			granted++
		}
	}
	if granted < logins/2-1 || granted > logins/2+logins/100 {
		t.Errorf("granted: got %d, want %d, which all may have together", granted, logins/2)
	}
	if _, rates := m.Len(); rates > most+2 {
		t.Errorf("keys: got %d, want at most %d", rates, most+2)
	}
	if m.Take(t.Context(), asked(r, limit.Acceptance, at("192.0.2.7"), bob)) < 0 {
		t.Error("the user's login delay was forgotten")
	}
}
