package backend

import (
	"bufio"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
)

const (
	notExpected = "seems not to expect PROXY headers"
	headerV1    = "C: PROXY TCP4 192.0.2.7 192.0.2.1 50123 995\n"
)

// advised makes a pool whose log can be looked into.
func advised(t *testing.T, c Config) (*Pool, *logBuffer) {
	t.Helper()
	log, said := logger()
	return use(t, New(log, nil), c).Pool("old"), said
}

// saidOnce makes sure that the log advises to do something once, or never where what is "".
func saidOnce(t *testing.T, said *logBuffer, what string) {
	t.Helper()
	want := 1
	if what == "" {
		want = 0
	}
	if got := said.String(); strings.Count(got, "fix=") != want || !strings.Contains(got, what) {
		t.Errorf("got the log %s, want %q in it, %d times", got, what, want)
	}
}

// TestServerExpectsNoHeader holds what the answer to a PROXY header that was taken for a command is told from.
func TestServerExpectsNoHeader(t *testing.T) {
	const user = "S: +OK ready\nC: USER alice@example.org\n"
	const stls = "S: +OK ready\nC: STLS\n"
	tests := []struct {
		name, tls, script string
		want              Kind
		step, says        string
	}{
		{"at USER", TLSNone, user + "S: -ERR Unknown command.\nS: +OK", Protocol, "USER", notExpected},
		{"Courier", TLSNone, user + "S: -ERR Invalid command.", Protocol, "USER", notExpected},
		{"Exchange", TLSNone, user + "S: -ERR Protocol error. 14", Protocol, "USER", notExpected},
		{"behind the greeting", TLSNone, `S* "+OK ready\r\n-ERR Unknown command.\r\n"`, Protocol, "USER", notExpected},
		{"at STLS", TLSStart, stls + "S: -ERR Unknown command.", Protocol, "STLS", notExpected},
		{"behind the greeting, before STLS", TLSStart, `S* "+OK ready\r\n-ERR what\r\n"`, Protocol, "STLS", notExpected},
		{"closed before the greeting", TLSNone, "close", Protocol, "greeting", ""},
		{"closed before TLS", TLSImplicit, "close", Protocol, "TLS", ""},
		{"closed at USER", TLSNone, user + "close", Temporary, "USER", ""},

		{"a real refusal", TLSNone, user + "S: -ERR [AUTH] Plaintext authentication disallowed", RefusesPlaintext, "USER",
			"refuses plaintext"},
		{"a code", TLSNone, user + "S: -ERR [SYS/TEMP] Unknown command", Temporary, "USER", ""},
		{"wants TLS", TLSNone, user + "S: -ERR Unknown command before STLS", RefusesPlaintext, "USER", "refuses plaintext"},
		{"unknown user", TLSNone, user + "S: -ERR unknown user alice@example.org", WrongPassword, "USER", ""},
		{"early, but later", TLSNone, user + `S* "+OK\r\n-ERR Unknown command.\r\n"`, Protocol, "PASS", ""},
		{"unknown command PASS", TLSNone, user + "S: +OK\nC: PASS secret\nS: -ERR Unknown command.", WrongPassword, "PASS", ""},
		{"no STLS", TLSStart, stls + "S: -ERR TLS support isn't enabled.", Temporary, "STLS", "backend refuses STLS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config(script(headerV1 + tt.script).listen(t))
			c.ClientInfo, c.TLS = ClientProxyV1, tt.tls
			p, said := advised(t, c)
			for range 2 {
				_, err := login(t, p)
				if step := refused(t, err, tt.want); step != tt.step {
					t.Errorf("got the step %q (%v), want %q", step, err, tt.step)
				}
			}
			saidOnce(t, said, tt.says)
			if !p.members[0].server.up() {
				t.Error("the server is marked dead")
			}
		})
	}
}

// TestNoHeaderNoBlame holds that without a PROXY header nothing is put down to it.
func TestNoHeaderNoBlame(t *testing.T) {
	const user = "S: +OK ready\nC: USER alice@example.org\n"
	for lines, says := range map[string]string{
		user + "S: -ERR Unknown command.":        "refuses plaintext",
		`S* "+OK ready\r\n-ERR Unknown\r\n"`:     "",
		"S: -ERR Unknown command.\nclose":        "",
		user + "S: +OK\nC: PASS secret\nS: -ERR": "",
	} {
		p, said := advised(t, config(script(lines).listen(t)))
		if _, err := login(t, p); err == nil || errors.Is(err, errHeader) || strings.Contains(err.Error(), "PROXY") {
			t.Errorf("%q: got %v", lines, err)
		}
		saidOnce(t, said, says)
	}
}

// TestNamesMakeNoNoise holds that a server that takes logins and refuses names without words is not said to refuse
// plaintext, until it was down.
func TestNamesMakeNoNoise(t *testing.T) {
	const user = "S: +OK ready\nC: USER alice@example.org\n"
	refuses := script(user + "S: -ERR no")
	takes := script(user + "S: +OK\nC: PASS secret\nS: +OK")
	p, said := advised(t, config("mail.example.org"))
	for _, tt := range []struct {
		server *scripted
		want   Kind
		says   string
	}{
		{takes, 0, ""}, {refuses, WrongPassword, ""}, {refuses, WrongPassword, ""},
		{script("close"), Down, ""},
		{refuses, RefusesPlaintext, "refuses plaintext"},
	} {
		piped(t, p, tt.server)
		_, err := login(t, p)
		if tt.server != takes {
			refused(t, err, tt.want)
		} else if err != nil {
			t.Fatal(err)
		}
		saidOnce(t, said, tt.says)
	}
}

// TestChecksFindUnexpectedHeader holds that most servers give themselves away before the first user comes, and that one
// that knows the header is not blamed for being old.
func TestChecksFindUnexpectedHeader(t *testing.T) {
	const capa = "S: +OK ready\nC: CAPA\n"
	tests := []struct {
		name, script string
		says         string
		good, up     bool
	}{
		{"at CAPA", capa + "S: -ERR Unknown command.\nC: QUIT\nS: +OK\nS: TOP\nS: .\nS: +OK bye\nclose", notExpected, false, true},
		{"more behind it", capa + `S* "-ERR Unknown command.\r\n-ERR Too many bad commands.\r\n"`, notExpected, false, true},
		{"behind the greeting", `S* "+OK ready\r\n-ERR Unknown command.\r\n"`, notExpected, false, true},
		{"closed", "close", "closes connections that begin with a PROXY header", false, false},
		{"closed at CAPA", capa + "close", "closes connections that begin with a PROXY header", false, true},
		{"an old server", capa + "S: -ERR Unknown command.\nC: QUIT\nS: +OK bye\nclose", "", true, true},
		{"an old server that just goes", capa + "S: -ERR Unknown command.\nC: QUIT\nclose", "", true, true},
		{"busy", "S: -ERR too many connections\nclose", "", false, false},
	}
	for _, tt := range tests {
		for _, mode := range []string{ClientProxyV1, ClientProxyV2} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				s := script(tt.script)
				s.header = func(r *bufio.Reader) { _, _ = proxyproto.Read(r) }
				c := config(s.listen(t))
				c.ClientInfo = mode
				p, said := advised(t, c)
				m := p.members[0]
				for range 2 {
					p.checkServer(t.Context(), m)
				}
				saidOnce(t, said, tt.says)
				if good := m.server.counts.checked.Load() == 2; good != tt.good || m.server.up() != tt.up {
					t.Errorf("the checks are good: %v, up: %v", good, m.server.up())
				}
			})
		}
	}
}

// TestMayWaitForHeader holds that a server that greets nobody is suspected of waiting for a PROXY header, but only one
// that could be reached, and that was sent none.
func TestMayWaitForHeader(t *testing.T) {
	tests := []struct {
		mode, script string
		within       time.Duration
		want         Kind
		hint         bool
	}{
		{ClientNone, "close", 0, Down, true},
		{ClientXClient, "hang", 50 * time.Millisecond, Down, true},
		{ClientProxyV1, headerV1 + "hang", 50 * time.Millisecond, Down, false},
		{ClientNone, "S: +OK\nC: USER alice@example.org\nclose", 0, Temporary, false},
	}
	for _, tt := range tests {
		c := config(script(tt.script).listen(t))
		c.ClientInfo, c.GreetingTimeout = tt.mode, tt.within
		_, err := login(t, pool(t, c))
		refused(t, err, tt.want)
		if got := strings.Contains(err.Error(), "waits for a PROXY header"); got != tt.hint {
			t.Errorf("%s, %q: got %v", tt.mode, tt.script, err)
		}
	}
	_, err := login(t, pool(t, config("name.invalid")))
	if err == nil || strings.Contains(err.Error(), "PROXY") {
		t.Errorf("got %v for a server that cannot be reached", err)
	}
}

// TestOurEndIsNoFault holds that a login that is given up blames nobody.
func TestOurEndIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config("mail.example.org")
		c.ClientInfo = ClientProxyV1
		p, said := advised(t, c)
		piped(t, p, script(headerV1+"hang"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := p.Login(ctx, request())
		refused(t, err, Local)
		saidOnce(t, said, "")
	})
}

func TestRefusedSTLSIsLoud(t *testing.T) {
	c := config(script("S: +OK\nC: STLS\nS: -ERR Unknown command.").listen(t))
	c.TLS = TLSStart
	p, said := advised(t, c)
	for range 2 {
		_, err := login(t, p)
		refused(t, err, Temporary)
	}
	saidOnce(t, said, "tls: implicit")
}
