package backend

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// ordered makes a pool whose servers stand in the order in which alice meets them.
func ordered(t *testing.T, addresses ...string) *Pool {
	t.Helper()
	c := config(addresses...)
	order := Order(c, request().Account)
	p := pool(t, c)
	slices.SortFunc(p.members, func(a, b *member) int {
		return slices.Index(order, a.address.text) - slices.Index(order, b.address.text)
	})
	return p
}

// TestFailover holds which failures lead to the next server, and that PASS ends all searching.
func TestFailover(t *testing.T) {
	const user = "S: +OK\nC: USER alice@example.org\n"
	const pass = user + "S: +OK\nC: PASS secret\n"
	tests := []struct {
		name, first string
		next, up    bool
	}{
		{"busy", "S: -ERR [SYS/TEMP] too many connections\nclose", true, false},
		{"silent", "close", true, false},
		{"no POP3", "S: 220 smtp.example.org ESMTP\nclose", true, false},
		{"early reply", "S* \"+OK\\r\\n+OK\\r\\n\"", true, true},
		{"closed at USER", user + "close", true, true},
		{"temporary at USER", user + "S: -ERR [SYS/TEMP] no\nclose", true, true},
		{"refuses plaintext", user + "S: -ERR use TLS\nclose", true, true},
		{"unknown user", user + "S: -ERR no such user\nclose", false, true},
		{"about the account at USER", user + "S: -ERR [SYS/PERM] no\nclose", false, true},
		{"early reply to PASS", user + "S* \"+OK\\r\\n+OK\\r\\n\"", true, true},
		{"wrong password", pass + "S: -ERR [AUTH] no\nclose", false, true},
		{"temporary at PASS", pass + "S: -ERR [SYS/TEMP] no\nclose", false, true},
		{"closed at PASS", pass + "close", false, true},
		{"plaintext at PASS", pass + "S: -ERR use TLS\nclose", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := ordered(t, "one.example.org", "two.example.org")
				one, two := script(tt.first), script(loginScript)
				piped(t, p, one, two)
				c, err := p.Login(t.Context(), request())
				if (err == nil) != tt.next || two.seen() != map[bool]int{true: 1}[tt.next] {
					t.Errorf("got %v, and %d connections to the second server", err, two.seen())
				}
				if err == nil {
					c.Close()
				}
				if up := p.members[0].server.up(); up != tt.up {
					t.Errorf("the first server is up: %v, want %v", up, tt.up)
				}
				synctest.Wait()
				if rest := one.remainder(); strings.Contains(rest, "PASS") {
					t.Errorf("the first server was sent %q", rest)
				}
			})
		})
	}
}

// TestFailoverKind holds that what the second server says of the password, or of the name, is what the login is told, and
// that only of servers that saw no password the one that says most is.
func TestFailoverKind(t *testing.T) {
	const user = "S: +OK\nC: USER alice@example.org\n"
	const pass = user + "S: +OK\nC: PASS secret\n"
	firsts := map[Kind]string{
		Down:             "close",
		Temporary:        user + "S: -ERR [SYS/TEMP] no\nclose",
		Protocol:         "S: 220 smtp.example.org ESMTP\nclose",
		RefusesPlaintext: user + "S: -ERR use TLS\nclose",
	}
	seconds := []struct {
		script string
		want   Kind
		step   string
	}{
		{pass + "S: -ERR [AUTH] no\nclose", WrongPassword, "PASS"},
		{pass + "S: -ERR no\nclose", WrongPassword, "PASS"},
		{pass + "S: -ERR [IN-USE] no\nclose", InUse, "PASS"},
		{pass + "S: -ERR [SYS/PERM] no\nclose", Permanent, "PASS"},
		{pass + "S: -ERR [LOGIN-DELAY] no\nclose", LoginDelay, "PASS"},
		{pass + "S: -ERR [SYS/TEMP] no\nclose", Temporary, "PASS"},
		{pass + "S: -ERR use TLS\nclose", RefusesPlaintext, "PASS"},
		{pass + "S: * BYE\nclose", Protocol, "PASS"},
		{pass + "close", Temporary, "PASS"},
		{pass + "hang", Temporary, "PASS"}, // reply_timeout
		{user + "S: -ERR no such user\nclose", WrongPassword, "USER"},
	}
	for kind, first := range firsts {
		for _, second := range seconds {
			failOver(t, kind, first, second.script, second.want, second.step)
		}
		for other, second := range firsts {
			want := kind
			if kind == Down {
				want = other
			}
			failOver(t, kind, first, second, want, "")
		}
	}
}

// failOver logs in where one server fails before PASS, as kind, and the next one answers by the script second.
func failOver(t *testing.T, kind Kind, first, second string, want Kind, step string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := ordered(t, "one.example.org", "two.example.org")
		piped(t, p, script(first), script(second))
		_, err := p.Login(t.Context(), request())
		var e *Error
		if !errors.As(err, &e) || e.Kind != want || step != "" && (e.Step != step || e.Server != "two.example.org:110") {
			t.Errorf("%q, then %q: got %v, want %q", kind, second, err, want)
		}
		if e == nil || e.also == nil || !strings.Contains(err.Error(), "one.example.org:110") {
			t.Errorf("%q, then %q: the first server is not in %v", kind, second, err)
		}
		synctest.Wait()
	})
}
