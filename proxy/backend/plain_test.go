package backend

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
)

// plainResponse is what AUTH PLAIN says for master, who wants alice's mailbox.
var plainResponse = base64.StdEncoding.EncodeToString([]byte("alice@example.org\x00master\x00secret"))

func asMaster(req *Request) *Request {
	req.Login.Method, req.Login.User, req.Login.Authzid = auth.MethodPlain, "master", "alice@example.org"
	return req
}

func TestPlain(t *testing.T) {
	const ask = "S: +OK ready\nC: AUTH PLAIN\n"
	initial := ask + "S: -ERR syntax: AUTH PLAIN response\nC: AUTH PLAIN " + plainResponse + "\n"
	tests := []struct {
		name, script string
		want         Kind
		good         bool
		says         string // the log
	}{
		{name: "two steps", script: ask + "S: +\nC: " + plainResponse + "\nS: +OK", good: true},
		{name: "with a blank", script: ask + "S* \"+ \\r\\n\"\nC: " + plainResponse + "\nS: +OK", good: true},
		{name: "Exchange's +OK", script: ask + "S: +OK\nC: " + plainResponse + "\nS: +OK", good: true},
		{name: "all in one line", script: initial + "S: +OK\nC: NOOP\nS: +OK", good: true},
		{name: "the line is not looked at", script: initial + "S: + go on\nC: " + plainResponse + "\nS: +OK", good: true},
		{name: "+OK was a challenge", script: initial + "S: +OK\nC: NOOP\nS: -ERR bad base64", want: Protocol},
		{name: "wrong", script: ask + "S: +\nC: " + plainResponse + "\nS: -ERR [AUTH] no", want: WrongPassword},
		{name: "wrong in one line", script: initial + "S: -ERR no", want: WrongPassword},
		{name: "in use", script: ask + "S: +\nC: " + plainResponse + "\nS: -ERR [IN-USE] no", want: InUse},
		{name: "temporary", script: ask + "S: -ERR [SYS/TEMP] no", want: Temporary},
		{name: "wants TLS", script: ask + "S: -ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.",
			want: RefusesPlaintext, says: "refuses plaintext"},
		{name: "not there", script: ask + "S: -ERR unknown command\nC: AUTH PLAIN " + plainResponse + "\nS: -ERR unknown command",
			want: Protocol, says: "takes no AUTH PLAIN"},
		{name: "no POP3", script: ask + "S: * BAD\n", want: Protocol},
		{name: "closes", script: ask + "close", want: Temporary},
		{name: "closes behind the password", script: ask + "S: +\nC: " + plainResponse + "\nclose", want: Temporary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, said := advised(t, config(script(tt.script).listen(t)))
			c, err := p.Login(t.Context(), asMaster(request()))
			if tt.good {
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				return
			}
			if step := refused(t, err, tt.want); step != "AUTH" {
				t.Errorf("got the step %q, want AUTH", step)
			}
			saidOnce(t, said, tt.says)
		})
	}
}

// TestPlainLearns holds that a server that wants the response in the first line is asked for none the next time.
func TestPlainLearns(t *testing.T) {
	one := "S: +OK\nC: AUTH PLAIN\nS: -ERR syntax\nC: AUTH PLAIN " + plainResponse + "\nS: +OK\nC: NOOP\nS: +OK"
	two := "S: +OK\nC: AUTH PLAIN " + plainResponse + "\nS: +OK\nC: NOOP\nS: +OK"
	a, b := script(one), script(two)
	p := pool(t, config(a.listen(t)))
	m := p.members[0]
	for _, s := range []*scripted{a, b} {
		m.address, _ = parseAddress(s.listen(t), TLSNone)
		c, err := p.Login(t.Context(), asMaster(request()))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if b.seen() != 1 {
		t.Errorf("the second server was asked %d times, want once", b.seen())
	}
}

// TestPlainFailsOver holds that another server is tried as long as none has seen the password.
func TestPlainFailsOver(t *testing.T) {
	const ask = "S: +OK ready\nC: AUTH PLAIN\n"
	good := ask + "S: +\nC: " + plainResponse + "\nS: +OK"
	for first, next := range map[string]int{
		ask + "S: -ERR [SYS/TEMP] no\nclose":                      1,
		ask + "S: +\nC: " + plainResponse + "\nclose":             0,
		ask + "S: +\nC: " + plainResponse + "\nS: -ERR no\nclose": 0,
	} {
		one, two := script(first), script(good)
		c := config(one.listen(t), two.listen(t))
		c.Balance = BalanceHash
		p := pool(t, c)
		if p.order(nil, request().Account)[0].address.text != c.Servers[0].Address {
			p.members[0].seed, p.members[1].seed = p.members[1].seed, p.members[0].seed
		}
		conn, err := p.Login(t.Context(), asMaster(request()))
		if err == nil {
			conn.Close()
		}
		if two.seen() != next || (err == nil) != (next == 1) {
			t.Errorf("%q: got %v, the second server was asked %d times, want %d", first, err, two.seen(), next)
		}
	}
}

// TestPlainIsDiscreet holds that a server that repeats what it was sent brings no password into an error, in any form.
func TestPlainIsDiscreet(t *testing.T) {
	for _, repeatedText := range []string{plainResponse, "secret", plainResponse[4:20], "bad line: AUTH PLAIN " + plainResponse} {
		p := pool(t, config(script("S: +OK\nC: AUTH PLAIN\nS: +\nC: "+plainResponse+"\nS: -ERR "+repeatedText).listen(t)))
		_, err := p.Login(t.Context(), asMaster(request()))
		refused(t, err, WrongPassword)
		if !strings.Contains(err.Error(), repeated) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), plainResponse[4:12]) {
			t.Errorf("%q: got %v", repeatedText, err)
		}
	}
}

func TestPlainCannotBeSent(t *testing.T) {
	for _, change := range []func(*auth.BackendLogin){
		func(l *auth.BackendLogin) { l.Authzid = "a\x00b" },
		func(l *auth.BackendLogin) { l.User = "a\x00b" },
		func(l *auth.BackendLogin) { l.Authzid = "a\r\nDELE 1" },
		func(l *auth.BackendLogin) { l.Secret = auth.NewSecret([]byte("a\x00b")) },
	} {
		s := script("S: +OK")
		p, req := pool(t, config(s.listen(t))), asMaster(request())
		change(&req.Login)
		_, err := p.Login(t.Context(), req)
		refused(t, err, WrongPassword)
		if !errors.Is(err, ErrBadCredentials) || s.seen() != 0 {
			t.Errorf("got %v and %d connections, want nothing sent", err, s.seen())
		}
	}
}
