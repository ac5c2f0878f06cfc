package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

const (
	allIn   = "S: +OK\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nS: +OK"
	nobody  = "S: +OK\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nS: -ERR [AUTH] no"
	guessed = "S: +OK\nC: USER alice@example.org\nS: +OK\nC: PASS wrong\nS: -ERR [AUTH] no"
)

// user is a login of the nth user, from the network net.
func user(n, net int) *Request {
	req := from(fmt.Sprintf("10.0.%d.%d:1", net, n%200+1))
	req.Account = fmt.Sprintf("user%d@example.org", n)
	return req
}

// A banning rig is a pool of one server that does as it is told.
func banning(t *testing.T, reg prometheus.Registerer) (p *Pool, lines *atomic.Pointer[string], said *logBuffer) {
	t.Helper()
	log, said := logger()
	b := New(log, reg)
	p = use(t, b, config("one.example.org")).Pool("old")
	lines = &atomic.Pointer[string]{}
	b.dial = func(context.Context, *dialer, address) (net.Conn, error) { return answer(t, *lines.Load()), nil }
	return p, lines, said
}

func play(t *testing.T, p *Pool, lines *atomic.Pointer[string], script string, req *Request) error {
	t.Helper()
	lines.Store(&script)
	c, err := p.Login(t.Context(), req)
	if err == nil {
		c.Close()
	}
	return err
}

// TestBanned holds that many users who are refused with the passwords that they had logged in with are not held to be
// wrong, that it is said loudly, once, and that it ends with the first who gets in.
func TestBanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		p, lines, said := banning(t, reg)
		for n := range 20 {
			if err := play(t, p, lines, allIn, user(n, n%4)); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Hour)
		for n := range 20 {
			err := play(t, p, lines, nobody, user(n, n%4))
			want := WrongPassword
			if n >= banUsers-1 {
				want = Temporary
			}
			if refused(t, err, want); errors.Is(err, errBanned) != (want == Temporary) {
				t.Errorf("user %d: got %v", n, err)
			}
		}
		notes := strings.Join(p.backends.Trouble(), "\n")
		if s := p.backends.Status()[0].Servers[0]; s.State != StateBanned || s.Up || !strings.Contains(notes, "seems to have banned popgate") {
			t.Errorf("got the state %q, the trouble %q", s.State, notes)
		}
		metric := func(want int) {
			t.Helper()
			text := fmt.Sprintf("# HELP popgate_backend_banned Whether the server seems to have banned popgate: it refuses passwords that it "+
				"took before, or clients' addresses.\n# TYPE popgate_backend_banned gauge\n"+
				"popgate_backend_banned{backend=\"old\",server=\"one.example.org:110\"} %d\n", want)
			if err := testutil.GatherAndCompare(reg, strings.NewReader(text), "popgate_backend_banned"); err != nil {
				t.Error(err)
			}
		}
		metric(1)
		// Who guesses gets no guess for nothing: what was never right is wrong, whatever is believed.
		req := user(3, 3)
		req.Login.Secret = auth.NewSecret([]byte("wrong"))
		refused(t, play(t, p, lines, guessed, req), WrongPassword)
		refused(t, play(t, p, lines, nobody, user(3, 9)), WrongPassword)
		refused(t, play(t, p, lines, nobody, user(99, 3)), WrongPassword)

		if err := play(t, p, lines, allIn, user(50, 1)); err != nil {
			t.Fatal(err)
		}
		metric(0)
		refused(t, play(t, p, lines, nobody, user(3, 3)), WrongPassword)
		if got := said.String(); strings.Count(got, "level=ERROR") != 1 || strings.Count(got, "takes passwords again") != 1 {
			t.Errorf("got the log %s", got)
		}
	})
}

// TestNotBanned holds what is no ban.
func TestNotBanned(t *testing.T) {
	tests := map[string]func(n int) (script string, req *Request){
		"somebody guesses many users' passwords": func(n int) (string, *Request) {
			req := user(n, n%4)
			req.Login.Secret = auth.NewSecret([]byte("wrong"))
			return guessed, req
		},
		"somebody has a list of right passwords": func(n int) (string, *Request) { return nobody, user(n, 9) },
		"users of one network change theirs":     func(n int) (string, *Request) { return nobody, user(n-n%4, 0) },
		"users get in between": func(n int) (string, *Request) {
			if n%4 == 3 {
				return allIn, user(n, 3)
			}
			return nobody, user(n, n%4)
		},
		"one user tries again and again": func(int) (string, *Request) { return nobody, user(1, 1) },
		"the server says something else": func(n int) (string, *Request) { return strings.Replace(nobody, "AUTH", "IN-USE", 1), user(n, n%4) },
	}
	for name, next := range tests {
		synctest.Test(t, func(t *testing.T) {
			p, lines, said := banning(t, nil)
			for n := range 40 {
				if err := play(t, p, lines, allIn, user(n, n%4)); err != nil {
					t.Fatal(err)
				}
			}
			for n := range 40 {
				script, req := next(n)
				err := play(t, p, lines, script, req)
				if errors.Is(err, errBanned) || p.members[0].server.ban.believed(p.backends.now()) {
					t.Fatalf("%s: login %d is taken for a ban: %v", name, n, err)
				}
			}
			if strings.Contains(said.String(), "banned") {
				t.Errorf("%s: got the log %s", name, said)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		p, lines, _ := banning(t, nil)
		for n := range 40 {
			_ = play(t, p, lines, allIn, user(n, n%4))
		}
		for n := range 40 {
			refused(t, play(t, p, lines, nobody, user(n, n%4)), WrongPassword)
			<-time.After(banWindow / 3)
		}
		<-time.After(goodFor)
		for n := range 40 {
			refused(t, play(t, p, lines, nobody, user(n, n%4)), WrongPassword)
		}
	})
}

// TestBanPassesServerOver holds that other servers take over where there are any.
func TestBanPassesServerOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, lines, _ := switching(t, config("one.example.org", "two.example.org"))
		home := p.order(nil, request().Account)[0].member
		at := func(n int) *Request { return user(n, n%4) }
		// Only accounts whose home is that server.
		var theirs []int
		for n := 0; len(theirs) < 6; n++ {
			if p.order(nil, at(n).Account)[0].member == home {
				theirs = append(theirs, n)
			}
		}
		for i, n := range theirs {
			req := at(n)
			req.Client.Addr = from(fmt.Sprintf("10.1.%d.1:1", i)).Client.Addr
			if err := play(t, p, lines, allIn, req); err != nil {
				t.Fatal(err)
			}
		}
		for i, n := range theirs {
			req := at(n)
			req.Client.Addr = from(fmt.Sprintf("10.1.%d.1:1", i)).Client.Addr
			err := play(t, p, lines, nobody, req)
			if (err == nil) != (i == 5) {
				t.Errorf("login %d: got %v, want the last to get in at the other server", i, err)
			}
		}
	})
}

// TestNoLongerInformed holds that a server that took clients' addresses, and no longer does, is trouble; and that one which
// never did is a matter of its setup, which the log has.
func TestNoLongerInformed(t *testing.T) {
	for _, taken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := config("one.example.org")
			c.ClientInfo = ClientXClient
			p, said := advised(t, c)
			a := attempt{pool: p, member: p.members[0], req: request()}
			if taken {
				a.informed()
			}
			if err := a.xclient(t.Context()); err != nil { // the greeting has not offered it
				t.Fatal(err)
			}
			trouble := p.backends.Trouble()
			if (len(trouble) == 1) != taken || strings.Contains(said.String(), "no longer takes") != taken {
				t.Errorf("taken before: %v: got trouble %q, the log %s", taken, trouble, said)
			}
			other := c
			other.ClientInfo = ClientNone
			if got := p.backends.Trouble(); taken && !strings.Contains(got[0], "client_info: xclient") {
				t.Errorf("got trouble %q", got)
			}
			use(t, p.backends, other)
			if got := p.backends.Trouble(); len(got) != 0 {
				t.Errorf("where clients' addresses are not sent: got trouble %q", got)
			}
			use(t, p.backends, c)
			a.informed()
			if got := p.backends.Trouble(); len(got) != 0 {
				t.Errorf("taken again: got trouble %q", got)
			}
		})
	}
}

// TestProxyNoLongerTaken holds the same of PROXY headers: a check that is turned away finds out, no client can.
func TestProxyNoLongerTaken(t *testing.T) {
	c := config("one.example.org")
	c.ClientInfo = ClientProxyV1
	p := pool(t, c)
	piped(t, p, script("C: PROXY TCP4 192.0.2.7 192.0.2.1 50123 995\n"+allIn))
	conn, err := p.Login(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	piped(t, p, script("C: PROXY TCP4 192.0.2.7 192.0.2.1 50123 995\nclose"))
	if _, err := p.Login(t.Context(), request()); err == nil || len(p.backends.Trouble()) != 0 {
		t.Errorf("got %v; a client has brought about the trouble %q", err, p.backends.Trouble())
	}
	piped(t, p, script("C: PROXY UNKNOWN\nclose"))
	p.checkServer(t.Context(), p.members[0])
	if got := strings.Join(p.backends.Trouble(), "\n"); !strings.Contains(got, "no longer takes clients' addresses") {
		t.Errorf("got the trouble %q", got)
	}
}

func BenchmarkFingerprint(b *testing.B) {
	p := pool(b, config("10.0.0.1"))
	a := attempt{pool: p, member: p.members[0], req: request(), secret: []byte("secret")}
	b.ReportAllocs()
	for b.Loop() {
		g := &p.backends.good
		g.note(g.fingerprint(&a), time.Hour)
	}
}

// TestBannedMoving holds that users who were moved away from a server, all in one night, do not make it look as if it had
// banned popgate: each would be kept from the server that has the mailbox now.
func TestBannedMoving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, lines, _ := banning(t, nil)
		for n := range 20 {
			if err := play(t, p, lines, allIn, user(n, n%4)); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 20 {
			req := user(n, n%4)
			req.Moving = true
			refused(t, play(t, p, lines, nobody, req), WrongPassword)
		}
		if s := p.backends.Status()[0].Servers[0]; s.State != StateUp {
			t.Errorf("got the state %q", s.State)
		}
	})
}

// TestGoodLogins holds that most of an ISP's users are known by the time that they come again, and that a day's bound and
// another fingerprint are not.
func TestGoodLogins(t *testing.T) {
	const users = 300_000
	var g goodLogins
	random := rand.New(rand.NewPCG(1, 2))
	prints := make([]uint64, users)
	for i := range prints {
		prints[i] = random.Uint64()
		g.note(prints[i], time.Hour)
	}
	known, strangers := 0, 0
	for _, print := range prints {
		if g.knows(print, 2*time.Hour) {
			known++
		}
		if g.knows(print, 26*time.Hour) || g.knows(random.Uint64(), time.Hour) {
			strangers++
		}
	}
	if known < users*95/100 || strangers != 0 {
		t.Errorf("of %d users %d are known, and %d that should not be", users, known, strangers)
	}
	if n := len(g.table.Load().slots); n != mostGood {
		t.Errorf("the table has %d slots, want it grown to %d", n, mostGood)
	}
}

// TestGoodLoginsFew holds that a few users take little memory, and are all but all known whatever the table grew through meanwhile.
func TestGoodLoginsFew(t *testing.T) {
	const users = 2000
	var g goodLogins
	random := rand.New(rand.NewPCG(1, 2))
	prints := make([]uint64, users)
	for i := range prints {
		prints[i] = random.Uint64()
		g.note(prints[i], time.Hour)
	}
	known := 0
	for _, print := range prints {
		if g.knows(print, 2*time.Hour) {
			known++
		}
	}
	if n := len(g.table.Load().slots); n > 8*users || known < users*99/100 {
		t.Errorf("%d slots for %d users, %d of them known", n, users, known)
	}
}
