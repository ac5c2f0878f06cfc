package audit

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

// refusedLogin is one of user from addr.
func refusedLogin(user, addr string) *Event {
	return &Event{
		Name: LoginRefused, Reason: WrongPassword, Time: time.Now(), User: user, Mechanism: auth.User,
		Client: netip.AddrPortFrom(netip.MustParseAddr(addr), 40000), TLS: &TLS{}, Session: "c0ffee/1",
		Local: netip.MustParseAddr("192.0.2.1"),
	}
}

func TestDovecotLine(t *testing.T) {
	at := time.Date(2026, 11, 23, 6, 28, 34, 5000, time.FixedZone("", 3600))
	local := netip.MustParseAddr("::ffff:192.0.2.1")
	const head = "2026-11-23T05:28:34.000005Z mx1 dovecot: pop3-login: Aborted login (auth failed, 1 attempts in 0 secs): "
	for _, tt := range []struct {
		name   string
		change func(*Event)
		local  netip.Addr
		want   string
	}{
		{"usual", func(*Event) {}, local, "user=<anna@example.org>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, TLS, session=<c0ffee/1>\n"},
		{"IPv6", func(e *Event) { e.Client = netip.MustParseAddrPort("[fe80::1%eth0]:1") }, netip.Addr{},
			"user=<anna@example.org>, method=PLAIN, rip=fe80::1, lip=::, TLS, session=<c0ffee/1>\n"},
		{"bare", func(e *Event) { e.TLS, e.User, e.Reason, e.Mechanism, e.Session = nil, "", BadName, auth.Login, "" }, netip.Addr{},
			"user=<>, method=LOGIN, rip=192.0.2.7, lip=0.0.0.0\n"},
		{"hostile", func(e *Event) { e.User = "a>, rip=1.2.3.4 <%\r\n\x00é" }, local,
			"user=<a%3E%2C%20rip%3D1.2.3.4%20%3C%25%0D%0A%00%C3%A9>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, TLS, session=<c0ffee/1>\n"},
	} {
		e := refusedLogin("anna@example.org", "192.0.2.7")
		e.Time = at
		e.Local = tt.local
		tt.change(e)
		if got := string(appendDovecotLine([]byte("x"), "mx1", e)); got != "x"+head+tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, head+tt.want)
		}
	}
}

// TestDovecotLineNone: nobody is banned for what is not his fault.
func TestDovecotLineNone(t *testing.T) {
	for _, r := range []Reason{
		"", WrongNetwork, DirectoryDown, Disabled, InUse, LoginDelay, RateLimited, AccessDenied, PolicyRefused, PolicyDown, BackendDown, BackendRefused, BackendLoginRefused, AuditFailed, Internal,
	} {
		e := refusedLogin("anna", "192.0.2.7")
		e.Reason = r
		if got := appendDovecotLine(nil, "", e); got != nil {
			t.Errorf("%s: got %s", r, got)
		}
	}
	accepted := refusedLogin("anna", "192.0.2.7")
	accepted.Name = LoginAccepted
	unknown := refusedLogin("anna", "192.0.2.7")
	unknown.Client = netip.AddrPort{}
	repeated := refusedLogin("anna", "192.0.2.7")
	repeated.Repeated = true
	for _, e := range []*Event{accepted, unknown, repeated} {
		if got := appendDovecotLine(nil, "", e); got != nil {
			t.Errorf("got %s", got)
		}
	}
}

// hostile are names by which somebody might have another banned, or nobody.
var hostile = []string{
	"", "anna", "anna@example.org", "a b", "Ännä@example.org", "\xff\xfe", "-", "'\"\\", "%3E", "<HOST>", "<>", ">",
	">, method=PLAIN, rip=198.51.100.99, lip=192.0.2.1, TLS, session=<x>",
	">, rip=198.51.100.99", "x>, rip=198.51.100.99, lip=1.2.3.4, session=<", "rip=198.51.100.99", " rip=198.51.100.99, ",
	"a\n2026-11-23T06:28:34.000000Z mx1 dovecot: pop3-login: Aborted login (auth failed, 1 attempts in 0 secs): user=<b>, method=PLAIN, rip=198.51.100.99, lip=192.0.2.1, session=<y>",
	"a\r\nNov 23 06:28:34 mx1 dovecot: auth: pam(b,198.51.100.99): pam_authenticate() failed: Permission denied",
	"pam(x,198.51.100.99): unknown user", "passwd-file(b,198.51.100.99): unknown user", "a\u2028b\u2029c\u0085d\v\f",
	"2020-01-01T00:00:00", "(auth failed, 9 attempts): user=<z>, rip=198.51.100.99", strings.Repeat("x", 1000), strings.Repeat(">", 1000),
}

// TestFail2ban has the real fail2ban read lines with its own filter for Dovecot.
func TestFail2ban(t *testing.T) {
	program, err := exec.LookPath("fail2ban-regex")
	filter := "/etc/fail2ban/filter.d/dovecot.conf"
	if _, missing := os.Stat(filter); err != nil || missing != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("fail2ban is missing: install Debian's package fail2ban")
		}
		t.Skip("fail2ban is missing: install Debian's package fail2ban")
	}
	var lines []byte
	var want []string
	for i, user := range hostile {
		for _, addr := range []string{fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("2001:db8::%x", i+1)} {
			e := refusedLogin(user, addr)
			if i%2 == 1 {
				e.TLS = nil
			}
			e.Session = user // no stranger chooses it, and if one did
			lines = appendDovecotLine(lines, "mx1 [x]: é", e)
			want = append(want, addr)
		}
	}
	file := filepath.Join(t.TempDir(), "mail.log")
	if err := os.WriteFile(file, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, mode := range []string{"normal", "aggressive"} {
		out, err := exec.CommandContext(ctx, program, "-o", "host <ip>", file, filter+"[mode="+mode+"]").CombinedOutput()
		if err != nil {
			t.Fatalf("fail2ban-regex: %v: %s", err, out)
		}
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^host (.*)$`).FindAllSubmatch(out, -1) {
			got = append(got, string(m[1]))
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: it would ban %q, want %q", mode, got, want)
		}
	}
}

// readers are what the rules of fail2ban and CrowdSec look for, told apart from how this package writes.
var readers = []*regexp.Regexp{
	regexp.MustCompile(`user=<[^>]*>,(?: method=\S+,)? rip=([^,]*)(?:[^>]*(?:, session=<\S+>)?)\s*$`),
	regexp.MustCompile(`user=<.*>.*,.*rip=([0-9a-fA-F.:]+),.*lip=[0-9a-fA-F.:]+`),
	regexp.MustCompile(`rip=([^,]*)`), // the first there is
}

// FuzzDovecotLine: whatever the user is called, it is one line, of plain bytes, with one address in it.
func FuzzDovecotLine(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, user, session string) {
		e := refusedLogin(user, "192.0.2.7")
		e.Session = session
		line := string(appendDovecotLine(nil, session, e))
		body, ended := strings.CutSuffix(line, "\n")
		if !ended || strings.ContainsFunc(body, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("got %q", line)
		}
		sessions := min(len(session), 1)
		for c, want := range map[string]int{"rip=": 1, "user=<": 1, "session=<": sessions, "<": 1 + sessions, ">": 1 + sessions} {
			if got := strings.Count(body, c); got != want {
				t.Errorf("%q: %d of %q, want %d", line, got, c, want)
			}
		}
		for _, r := range readers {
			if m := r.FindStringSubmatch(body); m == nil || m[1] != "192.0.2.7" {
				t.Errorf("%q: %s reads %q", line, r, m)
			}
		}
	})
}

func BenchmarkDovecotLine(b *testing.B) {
	e := refusedLogin("anna@example.org", "192.0.2.7")
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = appendDovecotLine(line[:0], "mx1", e)
	}
}
