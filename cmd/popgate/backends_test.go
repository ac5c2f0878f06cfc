package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/admin"
)

func TestBackendsTable(t *testing.T) {
	var b strings.Builder
	err := backendsTable(&b, []admin.Backend{
		{Name: "old", Servers: []admin.Server{
			{Address: "10.0.0.5:110", Weight: 2, Up: true, State: "up", Sessions: 12, MaxSessions: 500, LoginsPerSecond: 50, AheadMS: 1340, Queued: 3},
			{
				Address: "pop.example.org:110", Weight: 1, State: "down", Drained: true, LastError: "dial:\n\x1b[31mrefused",
				LastErrorAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
				Addresses:   []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}, LookupError: "no DNS",
			},
			{Address: "192.0.2.9:110", Weight: 1, State: "up", Up: true, Drained: true, Directory: true, LoginsPerSecond: 5},
		}},
		{Name: "new"},
	})
	want := `
BACKEND  SERVER                            STATE          WEIGHT  SESSIONS  QUEUE  PACE                ADDRESSES                           LAST ERROR
old      10.0.0.5:110                      up             2       12/500    3      50/s (1.3s behind)  -                                   -
old      pop.example.org:110               down, drained  1       0         0      -                   2001:db8::1 192.0.2.1 (old: no DNS)  2026-03-01 12:00: dial: [31mrefused
old      192.0.2.9:110 (directory)         drained        1       0         0      5/s                 -                                   -
new      (named by a directory; none yet)  -              -       -         -      -                   -                                   -
`
	squeeze := func(s string) string {
		for strings.Contains(s, "   ") {
			s = strings.ReplaceAll(s, "   ", "  ")
		}
		return s
	}
	if got := "\n" + b.String(); squeeze(got) != squeeze(want) || err != nil {
		t.Errorf("got %v%s\nwant%s", err, got, want)
	}
}
