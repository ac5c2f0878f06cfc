package backend

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/proxy/pop3"
)

func TestLogin(t *testing.T) {
	tests := map[string]string{
		"plain":      loginScript,
		"lower case": "S: +ok ready\nC: USER alice@example.org\nS: +ok\nC: PASS secret\nS: +ok",
		"no blank":   "S: +OK<1896.697170952@dbc.example.org>\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nS: +OK",
		"bare LF":    "S* \"+OK\\n\"\nC: USER alice@example.org\nS* \"+OK\\n\"\nC: PASS secret\nS* \"+OK\\n\"",
		"byte by byte": `S1 "+OK ready\r\n"
			C: USER alice@example.org
			S1 "+OK\r\n"
			C: PASS secret
			S1 "+OK mailbox has 2 messages\r\n"`,
		"long greeting": "S: +OK " + strings.Repeat("x", 900) +
			"\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nS: +OK",
	}
	for name, s := range tests {
		t.Run(name, func(t *testing.T) {
			addr := script(s).listen(t)
			c, err := login(t, pool(t, config(addr)))
			if err != nil {
				t.Fatal(err)
			}
			if _, plain := c.Conn.(*net.TCPConn); c.Server != addr || !plain || len(c.Leftover) != 0 {
				t.Errorf("got server %q, a %T, leftover %q", c.Server, c.Conn, c.Leftover)
			}
			if s := c.Stages; s.Connect <= 0 || s.Greeting <= 0 || s.Login <= 0 {
				t.Errorf("got the stages %+v, want times", s)
			}
		})
	}
}

func TestLoginCarriesOn(t *testing.T) {
	s := script(strings.TrimSuffix(loginScript, "S: +OK logged in") + `S* "+OK\r\n+OK 2 320\r\n"
		C: STAT
		close`)
	c, err := login(t, pool(t, config(s.listen(t))))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(c.Leftover); got != "+OK 2 320\r\n" {
		t.Errorf("got the leftover %q, want what came behind the reply to PASS", got)
	}
	if _, err := io.WriteString(c, "STAT\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection is of no use after the login: %v", err)
	}
}

// TestNoDeadlineLeft holds that a deadline of the login does not end the relay, nor does the login's context.
func TestNoDeadlineLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script(loginScript + "\nC: NOOP\nS: +OK")
		p := pool(t, config("mail.example.org"))
		piped(t, p, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		c, err := p.Login(ctx, request())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cancel()
		<-time.After(time.Hour)
		if _, err := io.WriteString(c, "NOOP\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 8)); err != nil {
			t.Error(err)
		}
	})
}

func TestRefusals(t *testing.T) {
	const user = "S: +OK\nC: USER alice@example.org\n"
	const pass = user + "S: +OK\nC: PASS secret\n"
	tests := []struct {
		name, script string
		want         Kind
		step         string
	}{
		{"-ERR greeting", "S: -ERR [SYS/TEMP] too many connections\nclose", Temporary, "greeting"},
		{"greeting wants TLS", "S: -ERR SSL required\nclose", RefusesPlaintext, "greeting"},
		{"closed before the greeting", "close", Down, "greeting"},
		{"half a greeting", "S* \"+OK rea\"\nclose", Down, "greeting"},
		{"HTTP", "S: HTTP/1.1 400 Bad Request\nclose", Protocol, "greeting"},
		{"garbage before +OK", "S: \x01\x02+OK\nclose", Protocol, "greeting"},
		{"+OKAY", "S: +OKAY\nclose", Protocol, "greeting"},
		{"endless line", "S* \"+OK " + strings.Repeat("x", 5000) + "\"\nhang", Protocol, "greeting"},
		{"reply before USER", "S* \"+OK\\r\\n+OK\\r\\n\"\nhang", Protocol, "USER"},
		{"reply before PASS", user + "S* \"+OK\\r\\n+OK welcome\\r\\n\"\nhang", Protocol, "PASS"},
		{"closed at USER", user + "close", Temporary, "USER"},
		{"Dovecot's default", user + "S: -ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.",
			RefusesPlaintext, "USER"},
		{"no words at USER", user + "S: -ERR", RefusesPlaintext, "USER"},
		{"unknown at USER", user + "S: -ERR sorry, no mailbox for alice@example.org here", WrongPassword, "USER"},
		{"busy at USER", user + "S: -ERR [SYS/TEMP] later", Temporary, "USER"},
		{"wrong", pass + "S: -ERR [AUTH] Authentication failed.", WrongPassword, "PASS"},
		{"wrong without code", pass + "S: -ERR Re-Authentication Failure", WrongPassword, "PASS"},
		{"in use", pass + "S: -ERR [IN-USE] again", InUse, "PASS"},
		{"temporary", pass + "S: -ERR [SYS/TEMP] database down", Temporary, "PASS"},
		{"permanent", pass + "S: -ERR [SYS/PERM] disabled", Permanent, "PASS"},
		{"login delay", pass + "S: -ERR [LOGIN-DELAY] minimum time between mail checks violation", LoginDelay, "PASS"},
		{"referral", pass + "S: -ERR [REFERRAL/alice@backend2:110] go there", Temporary, "PASS"},
		{"plaintext at PASS", pass + "S: -ERR Must issue a STLS command first", RefusesPlaintext, "PASS"},
		{"closed at PASS", pass + "close", Temporary, "PASS"},
		{"garbage at PASS", pass + "S: * OK IMAP", Protocol, "PASS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := script(tt.script)
			_, err := login(t, pool(t, config(s.listen(t))))
			if step := refused(t, err, tt.want); step != tt.step {
				t.Errorf("got the step %q (%v), want %q", step, err, tt.step)
			}
			if errors.Is(err, pop3.ErrLineTooLong) {
				t.Errorf("%v looks like a client's long line", err)
			}
		})
	}
}

// TestSecretStays holds that a server that repeats the password, or a part of it, does not get it into an error or a log.
func TestSecretStays(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20)[:300]
	tests := []struct {
		secret, answer, want string
	}{
		{"secret", "-ERR unknown command: PASS secret", "-ERR " + repeated},
		{"secret", "-ERR PASS SECRET", "-ERR " + repeated},
		{"secret", "-ERR [secret] no", "-ERR " + repeated},
		{"secret", "-ERR [SYS/TEMP] secret", "-ERR [SYS/TEMP] " + repeated},
		{"secret", "-ERR [REFERRAL/secret@10.0.0.6] no", "-ERR " + repeated},
		{"secret", "-ERR PASS sec\x01ret", "-ERR " + repeated},
		{"se\x01cret", "-ERR PASS se\x01cret", "-ERR " + repeated},
		{"\xffsecret", "-ERR PASS \xffSecret", "-ERR " + repeated},
		{"two words", "-ERR unknown: PASS Two Word", "-ERR " + repeated},
		{long, "-ERR unknown command: PASS " + long, "-ERR " + repeated},
		{long, "-ERR unknown: PASS " + long[:20], "-ERR " + repeated},
		{long, "-ERR ..." + long[100:108] + "...", "-ERR " + repeated},

		{"secret", "PASS secret ???", pop3.ErrNotReply.Error()},
		{long, "PASS " + long, pop3.ErrNotReply.Error()},
		{long, "250 " + long[7:], pop3.ErrNotReply.Error()},
		{"secret", "* BYE c2VjcmV0", pop3.ErrNotReply.Error()}, // in base64

		{"secret", "-ERR [AUTH] no secre", "-ERR [AUTH] no secre"},
		{long, "-ERR [AUTH] not " + long[:7], "-ERR [AUTH] not " + long[:7]},
	}
	for _, tt := range tests {
		s := script("S: +OK\nC: USER alice@example.org\nS: +OK\nC: PASS " + tt.secret + "\nS: " + tt.answer)
		p, said := advised(t, config(s.listen(t)))
		req := request()
		req.Login.Secret = auth.NewSecret([]byte(tt.secret))
		_, err := p.Login(t.Context(), req)
		var e *Error
		if !errors.As(err, &e) || !strings.HasSuffix(err.Error(), ": PASS: "+tt.want) {
			t.Errorf("%q gives %q, want %q", tt.answer, err, tt.want)
		}
		saidOnce(t, said, "")
	}
	s := script(strings.TrimSuffix(loginScript, "+OK logged in") + "-ERR TLS required, not PASS secret")
	p, said := advised(t, config(s.listen(t)))
	_, err := login(t, p)
	refused(t, err, RefusesPlaintext)
	saidOnce(t, said, "refuses plaintext")
	if got := said.String() + err.Error(); strings.Contains(strings.ReplaceAll(got, repeated, ""), "secret") {
		t.Errorf("the secret is in %s", got)
	}
	if repeats([]byte("no"), nil) {
		t.Error("no secret is in every text")
	}
}

func TestBadCredentials(t *testing.T) {
	s := script("S: +OK")
	p := pool(t, config(s.listen(t)))
	for _, tt := range []struct{ user, secret string }{
		{"", "x"}, {"a\r\nDELE 1", "x"}, {"a\nb", "x"}, {"a\x00", "x"}, {"a", "x\r\nDELE 1"}, {"a", "x\n"}, {"a", "\x00"},
	} {
		req := request()
		req.Login = auth.BackendLogin{User: tt.user, Secret: auth.NewSecret([]byte(tt.secret))}
		_, err := p.Login(t.Context(), req)
		refused(t, err, WrongPassword)
		if !errors.Is(err, ErrBadCredentials) {
			t.Errorf("got %v, want ErrBadCredentials", err)
		}
	}
	if n := s.seen(); n != 0 {
		t.Errorf("the server saw %d connections, want none", n)
	}
}

// TestSecretsAsTheyAre holds that a secret goes out raw, blanks at its ends included, and in one write with its verb.
func TestSecretsAsTheyAre(t *testing.T) {
	for _, n := range []int{0, 1, 182, 183, 184, 185, 186, 5000} {
		secret := " " + strings.Repeat("p", n) + " "
		got := make(chan string, 1)
		p := pool(t, config("192.0.2.9"))
		p.backends.dial = func(context.Context, *dialer, address) (net.Conn, error) {
			near, far := net.Pipe()
			t.Cleanup(func() { far.Close() })
			go func() {
				buf := make([]byte, 8192)
				_, _ = io.WriteString(far, "+OK\r\n")
				_, _ = far.Read(buf)
				_, _ = io.WriteString(far, "+OK\r\n")
				n, _ := far.Read(buf) // a pipe gives what one write has, and no more
				_, _ = io.WriteString(far, "+OK\r\n")
				got <- string(buf[:n])
			}()
			return near, nil
		}
		req := request()
		req.Login.Secret = auth.NewSecret([]byte(secret))
		c, err := p.Login(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if line := <-got; line != "PASS "+secret+"\r\n" {
			t.Errorf("got %d octets, want PASS and the secret as it is", len(line))
		}
		c.Close()
	}
}

// TestPassBufferWiped holds that the buffer that PASS was built in is empty once it is written.
func TestPassBufferWiped(t *testing.T) {
	for _, secret := range []string{"short", strings.Repeat("long", 100)} {
		rec := &recorder{answers: "+OK\r\n"}
		a := attempt{
			pool: pool(t, config("192.0.2.9")), member: &member{}, req: request(), secret: []byte(secret),
			wire: wire{raw: rec, conn: rec, lines: pop3.NewReader(rec)},
		}
		if err := a.pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		if string(rec.copied) != "PASS "+secret+"\r\n" {
			t.Fatalf("got %q", rec.copied)
		}
		for _, b := range rec.kept {
			if b != 0 {
				t.Fatalf("the buffer still holds %q", rec.kept)
			}
		}
		a.lines.Release()
	}
}

// A recorder keeps the very slice it was given, against the rules of io.Writer.
type recorder struct {
	net.Conn
	answers      string
	kept, copied []byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.kept, r.copied = p, append([]byte(nil), p...)
	return len(p), nil
}

func (r *recorder) Read(p []byte) (int, error) {
	n := copy(p, r.answers)
	r.answers = r.answers[n:]
	return n, nil
}

func (*recorder) SetDeadline(time.Time) error { return nil }

// piped makes p's servers answer over pipes, which have a bubble's time.
func piped(t *testing.T, p *Pool, servers ...*scripted) {
	t.Helper()
	p.backends.dial = func(_ context.Context, _ *dialer, a address) (net.Conn, error) {
		i := 0
		for p.members[i].address != a {
			i++
		}
		near, far := net.Pipe()
		servers[i].t = t
		go servers[i].serve(far)
		return near, nil
	}
}

func TestTimeouts(t *testing.T) {
	tests := []struct {
		name, script string
		want         Kind
		after        time.Duration
		down         bool
	}{
		{"no greeting", "hang", Down, 10 * time.Second, true},
		{"half a greeting", "S* \"+OK\"\nhang", Down, 10 * time.Second, true},
		{"no answer to USER", "S: +OK\nC: USER alice@example.org\nhang", Temporary, 30 * time.Second, false},
		{"no answer to PASS", "S: +OK\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nhang", Temporary, 30 * time.Second,
			false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pool(t, config("mail.example.org"))
				piped(t, p, script(tt.script))
				start := time.Now()
				_, err := p.Login(t.Context(), request())
				refused(t, err, tt.want)
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v, want a timeout", err)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %v, want %v", took, tt.after)
				}
				if up := p.members[0].server.up(); up == tt.down {
					t.Errorf("server is up: %v", up)
				}
			})
		})
	}
}

// TestContextEnds holds that the end of the login's own time, or its client's going, is nobody else's failure.
func TestContextEnds(t *testing.T) {
	for _, s := range []string{"hang", "S: +OK\nhang", "S: +OK\nC: USER alice@example.org\nS: +OK\nhang"} {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, config("one.example.org", "two.example.org"))
			servers := []*scripted{script(s), script(s)}
			piped(t, p, servers...)

			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := p.Login(ctx, request())
			refused(t, err, Local)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's deadline", err)
			}

			ctx, cancel = context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			start := time.Now()
			_, err = p.Login(ctx, request())
			refused(t, err, Local)
			if !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
				t.Errorf("got %v after %v, want an immediate end", err, time.Since(start))
			}
			if n := servers[0].seen() + servers[1].seen(); n != 2 {
				t.Errorf("%d connections, want one a login", n)
			}
			for _, m := range p.members {
				if !m.server.up() {
					t.Errorf("%s is marked dead", m.address.text)
				}
			}
		})
	}
}
