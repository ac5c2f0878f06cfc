package backend

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// from is the usual request, from a client's address.
func from(address string) *Request {
	req := request()
	req.Client.Addr = netip.MustParseAddrPort(address)
	return req
}

const hangs = "S: +OK\nC: USER alice@example.org\nS: +OK\nC: PASS secret\nhang"

// switching makes a pool of a server whose script can be changed, and one that takes all.
func switching(t *testing.T, c Config) (p *Pool, lines *atomic.Pointer[string], said *logBuffer) {
	t.Helper()
	p, said = advised(t, c)
	lines = &atomic.Pointer[string]{}
	home := p.order(nil, request().Account)[0].address
	p.backends.dial = func(_ context.Context, _ *dialer, a address) (net.Conn, error) {
		if a == home {
			return answer(t, *lines.Load()), nil
		}
		return answer(t, loginScript), nil
	}
	return p, lines, said
}

// TestBreaker holds that a server that fails many networks is passed over, tried again by one login, and taken back when that
// one succeeds.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, lines, said := switching(t, config("one.example.org", "two.example.org"))
		home := p.order(nil, request().Account)[0].member
		bad, good := hangs, loginScript
		lines.Store(&bad)
		for i := range 5 {
			if !home.server.up() {
				t.Fatalf("the server is passed over after %d networks", i)
			}
			_, err := p.Login(t.Context(), from(fmt.Sprintf("192.0.%d.7:1234", i)))
			refused(t, err, Temporary)
		}
		logIn := func(want string) {
			t.Helper()
			c, err := p.Login(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			if c.Server != want {
				t.Errorf("logged in at %s, want %s", c.Server, want)
			}
		}
		other := p.order(nil, request().Account)[1].address.text
		if home.server.up() || home.server.counts.opened.Load() != 1 {
			t.Error("the server is not passed over")
		}
		logIn(other)
		lines.Store(&good)
		logIn(other)
		<-time.After(p.config.RetryAfter)
		logIn(home.address.text)
		logIn(home.address.text)
		if got := said.String(); strings.Count(got, "fails logins") != 1 || strings.Count(got, "takes logins again") != 1 {
			t.Errorf("got the log %s", got)
		}
	})
}

// TestBreakerAndAttackers holds that nobody can take a server out alone: neither a tarpitted attacker, however many
// addresses he has side by side, nor many as long as users get in.
func TestBreakerAndAttackers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, lines, _ := switching(t, config("one.example.org", "two.example.org"))
		home := p.order(nil, request().Account)[0].member
		bad, good := hangs, loginScript
		for i := range 40 {
			lines.Store(&bad)
			for _, a := range []string{fmt.Sprintf("192.0.2.%d:1", i), fmt.Sprintf("[2001:db8:0:%x::1]:1", i)} {
				_, err := p.Login(t.Context(), from(a))
				refused(t, err, Temporary)
			}
		}
		if !home.server.up() {
			t.Fatal("an attacker has taken the server out")
		}
		for i := range 40 {
			_, err := p.Login(t.Context(), from(fmt.Sprintf("10.0.%d.1:1", i)))
			refused(t, err, Temporary)
			if i%2 == 1 {
				lines.Store(&good)
				c, err := p.Login(t.Context(), request())
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				lines.Store(&bad)
			}
		}
		if !home.server.up() {
			t.Fatal("attackers have taken the server out while users got in")
		}
		// Nor do failures count that are long ago.
		for i := range 20 {
			_, err := p.Login(t.Context(), from(fmt.Sprintf("10.1.%d.1:1", i)))
			refused(t, err, Temporary)
			<-time.After(2 * time.Minute)
		}
		if !home.server.up() {
			t.Error("old failures have taken the server out")
		}
	})
}

// TestBreakerCounts holds what counts as a failure of the server.
func TestBreakerCounts(t *testing.T) {
	const pass = "S: +OK\nC: USER alice@example.org\nS: +OK\nC: PASS secret\n"
	for lines, counts := range map[string]bool{
		hangs:                                      true,
		pass + "close":                             true,
		pass + "S: -ERR [SYS/TEMP] no":             true,
		pass + "S: * BYE":                          true,
		pass + "S: -ERR [AUTH] no":                 false,
		pass + "S: -ERR [IN-USE] no":               false,
		pass + "S: -ERR [SYS/PERM] no":             false,
		pass + "S: -ERR [LOGIN-DELAY] no":          false,
		"close":                                    false, // it is dead then, or a client has brought it about
		"S: +OK\nC: USER alice@example.org\nclose": true,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := pool(t, config("one.example.org"))
			piped(t, p, script(lines))
			if _, err := p.Login(t.Context(), request()); err == nil {
				t.Fatal("logged in")
			}
			if got := len(p.members[0].server.breaker.failed) == 1; got != counts {
				t.Errorf("%q counts: %v, want %v", lines, got, counts)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := config("one.example.org")
		c.BreakerNetworks = 0
		p := pool(t, c)
		piped(t, p, script(hangs))
		_, err := p.Login(t.Context(), request())
		if refused(t, err, Temporary); len(p.members[0].server.breaker.failed) != 0 {
			t.Error("breaker_networks: 0 counts")
		}
	})
}

func probing(t *testing.T, c *Config, password string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Check.Type, c.Check.User, c.Check.PasswordFile = CheckLogin, "probe", file
}

// TestProbeLogin holds what a check that logs in makes of the answers.
func TestProbeLogin(t *testing.T) {
	const capa = "S: +OK\nC: CAPA\nS: +OK\nS: USER\nS: .\n"
	const login = capa + "C: USER probe\nS: +OK\nC: PASS open sesame\n"
	for _, tt := range []struct {
		script string
		up     bool
		says   string
	}{
		{login + "S: +OK\nC: QUIT\nS: +OK", true, ""},
		{login + "S: -ERR [IN-USE] by another node", true, ""},
		{login + "S: -ERR [AUTH] no", true, "refuses the check's login"},
		{login + "S: -ERR [SYS/TEMP] the database is down", false, ""},
		{login + "close", false, ""},
		{capa + "C: USER probe\nS: -ERR TLS required", false, "refuses plaintext"},
		{"close", false, ""},
	} {
		c := config(script(tt.script).listen(t))
		probing(t, &c, "open sesame\r\nand what stands below")
		p, said := advised(t, c)
		s := p.members[0].server
		p.checkServer(t.Context(), p.members[0])
		if s.up() != tt.up {
			t.Errorf("%q: up is %v, want %v", tt.script, s.up(), tt.up)
		}
		saidOnce(t, said, tt.says)
		if strings.Contains(said.String(), "sesame") {
			t.Errorf("the log has the password: %s", said)
		}
	}
}

// TestProbeRecovers holds that a server that failed the check's login is back when that succeeds, and not by a greeting.
func TestProbeRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config("one.example.org")
		probing(t, &c, "x")
		const before = "S: +OK\nC: CAPA\nS: -ERR\nC: USER probe\nS: +OK\nC: PASS x\n"
		var lines atomic.Pointer[string]
		bad, good := before+"S: -ERR [SYS/TEMP] no", before+"S: +OK\nC: QUIT\nS: +OK"
		lines.Store(&bad)
		_, v := running(t, func(address) (net.Conn, error) { return answer(t, *lines.Load()), nil }, c)
		up := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if got := v.Status()[0].Up(); got != want {
				t.Errorf("%s: %d servers are up, want %d", when, got, want)
			}
		}
		<-time.After(2 * time.Second)
		up("at first", 0)
		<-time.After(time.Minute)
		up("a minute later", 0)
		lines.Store(&good)
		<-time.After(15 * time.Second)
		up("in the end", 1)
	})
}

// TestCheckGreeting holds that a check that only waits for the greeting asks nothing else.
func TestCheckGreeting(t *testing.T) {
	c := config(script("S: +OK\nC: QUIT\nS: +OK").listen(t))
	c.Check.Type = CheckGreeting
	p := pool(t, c)
	p.checkServer(t.Context(), p.members[0])
	if s := p.members[0].server; s.counts.checked.Load() != 1 || s.caps.Load() != nil {
		t.Errorf("%d checks succeeded, capabilities %v", s.counts.checked.Load(), s.caps.Load())
	}
}

func TestCheckInterval(t *testing.T) {
	for interval, want := range map[time.Duration][2]int64{0: {1, 1}, time.Minute: {50, 75}} {
		synctest.Test(t, func(t *testing.T) {
			c := config("one.example.org")
			c.Check.Interval = interval
			var checks atomic.Int64
			running(t, func(address) (net.Conn, error) {
				checks.Add(1)
				return answer(t, capaScript), nil
			}, c)
			<-time.After(time.Hour)
			if n := checks.Load(); n < want[0] || n > want[1] {
				t.Errorf("interval %v: %d checks in an hour, want %v", interval, n, want)
			}
		})
	}
}

func TestProbePasswordFile(t *testing.T) {
	for _, password := range []string{"", "\nsecond", "a\x00b"} {
		c := config("10.0.0.1")
		probing(t, &c, password)
		if _, err := New(nil, nil).Prepare([]Config{c}); err == nil || !strings.Contains(err.Error(), "check.password_file") {
			t.Errorf("%q: got %v", password, err)
		}
	}
	c := config("10.0.0.1")
	probing(t, &c, "x")
	c.Check.PasswordFile += ".none"
	if _, err := New(nil, nil).Prepare([]Config{c}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}
