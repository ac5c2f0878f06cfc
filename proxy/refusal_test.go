package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
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

// Refusals that no backend has a part in leave on the tick.
func TestRefusalTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := defaults("127.0.0.1:1")
		s.delay = 2 * time.Second
		r := newRig(t, s)
		c := r.pipe()
		c.startTLS(&tls.Config{InsecureSkipVerify: true})
		c.expect("+OK POP3 ready")
		for range 2 {
			time.Sleep(777 * time.Millisecond)
			began := time.Now()
			if got := c.try("nobody@example.net", "secret"); got != "-ERR [AUTH] Wrong user name or password" {
				t.Errorf("got %q", got)
			}
			if took := time.Since(began); took != s.delay {
				t.Errorf("refused after %v, want %v", took, s.delay)
			}
		}
		c.conn.Close()
		r.gw.Close()
	})
}

func TestPace(t *testing.T) {
	const tick = 2 * time.Second
	synctest.Test(t, func(t *testing.T) {
		var p pace
		// refusal is one by a backend, or by nobody, that took so long; it returns when it leaves.
		refusal := func(backend string, took time.Duration, asked bool) time.Duration {
			came := time.Now()
			time.Sleep(took)
			return p.due(came, tick, backend, asked).Sub(came)
		}
		for _, tt := range []struct {
			backend string
			took    time.Duration
			asked   bool
			want    time.Duration
		}{
			{"", 0, false, tick}, // nothing is known yet
			{"old", 0, false, tick},
			{"old", 0, true, tick}, // even at once waits for a tick
			{"old", tick - 1, true, tick},
			{"old", tick, true, 2 * tick},
			{"new", 5*tick + 1, true, 6 * tick},
		} {
			if got := refusal(tt.backend, tt.took, tt.asked); got != tt.want {
				t.Errorf("%q after %v, asked %v: leaves after %v, want %v", tt.backend, tt.took, tt.asked, got, tt.want)
			}
		}
		if got := refusal("new", 0, false); got != 6*tick {
			t.Errorf("a refusal in the name of a slow backend leaves after %v", got)
		}
		if got := refusal("new", 7*tick, false); got != 8*tick {
			t.Errorf("one that took longer than any of its refusals leaves after %v", got)
		}
		// What a user without a backend sees is what the users of all backends see.
		seen := map[time.Duration]int{}
		for range 2000 {
			seen[refusal("", 0, false)]++
		}
		if len(seen) != 3 || seen[tick] < 800 || seen[2*tick] < 200 || seen[6*tick] < 200 {
			t.Errorf("ticks of users without a backend: %v, want about 2, 1, 1 of 4", seen)
		}
		for range 100 { // the memory is of the last ones, and bounded
			refusal("old", 0, true)
		}
		if got := refusal("", 0, false); got != tick {
			t.Errorf("long after the slow refusals one leaves after %v", got)
		}
		if got := refusal("old", 5*time.Second, true); got != 3*tick {
			t.Errorf("got %v", got)
		}
		if got := p.due(time.Now(), 0, "old", true); !got.Equal(time.Now()) {
			t.Errorf("with no tick, it leaves at %v", got)
		}
	})
}

// refusals measures how long refusals of a user take, from many sessions at once.
func refusals(t *testing.T, r *rig, user string, sessions, each int) []time.Duration {
	t.Helper()
	var (
		mu   sync.Mutex
		took []time.Duration
		all  sync.WaitGroup
	)
	for range sessions {
		all.Go(func() {
			c := r.dial()
			defer c.conn.Close()
			c.expect("+OK POP3 ready")
			for range each {
				c.send("USER " + user + "\r\n")
				c.expect("+OK")
				began := time.Now()
				c.send("PASS wrong\r\n")
				if got := c.line(); got != "-ERR [AUTH] Wrong user name or password" {
					t.Errorf("got %q", got)
				}
				mu.Lock()
				// In quarters of a tick: what is finer is the scheduler's doing.
				took = append(took, time.Since(began).Truncate(r.snap.FailureDelay/4))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return took
}

// distance is the Kolmogorov-Smirnov statistic of two samples: the widest gap between their distributions, 0 to 1.
func distance(a, b []time.Duration) float64 {
	slices.Sort(a)
	slices.Sort(b)
	var gap float64
	for i, j := 0, 0; i < len(a) && j < len(b); {
		x := min(a[i], b[j])
		for i < len(a) && a[i] == x {
			i++
		}
		for j < len(b) && b[j] == x {
			j++
		}
		gap = max(gap, math.Abs(float64(i)/float64(len(a))-float64(j)/float64(len(b))))
	}
	return gap
}

func TestDistance(t *testing.T) {
	var a, b, c []time.Duration
	for i := range time.Duration(200) {
		a, b, c = append(a, 2*i), append(b, 2*i+1), append(c, 2*i+200)
	}
	if same, near, far := distance(a, a), distance(a, b), distance(a, c); same != 0 || near > 0.01 || far < 0.4 {
		t.Errorf("distance of equal samples %v, of nearly equal ones %v, of different ones %v", same, near, far)
	}
}

// The time of a refusal, in quarters of a tick, does not tell an unknown user from a wrong password, nor does its text: quiet or under load,
// whether the backend is quick or slow.
func TestRefusalsAlike(t *testing.T) {
	const tick = 40 * time.Millisecond
	for name, think := range map[string]time.Duration{"a quick backend": 0, "a slow backend": tick * 3 / 2} {
		for load, sessions := range map[string]int{"quiet": 20, "under load": 60} {
			t.Run(name+" "+load, func(t *testing.T) {
				server := listen(t)
				ends := refusingBackend(t, server, think)
				r := start(t, server.address, func(s *settings) {
					s.delay, s.bounds.FailedLogins = tick, 1000
				})
				refusals(t, r, "alice@example.org", sessions, 40/sessions+1) // what it learns from
				var known, unknown []time.Duration
				for range 4 { // by turns, so that what else the machine does meets both
					known = append(known, refusals(t, r, "alice@example.org", sessions, 60/sessions+1)...)
					unknown = append(unknown, refusals(t, r, "nobody@example.net", sessions, 60/sessions+1)...)
				}
				r.gw.Close()
				ends()
				if early := slices.Min(append(known, unknown...)); early < tick {
					t.Errorf("a refusal left after %v, before the first tick", early)
				}
				// Half a tick between the two would make this nearly 1; 200 of each differ by more than 0.2 by chance
				// less than once in a thousand times.
				if d := distance(known, unknown); d > 0.35 {
					t.Errorf("the distributions of %d and %d refusals differ by %.2f:\n%s\n%s", len(known), len(unknown), d, deciles(known), deciles(unknown))
				}
			})
		}
	}
}

func deciles(d []time.Duration) string {
	var b strings.Builder
	for i := range 11 {
		fmt.Fprintf(&b, "%v ", d[i*(len(d)-1)/10].Round(time.Millisecond))
	}
	return b.String()
}

// refusingBackend refuses every password after thinking about it. The func that it returns waits for its end.
func refusingBackend(t *testing.T, server *server, think time.Duration) (wait func()) {
	var serving sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	serving.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case c := <-server.conns:
				serving.Go(func() {
					defer c.Close()
					answer := func(text string) {
						var b [512]byte
						_, _ = io.WriteString(c, text)
						_, _ = c.Read(b[:])
					}
					answer("+OK ready\r\n")
					answer("+OK\r\n")
					<-time.After(think)
					answer("-ERR [AUTH] no\r\n")
				})
			}
		}
	})
	return func() {
		cancel()
		serving.Wait()
	}
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
