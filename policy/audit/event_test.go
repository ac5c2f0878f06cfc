package audit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/popgate/popgate/auth"
)

// encoded is the line of ev.
func encoded(t testing.TB, ev *Event) string {
	t.Helper()
	e := newEntry().(*entry)
	if err := e.encode("gw1", ev); err != nil {
		t.Fatal(err)
	}
	return e.text.String()
}

func TestEncode(t *testing.T) {
	at := time.Date(2026, 3, 1, 13, 4, 5, 6789, time.FixedZone("CET", 3600))
	const head = `{"v":1,"time":"2026-03-01T12:04:05.000006Z",`
	tests := []struct {
		name string
		ev   Event
		want string
	}{
		{"nothing else known", Event{Name: GatewayStarted}, `"event":"gateway.started","node":"gw1"}`},
		{"zeros at the end", Event{Name: SessionClosed, Reason: ClientGone, End: &End{}},
			`"event":"session.closed","node":"gw1","reason":"client_gone","retr":0,"top":0,"dele":0,"quit":false,"bytes_in":0,"bytes_out":0,"duration_ms":0}`},
		{"IPv6", Event{Name: SessionOpened, Client: netip.MustParseAddrPort("[2001:db8::1]:40000")},
			`"event":"session.opened","node":"gw1","client":"[2001:db8::1]:40000"}`},
		{"not resumed is said", Event{Name: SessionOpened, TLS: TLSOf(&auth.TLS{Version: "TLS 1.3"})},
			`"event":"session.opened","node":"gw1","tls":{"version":"TLS 1.3","resumed":false}}`},
		{"no HTML", Event{Name: LoginRefused, User: "<a&b>"}, `"event":"login.refused","node":"gw1","user":"<a&b>"}`},
		{"no second line", Event{Name: LoginRefused, User: "a\r\n{}"}, `"event":"login.refused","node":"gw1","user":"a\r\n{}"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.ev.Time = at
			if got := encoded(t, &tt.ev); got != head+tt.want+"\n" {
				t.Errorf("got  %swant %s", got, head+tt.want)
			}
		})
	}
}

func TestEncodeTakesTimeItself(t *testing.T) {
	before := time.Now().UTC().Format(timeFormat)
	var got struct{ Time string }
	if err := json.Unmarshal([]byte(encoded(t, &Event{Name: GatewayStarted})), &got); err != nil {
		t.Fatal(err)
	}
	if after := time.Now().UTC().Format(timeFormat); got.Time < before || got.Time > after {
		t.Errorf("got %s, want it from %s to %s", got.Time, before, after)
	}
}

func TestClip(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"short", "anna@example.org", "anna@example.org"},
		{"just fits", strings.Repeat("a", 256), strings.Repeat("a", 256)},
		{"too long", strings.Repeat("a", 257), strings.Repeat("a", 256)},
		{"not within a character", "a" + strings.Repeat("ü", 200), "a" + strings.Repeat("ü", 127)},
		{"not UTF-8", "j\xf6rg", "j\uFFFDrg"},
		{"very long", strings.Repeat("ü", 1<<20), strings.Repeat("ü", 128)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := clip(tt.text); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if TLSOf(nil) != nil {
		t.Error("no TLS: got some")
	}
	if got := len(TLSOf(&auth.TLS{ServerName: strings.Repeat("x", 60000)}).ServerName); got != maxText {
		t.Errorf("server name: got %d bytes, want %d", got, maxText)
	}
}

// FuzzEncode puts anything where a stranger can put something: it stays one line of valid JSON of bounded length.
func FuzzEncode(f *testing.F) {
	f.Add("anna@example.org", "mail.example.org")
	f.Add("a\"\n\x00\u2028{}", "\xff\xfe")
	f.Add(strings.Repeat("\x01", 300), strings.Repeat("ü", 300))
	f.Fuzz(func(t *testing.T, user, serverName string) {
		text := encoded(t, &Event{Name: LoginRefused, User: user, TLS: TLSOf(&auth.TLS{ServerName: serverName})})
		if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "}\n") || !utf8.ValidString(text) || len(text) > 4096 {
			t.Errorf("got %q, want one short line of UTF-8", text)
		}
		var got struct {
			User string
			TLS  TLS
		}
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got.User != clip(user) || got.TLS.ServerName != clip(serverName) {
			t.Errorf("got %q and %q, want %q and %q", got.User, got.TLS.ServerName, user, serverName)
		}
		if utf8.ValidString(user) && !strings.HasPrefix(user, got.User) && !strings.Contains(got.User, "\uFFFD") {
			t.Errorf("got %q, want the beginning of %q", got.User, user)
		}
	})
}

// TestNoSecret: an event has no place for a secret, and one put where text goes prints as a constant.
func TestNoSecret(t *testing.T) {
	secret := auth.NewSecret([]byte("hunter2"))
	if got := encoded(t, &Event{Name: LoginRefused, User: fmt.Sprint(secret)}); strings.Contains(got, "hunter2") {
		t.Errorf("got %s", got)
	}
}
