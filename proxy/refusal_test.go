package proxy

import (
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/lockout"
)

func rate(t *testing.T, text string) (r limit.Rate) {
	t.Helper()
	if err := r.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return r
}

// try is one login by USER and PASS; it returns what PASS was answered.
func (c *client) try(user, secret string) string {
	c.t.Helper()
	c.send("USER " + user + "\r\n")
	c.expect("+OK")
	c.send("PASS " + secret + "\r\n")
	return c.line()
}

// Nobody hears of a login before it is on record, good or bad.
func TestRecordBeforeReply(t *testing.T) {
	address, _ := mail(t, false)
	for _, secret := range []string{"secret", "wrong"} {
		r := start(t, address)
		written := make(chan struct{})
		r.audit.hook = func(*audit.Event) error {
			<-written
			return nil
		}
		c := r.dial()
		c.expect("+OK POP3 ready")
		c.send("USER alice@example.org\r\n")
		c.expect("+OK")
		c.send("PASS " + secret + "\r\n")
		if e := r.next(); e.Name != audit.LoginAccepted && e.Name != audit.LoginRefused {
			t.Fatalf("record %s", e.Name)
		}
		_ = c.raw.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		var b [1]byte
		if n, err := c.conn.Read(b[:]); n > 0 || !isTimeout(err) {
			t.Errorf("%s: an answer (%q, %v) came before its record was written", secret, b[:n], err)
		}
		close(written)
		c.line()
		c.conn.Close()
		r.next()
	}
}

// A strict audit that cannot write lets nobody in, and the places that the login took come back. What was refused
// stays refused in the same words.
func TestAuditRefuses(t *testing.T) {
	address, _ := mail(t, false)
	r := start(t, address, func(s *settings) { s.limits.SessionsPerUser = 1; s.limits.LoginsPerUser = rate(t, "2/h") })
	full := errors.New("no space left on device")
	r.audit.hook = func(*audit.Event) error { return full }
	for range 3 {
		c := r.dial()
		c.expect("+OK POP3 ready")
		if got := c.try("alice@example.org", "secret"); got != "-ERR [SYS/TEMP] Try again later" {
			t.Errorf("got %q", got)
		}
		c.ends(true)
		c.conn.Close()
		r.next()
		r.closed(audit.AuditFailed)
	}
	c := r.dial()
	c.expect("+OK POP3 ready")
	if got := c.try("alice@example.org", "wrong"); got != "-ERR [AUTH] Wrong user name or password" {
		t.Errorf("a wrong password without a record: %q", got)
	}
	c.conn.Close()
	r.next()
	r.closed(audit.ClientGone)
	r.audit.hook = nil
	c = r.dial()
	c.expect("+OK POP3 ready")
	if got := c.try("alice@example.org", "secret"); got != "+OK Logged in" {
		t.Errorf("with the disk free again: %q", got)
	}
	r.log.has(t, "ERROR write the audit record of a login", "no space left")
}

// The two limits of a user speak only to who knows the password.
func TestUserLimits(t *testing.T) {
	const wrong = "-ERR [AUTH] Wrong user name or password"
	address, _ := mail(t, false)
	r := start(t, address, func(s *settings) { s.limits.SessionsPerUser = 1; s.limits.LoginsPerUser = rate(t, "2/h") })
	first := r.loggedIn()
	c := r.dial()
	c.expect("+OK POP3 ready")
	if got := c.try("alice@example.org", "wrong"); got != wrong {
		t.Errorf("a wrong password while the user has all sessions: %q", got)
	}
	first.send("QUIT\r\n")
	first.line()
	first.conn.Close()
	for e := r.next(); e.Name != audit.SessionClosed; {
		e = r.next()
	}
	second := r.loggedIn()
	r.next()
	// The backend says IN-USE itself while somebody is there, but popgate's limit must be what speaks: so ask with a
	// server that lets everybody in.
	if got := c.try("alice@example.org", "secret"); got != "-ERR [IN-USE] The mailbox is in use by another session" {
		t.Errorf("the right password while the user has all sessions: %q", got)
	}
	r.next()
	second.send("QUIT\r\n")
	second.line()
	second.conn.Close()
	r.closed(audit.ClientQuit)
	third := r.dial()
	third.expect("+OK POP3 ready")
	if got := third.try("alice@example.org", "wrong"); got != wrong {
		t.Errorf("a wrong password after too many logins: %q", got)
	}
	if got := third.try("alice@example.org", "secret"); got != "-ERR [LOGIN-DELAY] Logged in too often, try again later" {
		t.Errorf("the right password after too many logins: %q", got)
	}
}

// Over a network's limit of failures a client hears so without anybody being asked.
func TestNetworkLimit(t *testing.T) {
	r := start(t, "127.0.0.1:1", func(s *settings) { s.limits.LoginsPerIP = rate(t, "2/h"); s.bounds.FailedLogins = 10 })
	c := r.dial()
	c.expect("+OK POP3 ready")
	for i, want := range []string{"[AUTH] Wrong user name or password", "[AUTH] Wrong user name or password", "[SYS/TEMP] Too busy now, try again later"} {
		if got := c.try("nobody@example.net", "secret"); got != "-ERR "+want {
			t.Errorf("try %d: %q", i, got)
		}
		r.next()
	}
	if got := c.try("alice@example.org", "secret"); got != "-ERR [SYS/TEMP] Too busy now, try again later" {
		t.Errorf("a login that would need the backend: %q", got)
	}
	if e := r.next(); e.Reason != audit.RateLimited || e.Backend != "" {
		t.Errorf("record %s %s", e.Reason, e.Backend)
	}
}

// Over that limit, a wrong password of a user who is known there is answered as any other user is, and as late; the right one goes on.
func TestNetworkLimitTellsNobodyKnown(t *testing.T) {
	const (
		busy = "-ERR [SYS/TEMP] Too busy now, try again later"
		tick = 100 * time.Millisecond
	)
	address, _ := mail(t, false)
	r := start(t, address, func(s *settings) {
		s.limits.LoginsPerIP = rate(t, "2/h")
		s.bounds.FailedLogins = 10
		s.lockout = lockout.DefaultConfig()
		s.delay = tick
	})
	leave := func(c *client) {
		t.Helper()
		c.send("QUIT\r\n")
		c.line()
		c.conn.Close()
		r.closed(audit.ClientQuit)
	}
	c := r.loggedIn()
	r.next()
	leave(c)
	c = r.dial()
	c.expect("+OK POP3 ready")
	for range 2 {
		c.try("nobody@example.net", "secret")
		r.next()
	}
	for user, want := range map[string]audit.Reason{"nobody@example.net": audit.RateLimited, "alice@example.org": audit.WrongPassword} {
		began := time.Now()
		if got := c.try(user, "wrong"); got != busy {
			t.Errorf("%s: %q", user, got)
		}
		if took := time.Since(began); took < tick {
			t.Errorf("%s: refused after %v, before the tick", user, took)
		}
		if e := r.next(); e.Reason != want {
			t.Errorf("%s: on record as %s, want %s", user, e.Reason, want)
		}
	}
	if got := c.try("alice@example.org", "secret"); got != "+OK Logged in" {
		t.Errorf("the right password: %q", got)
	}
	if e := r.next(); e.Name != audit.LoginAccepted {
		t.Errorf("record %s %s", e.Name, e.Reason)
	}
	leave(c)
}

// Each attempt has one record, each session one end, whatever happens in them.
func TestRecordsOfASession(t *testing.T) {
	address, _ := mail(t, false)
	r := start(t, address, func(s *settings) { s.bounds.FailedLogins = 10 })
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.try("nobody@example.net", "x")
	c.try("alice@example.org", "wrong")
	c.try("alice@example.edu", "x")
	c.try("alice@example.org", "secret")
	c.send("NOOP\r\nDELE 1\r\n")
	c.line()
	c.line()
	id := ""
	for i, want := range []audit.Reason{audit.UnknownUser, audit.WrongPassword, audit.Internal, ""} {
		e := r.next()
		if e.Reason != want || (e.Name == audit.LoginAccepted) != (want == "") || e.End != nil {
			t.Errorf("record %d: %s %s", i, e.Name, e.Reason)
		}
		if e.Session == "" || i > 0 && e.Session != id || e.Listener != "pop3s" || e.TLS == nil || !e.Client.IsValid() {
			t.Errorf("record %d: %+v", i, e)
		}
		if i == 3 && (e.Tenant != "example" || e.Server != address || e.Backend != "old") {
			t.Errorf("record %d: %+v", i, e)
		}
		id = e.Session
	}
	c.conn.Close()
	e := r.closed(audit.ClientGone)
	if e.Session != id || e.User != "alice@example.org" || e.Tenant != "example" || e.Server != address || e.Dele != 1 || e.Quit {
		t.Errorf("the end: %+v %+v", e, e.End)
	}
	r.gw.Close()
	if n := len(r.audit.events); n != 0 {
		t.Errorf("%d records too many", n)
	}
}

// The time before login is bounded as a whole, and counts the time that a client takes to read.
func TestClientLoginTime(t *testing.T) {
	limit := DefaultTimeouts().ClientLogin
	for name, act := range map[string]func(c *client){
		"silence": func(*client) {},
		"a drip":  func(c *client) { c.drip([]byte(strings.Repeat("x", 500)), time.Second) },
		"commands": func(c *client) {
			for range 500 {
				if _, err := io.WriteString(c.conn, "CAPA\r\n"); err != nil {
					return
				}
				time.Sleep(time.Second)
				var b [1024]byte
				_, _ = c.conn.Read(b[:])
			}
		},
		"a slow reader": func(c *client) {
			_, _ = io.WriteString(c.conn, "CAPA\r\nCAPA\r\n")
			for range 1000 {
				time.Sleep(limit / 100)
				var b [1]byte
				if _, err := c.conn.Read(b[:]); err != nil {
					return
				}
				if b[0] == '.' {
					_, _ = io.WriteString(c.conn, "CAPA\r\n")
				}
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := defaults("127.0.0.1:1")
			s.listener.TLS = TLSStartTLS
			r := newRig(t, s)
			c := r.pipe()
			began := time.Now()
			c.expect("+OK POP3 ready")
			var talking sync.WaitGroup
			talking.Go(func() { act(c) })
			e := r.next()
			if e.Name != audit.SessionClosed || e.Reason != audit.Timeout {
				t.Errorf("%s: record %s %s", name, e.Name, e.Reason)
			}
			// Its last words may take a moment more.
			if took := time.Since(began); took < limit || took > limit+4*time.Second {
				t.Errorf("%s: ended after %v", name, took)
			}
			c.conn.Close()
			talking.Wait()
			r.gw.Close()
		})
	}
}
