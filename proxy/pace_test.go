package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/policy/wforce"
)

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

// held is a gateway whose refused logins make the next one from there wait for 20 seconds.
func held(t *testing.T, change func(*settings)) (*rig, *client) {
	t.Helper()
	s := defaults("127.0.0.1:1")
	s.lockout = lockout.DefaultConfig()
	s.lockout.Delay, s.lockout.MaxDelay, s.lockout.User.DelayAfter = 20*time.Second, 20*time.Second, 1
	change(s)
	r := newRig(t, s)
	c := r.pipe()
	c.startTLS(&tls.Config{InsecureSkipVerify: true})
	c.expect("+OK POP3 ready")
	if got := c.try("nobody@example.net", "guess"); got != "-ERR [AUTH] Wrong user name or password" {
		t.Errorf("the first login: got %q", got)
	}
	return r, c
}

// What a login has waited for earlier failures is no part of the time that backends have: it is answered as others are.
func TestHeldForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := held(t, func(s *settings) { s.timeouts.BackendLogin = 10 * time.Second })
		began := time.Now()
		if got := c.try("nobody@example.net", "another guess"); got != "-ERR [AUTH] Wrong user name or password" {
			t.Errorf("got %q", got)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("refused after %v, want 20s", took)
		}
		c.conn.Close()
		r.gw.Close()
	})
}

// A login that waits for earlier failures does not hold up the end.
func TestHeldAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := held(t, func(*settings) {})
		c.send("USER nobody@example.net\r\n")
		c.expect("+OK")
		c.send("PASS another guess\r\n")
		synctest.Wait()
		ended := make(chan time.Duration)
		began := time.Now()
		go func() {
			_ = r.gw.Shutdown(t.Context())
			ended <- time.Since(began)
		}()
		c.expect("-ERR [SYS/TEMP] The server is going down, try again later")
		c.conn.Close()
		if took := <-ended; took > 5*time.Second {
			t.Errorf("down after %v", took)
		}
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
			return p.due(came, tick, auth.Name{}, backend, asked).Sub(came)
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
		for range 100 { // the memory is of the last ones, and bounded
			refusal("new", 0, true)
		}
		if got := refusal("new", 0, false); got != tick {
			t.Errorf("long after the slow refusals one leaves after %v", got)
		}
		if got := refusal("old", 5*time.Second, true); got != 3*tick {
			t.Errorf("got %v", got)
		}
		if got := p.due(time.Now(), 0, auth.Name{}, "old", true); !got.Equal(time.Now()) {
			t.Errorf("with no tick, it leaves at %v", got)
		}
	})
}

// A login that nobody looked for a backend for is refused at the pace of its user's own, as far as that is known; who has none looks
// as if he had, and every time the same one.
func TestPaceOfHome(t *testing.T) {
	const tick = time.Second
	synctest.Test(t, func(t *testing.T) {
		var p pace
		name := func(text string) auth.Name {
			n, err := auth.NameRules{Separators: "@"}.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		ticks := func(user string) time.Duration {
			came := time.Now()
			return p.due(came, tick, name(user), "", false).Sub(came) / tick
		}
		if got := ticks("nobody@example.net"); got != 1 {
			t.Errorf("before any refusal one leaves after %d ticks", got)
		}
		p.due(time.Now(), tick, name("anna@example.org"), "quick", true)
		p.due(time.Now().Add(-2*tick), tick, name("bob@example.org"), "slow", true)
		p.due(time.Now().Add(-2*tick), tick, name("carol@slow.example"), "slow", true)
		for user, want := range map[string]time.Duration{"anna@example.org": 1, "Anna+x@example.org": 1, "bob@example.org": 3, "nobody@slow.example": 3} {
			for range 50 {
				if got := ticks(user); got != want {
					t.Fatalf("%s: a refusal leaves after %d ticks, want %d", user, got, want)
				}
			}
		}
		seen := map[time.Duration]int{}
		for i := range 200 {
			for _, domain := range []string{"example.org", "example.net"} {
				user := fmt.Sprintf("nobody%d@%s", i, domain)
				first := ticks(user)
				for range 5 {
					if got := ticks(user); got != first {
						t.Fatalf("%s: a refusal leaves after %d ticks, and the one before after %d", user, got, first)
					}
				}
				seen[first]++
			}
		}
		if len(seen) != 2 || seen[1] < 100 || seen[3] < 100 {
			t.Errorf("ticks of users who are nowhere: %v, want about as many of either backend", seen)
		}
		for i := range 4 * homeSlots { // who makes up names takes others' room, and no more
			ticks(fmt.Sprintf("u%d@example.net", i))
		}
		if got := ticks("bob@example.org"); got != 3 {
			t.Errorf("after many names that nobody has, a refusal leaves after %d ticks", got)
		}
		for _, n := range []auth.Name{{}, {Key: "x"}} {
			p.due(time.Now(), tick, n, "quick", true)
			p.due(time.Now(), tick, n, "", false)
		}
	})
}

// What failures cost one client is paid by that client alone: it is no part of what is remembered of a backend.
func TestPaceOfToll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tick, toll = time.Second, 7500 * time.Millisecond
		gw := New(newBook(), nil, nil)
		s := &session{gw: gw, snap: &Snapshot{FailureDelay: tick}}
		refused := func(held, at time.Duration, toll time.Duration, o outcome, cause error) time.Duration {
			l := &login{s: s, came: time.Now(), toll: toll}
			l.spent[stageHold] = held
			time.Sleep(held + at)
			l.wait(o, cause)
			return time.Since(l.came)
		}
		for _, tt := range []struct {
			what     string
			held, at time.Duration
			toll     time.Duration
			o        outcome
			cause    error
			want     time.Duration
		}{
			{"wrong password", 0, 100 * time.Millisecond, 0, wrong(audit.WrongPassword), auth.ErrWrongPassword, tick},
			{"wrong password that waited", toll, 100 * time.Millisecond, toll, wrong(audit.WrongPassword), auth.ErrWrongPassword, toll + tick},
			{"wrong password of one who is known", 0, 100 * time.Millisecond, toll, wrong(audit.WrongPassword), auth.ErrWrongPassword, toll + tick},
			{"a policy service was asked, too", toll + 3*time.Millisecond, 0, toll, guess(audit.PolicyRefused), wforce.ErrRefused, toll + tick},
			{"locked out", 0, 0, toll, guess(audit.LockedOut), policy.ErrLockedOut, toll + tick},
			{"no such user", 0, 0, 0, unknown(audit.UnknownUser), auth.ErrUnknownUser, tick},
		} {
			for range 40 {
				if got := refused(tt.held, tt.at, tt.toll, tt.o, tt.cause); got != tt.want {
					t.Fatalf("%s: refused after %v, want %v", tt.what, got, tt.want)
				}
			}
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
