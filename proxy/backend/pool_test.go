package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// first returns which server each of n accounts belongs to.
func first(p *Pool, n int) []string {
	servers := make([]string, n)
	for i := range servers {
		servers[i] = p.order(nil, fmt.Sprintf("user%d@example.org", i))[0].address.text
	}
	return servers
}

func TestHashFollowsWeights(t *testing.T) {
	c := config("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
	weights := map[string]float64{"10.0.0.1:110": 1, "10.0.0.2:110": 2, "10.0.0.3:110": 7, "10.0.0.4:110": 0}
	for i := range c.Servers {
		c.Servers[i].Weight = int(weights[c.Servers[i].Address+":110"])
	}
	const n = 20000
	share := map[string]float64{}
	for _, s := range first(pool(t, c), n) {
		share[s] += 1.0 / n
	}
	for s, w := range weights {
		if want := w / 10; math.Abs(share[s]-want) > 0.015 {
			t.Errorf("%s has %.3f of the accounts, want %.3f", s, share[s], want)
		}
	}
}

func TestHashMovesNoOthers(t *testing.T) {
	all := config("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5")
	without := config("10.0.0.5", "10.0.0.3", "10.0.0.2", "10.0.0.1") // order does not matter
	a, b := first(pool(t, all), 5000), first(pool(t, without), 5000)
	moved := 0
	for i := range a {
		switch {
		case a[i] == "10.0.0.4:110":
			moved++
		case a[i] != b[i]:
			t.Fatalf("account %d went from %s to %s", i, a[i], b[i])
		}
	}
	if moved < 800 || moved > 1200 {
		t.Errorf("%d accounts were on the server that went, want about 1000", moved)
	}
}

// TestHashIsFixed holds the hash to what it was: another one moves accounts, and nodes of two versions disagree.
func TestHashIsFixed(t *testing.T) {
	c := config("10.0.0.1", "10.0.0.2", "mail.example.org:1110", "10.0.0.3")
	c.Servers[3].Weight = 0
	c.TLS, c.TLSCA = TLSStart, "not/there.pem" // for a route to be explained, no file is needed
	for account, want := range map[string]string{
		"alice@example.org": "10.0.0.1:110 10.0.0.2:110 mail.example.org:1110",
		"bob@example.org":   "10.0.0.2:110 10.0.0.1:110 mail.example.org:1110",
		"":                  "10.0.0.1:110 mail.example.org:1110 10.0.0.2:110",
	} {
		if got := strings.Join(Order(c, account), " "); got != want {
			t.Errorf("%q: got %s, want %s", account, got, want)
		}
	}
	c.Servers = c.Servers[3:]
	if got := Order(c, "alice@example.org"); got != nil {
		t.Errorf("got %q where all is drained", got)
	}
}

// TestLoginsFollowOrder holds that what Order says is where logins go, default ports included.
func TestLoginsFollowOrder(t *testing.T) {
	c := config("10.0.0.1", "10.0.0.2", "mail.example.org", "10.0.0.3:1995")
	c.TLS = TLSImplicit
	p := pool(t, c)
	var tried []string
	p.backends.dial = func(_ context.Context, _ *dialer, a address) (net.Conn, error) {
		tried = append(tried, a.text)
		return nil, errors.New("no route to host")
	}
	_, err := login(t, p)
	refused(t, err, Down)
	if want := Order(c, request().Account); !slices.Equal(tried, want) {
		t.Errorf("tried %q, want %q", tried, want)
	}
}

// TestDead holds that a dead server is passed over, tried by one login when its time is up, and taken up again.
func TestDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, said := logger()
		b := New(log, nil)
		p := use(t, b, config("one.example.org")).Pool("old")
		spare := &member{server: &server{address: "two"}, address: address{text: "two"}, weight: 1}
		p.members = append(p.members, spare)
		if p.order(nil, request().Account)[0].member == spare {
			p.members[0], p.members[1] = p.members[1], p.members[0]
		}
		home := p.order(nil, request().Account)[0].member
		good := script(loginScript)
		good.t = t
		refuses, tried := true, 0
		b.dial = func(_ context.Context, _ *dialer, a address) (net.Conn, error) {
			if a == home.address {
				tried++
				if refuses {
					return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
				}
			}
			near, far := net.Pipe()
			go good.serve(far)
			return near, nil
		}
		logIn := func(wantTried int) {
			t.Helper()
			c, err := p.Login(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if tried != wantTried {
				t.Errorf("the home server was tried %d times, want %d", tried, wantTried)
			}
		}
		logIn(1)
		logIn(1) // dead
		<-time.After(9 * time.Second)
		logIn(1)
		<-time.After(time.Second)
		logIn(2) // tried, still dead
		logIn(2)
		refuses = false
		<-time.After(10 * time.Second)
		logIn(3)
		logIn(4) // alive
		if got := said.String(); strings.Count(got, "server is down") != 1 || strings.Count(got, "up again") != 1 {
			t.Errorf("got the log %s", got)
		}
	})
}

// TestOneTries holds that of many logins one finds out whether a dead server is back.
func TestOneTries(t *testing.T) {
	var s server
	s.dead(10, 100)
	if s.usable(109, 100) {
		t.Error("a dead server is usable")
	}
	if !s.usable(110, 100) || s.usable(110, 100) || s.usable(209, 100) {
		t.Error("not just one login may try")
	}
	if !s.usable(210, 100) {
		t.Error("nobody may try again when the first has not come back")
	}
	if s.alive(250); !s.usable(0, 100) || !s.up() {
		t.Error("a server that is back is not usable")
	}
	s.dead(300, 0)
	for range 2 {
		if !s.usable(300, 0) {
			t.Error("retry_after: 0 passes a server over")
		}
	}
}

func TestAllDead(t *testing.T) {
	s := script(loginScript)
	p := pool(t, config(s.listen(t)))
	p.members[0].server.dead(p.backends.now(), time.Hour)
	if _, err := login(t, p); err != nil {
		t.Errorf("got %v, want the only server to be tried although it is dead", err)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p := pool(t, config(l.Addr().String(), "name.invalid"))
	_, err = login(t, p)
	refused(t, err, Down)
	if !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "name.invalid:110") {
		t.Errorf("got %q, want both servers' causes", err)
	}
	c := config("10.0.0.1")
	c.Servers[0].Weight = 0
	_, err = login(t, pool(t, c))
	if refused(t, err, Down); !errors.Is(err, errDrained) {
		t.Errorf("got %v, want that all is drained", err)
	}
}

// TestOurOwnWant holds that what we have too little of marks nobody dead; and that a port may be had towards another.
func TestOurOwnWant(t *testing.T) {
	for _, tt := range []struct {
		errno syscall.Errno
		tries int
	}{
		{syscall.EMFILE, 1}, {syscall.ENFILE, 1}, {syscall.ENOBUFS, 1}, {syscall.EADDRNOTAVAIL, 2},
	} {
		p := pool(t, config("10.0.0.1", "10.0.0.2"))
		tries := 0
		p.backends.dial = func(context.Context, *dialer, address) (net.Conn, error) {
			tries++
			return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", tt.errno)}
		}
		_, err := login(t, p)
		refused(t, err, Local)
		if tries != tt.tries {
			t.Errorf("%v: %d servers tried, want %d", tt.errno, tries, tt.tries)
		}
		for _, m := range p.members {
			if !m.server.up() {
				t.Errorf("%v marks %s dead", tt.errno, m.address.text)
			}
		}
	}
}

// TestNoClientMarksDead holds that behind a PROXY header, which a server may dislike for its client, nothing is
// concluded but that a check is due.
func TestNoClientMarksDead(t *testing.T) {
	for _, s := range []string{"close", "S: -ERR your address is blocked\nclose"} {
		c := config(script("C: PROXY TCP4 192.0.2.7 192.0.2.1 50123 995\n" + s).listen(t))
		c.ClientInfo = ClientProxyV1
		p := pool(t, c)
		if _, err := login(t, p); err == nil {
			t.Fatal("logged in")
		}
		if !p.members[0].server.up() {
			t.Errorf("%s: a client has marked a server dead", s)
		}
		select {
		case <-p.members[0].server.poke:
		default:
			t.Errorf("%s: no check is due", s)
		}
	}
}

func TestBusyServerIsSparedShortly(t *testing.T) {
	p := pool(t, config(script("S: -ERR too many connections\nclose").listen(t)))
	_, err := login(t, p)
	refused(t, err, Temporary)
	left := time.Duration(p.members[0].server.deadUntil.Load()) - p.backends.now()
	if left <= 0 || left > busyFor {
		t.Errorf("passed over for %v, want at most %v", left, busyFor)
	}
}

func TestCloseWrite(t *testing.T) {
	s := script(loginScript)
	c, err := login(t, pool(t, config(s.listen(t))))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil { // the server goes when it sees the end
		t.Error(err)
	}
	if err := (&Conn{Conn: &recorder{}}).CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
