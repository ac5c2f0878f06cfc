package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/proxy/pop3"
)

const capaScript = "S: +OK ready\nC: CAPA\nS: +OK\nS: TOP\nS: uidl\nS: USER\nS: PIPELINING\nS: EXPIRE 30\n" +
	"S: IMPLEMENTATION old\nS: SASL PLAIN\nS: UTF8\nS: .\nC: QUIT\nS: +OK"

// running makes a Backends whose servers are reached by dial, and runs it until the test's end.
func running(t *testing.T, dial func(a address) (net.Conn, error), configs ...Config) (*Backends, *View) {
	t.Helper()
	b := New(nil, nil)
	b.dial = func(_ context.Context, _ *dialer, a address) (net.Conn, error) { return dial(a) }
	b.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
	}
	v := use(t, b, configs...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b, v
}

// answer serves one connection by a script.
func answer(t *testing.T, lines string) net.Conn {
	near, far := net.Pipe()
	s := script(lines)
	s.t = t
	go s.serve(far)
	return near
}

func TestCapabilities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scripts := map[string]string{
			"one.example.org": capaScript,
			"two.example.org": "S: +OK\nC: CAPA\nS: +OK\nS: UIDL\nS: EXPIRE 30\nS: TOP\nS: STLS\nS: USER\nS: LOGIN-DELAY 9\n" +
				"S: .\nC: QUIT\nS: +OK",
			"drained.example.org": "S: +OK\nC: CAPA\nS: +OK\nS: .\nC: QUIT\nS: +OK",
		}
		one, two := config("one.example.org", "drained.example.org"), config("two.example.org")
		one.Servers[1].Weight = 0
		two.Name = "new"
		b, v := running(t, func(a address) (net.Conn, error) { return answer(t, scripts[a.host]), nil }, one, two)
		want := func(v *View, lines ...string) {
			t.Helper()
			if got := v.Capabilities(); !slices.Equal(got, lines) {
				t.Errorf("got %q, want %q", got, lines)
			}
		}
		want(v, "TOP", "UIDL") // nobody has answered
		<-time.After(2 * time.Second)
		synctest.Wait()
		want(v, "EXPIRE 30", "TOP", "UIDL")
		for _, s := range v.Status() {
			if s.Up() != 1 {
				t.Errorf("%+v: got %d up, want 1", s, s.Up())
			}
		}

		next, err := b.Prepare([]Config{one})
		if err != nil {
			t.Fatal(err)
		}
		want(next, "EXPIRE 30", "PIPELINING", "TOP", "UIDL") // what is known outlives a reload
		scripts["one.example.org"] = "S: +OK\nC: CAPA\nS: -ERR what\nC: QUIT\nS: +OK"
		b.Use(next)
		<-time.After(2 * time.Second)
		synctest.Wait()
		want(next, "TOP", "UIDL")
		if got := next.Status()[0].Servers[0]; got.Weight != 1 || !slices.Equal(got.Capabilities, pop3.Capabilities{"TOP", "UIDL"}) {
			t.Errorf("got the status %+v", got)
		}
		want(&View{})
	})
}

// TestChecksFollowHealth holds how often a server is asked, and what an answer or none does to it.
func TestChecksFollowHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var checks atomic.Int64
		_, v := running(t, func(address) (net.Conn, error) {
			checks.Add(1)
			if !up.Load() {
				return nil, errors.New("no route to host")
			}
			return answer(t, capaScript), nil
		}, config("mail.example.org"))
		is := func(want int, from, to int64) {
			t.Helper()
			synctest.Wait()
			if got := v.Status()[0].Up(); got != want {
				t.Errorf("%d servers up, want %d", got, want)
			}
			if n := checks.Swap(0); n < from || n > to {
				t.Errorf("%d checks, want %d to %d", n, from, to)
			}
		}
		<-time.After(time.Second)
		is(0, 1, 1)
		<-time.After(time.Minute)
		is(0, 4, 8) // every retry_after or so
		up.Store(true)
		<-time.After(15 * time.Second)
		is(1, 1, 1)
		<-time.After(time.Hour)
		is(1, 9, 16) // every five minutes or so
		v.Pool("old").members[0].server.suspect()
		<-time.After(time.Second)
		is(1, 1, 2)
		for range 1000 { // many logins that fail are no storm of checks
			v.Pool("old").members[0].server.suspect()
			<-time.After(10 * time.Millisecond)
		}
		is(1, 5, 11)
	})
}

// TestCheckSaysWhatLoginsWillMeet holds that refused plaintext is known before the first user fails.
func TestCheckSaysWhatLoginsWillMeet(t *testing.T) {
	tests := []struct {
		name, script string
		change       func(*Config)
		says         string
	}{
		{"Dovecot's default", "S: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: SASL\nS: UIDL\nS: .\nC: QUIT\nS: +OK", nil,
			"refuses plaintext"},
		{"refused CAPA", "S: +OK\nC: CAPA\nS: -ERR TLS required\nC: QUIT\nS: +OK", nil, "refuses plaintext"},
		{"USER is there", "S: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: USER\nS: .\nC: QUIT\nS: +OK", nil, ""},
		{"no STLS", "S: +OK\nC: CAPA\nS: +OK\nS: UIDL\nS: .\nC: QUIT\nS: +OK", nil, ""},
		{"behind PROXY", "C: PROXY UNKNOWN\nS: +OK\nC: CAPA\nS: +OK\nS: STLS\nS: .\nC: QUIT\nS: +OK",
			func(c *Config) { c.ClientInfo = ClientProxyV1 }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config(script(tt.script).listen(t))
			if tt.change != nil {
				tt.change(&c)
			}
			log, said := logger()
			p := use(t, New(log, nil), c).Pool("old")
			p.checkServer(t.Context(), p.members[0])
			p.checkServer(t.Context(), p.members[0])
			if n := p.members[0].server.counts.checked.Load(); n != 2 {
				t.Errorf("%d checks succeeded, want 2", n)
			}
			want := 1
			if tt.says == "" {
				want = 0
			}
			got := said.String()
			if strings.Count(got, "fix=") != want || !strings.Contains(got, tt.says) {
				t.Errorf("got the log %s, want %q in it, once", got, tt.says)
			}
		})
	}
}

func TestCheckFails(t *testing.T) {
	for lines, up := range map[string]bool{
		"close":                  false,
		"S: -ERR busy\nclose":    false,
		"S: +OK\nC: CAPA\nclose": true, // it greeted, and lives
		"S: +OK\nC: CAPA\nS: +OK\nS* \"" + strings.Repeat("X\\r\\n", 65) + "\"": true,
		"S: +OK\nC: CAPA\nS* \"+OK\\r\\n" + strings.Repeat("x", 3000) + "\"":    true,
	} {
		p := pool(t, config(script(lines).listen(t)))
		s := p.members[0].server
		p.checkServer(t.Context(), p.members[0])
		if s.counts.failed.Load() != 1 || s.caps.Load() != nil || s.up() != up {
			t.Errorf("%.40q: failed %d times, up %v", lines, s.counts.failed.Load(), s.up())
		}
		if len(s.poke) != 0 {
			t.Errorf("%.40q: a check asks for a check", lines)
		}
	}
}

// TestCheckEndsWithContext holds that a stop in the middle of a check says nothing about the server.
func TestCheckEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, config("mail.example.org"))
		piped(t, p, script("hang"))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		p.checkServer(ctx, p.members[0])
		if time.Since(start) != time.Second || !p.members[0].server.up() {
			t.Errorf("took %v, up %v", time.Since(start), p.members[0].server.up())
		}
	})
}

// TestPlaintextOverPublicNetwork holds that a server with a name is warned of once, and that Hints is left to warn of one
// that is written by its address.
func TestPlaintextOverPublicNetwork(t *testing.T) {
	tests := []struct {
		server, tls, ip string
		want            int
	}{
		{"mail.example.org", TLSNone, "192.0.2.9", 1},
		{"mail.example.org", TLSNone, "2001:db8::1", 1},
		{"mail.example.org", TLSStart, "192.0.2.9", 0},
		{"mail.example.org", TLSNone, "10.1.2.3", 0},
		{"mail.example.org", TLSNone, "127.0.0.1", 0},
		{"mail.example.org", TLSNone, "fd00::1", 0},
		{"192.0.2.9", TLSNone, "192.0.2.9", 0},
	}
	for _, tt := range tests {
		c := config(tt.server)
		c.TLS = tt.tls
		p, said := advised(t, c)
		for range 2 {
			a := attempt{pool: p, member: p.members[0], wire: wire{raw: &remote{addr: &net.TCPAddr{IP: net.ParseIP(tt.ip)}}}}
			a.warnPublic()
		}
		got := said.String()
		if n := strings.Count(got, "plaintext"); n != tt.want || strings.Count(got, "level=WARN") != tt.want {
			t.Errorf("%+v: got the log %s, want a warning %d times", tt, got, tt.want)
		}
	}
}

type remote struct {
	net.Conn
	addr net.Addr
}

func (r *remote) RemoteAddr() net.Addr { return r.addr }

// TestCapabilitiesNews holds that a check without news computes nothing, since thousands of servers may be checked at once,
// and that news that came between Prepare and Use is in the view.
func TestCapabilitiesNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config("mail.example.org")
		b, v := running(t, func(address) (net.Conn, error) { return answer(t, capaScript), nil }, c)
		next, err := b.Prepare([]Config{c})
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(checkSpread)
		synctest.Wait()
		known := v.caps.Load()
		if !known.Has("PIPELINING") {
			t.Fatalf("got %q", *known)
		}
		v.list[0].members[0].server.suspect()
		<-time.After(2 * checkGap)
		if v.caps.Load() != known {
			t.Error("computed anew without news")
		}
		b.Use(next)
		if !next.Capabilities().Has("PIPELINING") {
			t.Errorf("got %q in the next view", next.Capabilities())
		}
	})
}

// TestRefreshAtOnce holds that the last news is in the capabilities, however many come at once.
func TestRefreshAtOnce(t *testing.T) {
	c := config()
	for i := range 8 {
		c.Servers = append(c.Servers, ServerConfig{Address: fmt.Sprintf("192.0.2.%d", i+1), Weight: 1})
	}
	v := use(t, New(nil, nil), c)
	for range 200 {
		var news sync.WaitGroup
		for _, m := range v.list[0].members {
			m.server.caps.Store(&oldCapabilities)
		}
		v.refresh()
		for _, m := range v.list[0].members {
			news.Go(func() {
				m.server.caps.Store(&pop3.Capabilities{"PIPELINING", "TOP"})
				v.refresh()
			})
		}
		news.Wait()
		if !v.Capabilities().Has("PIPELINING") {
			t.Fatalf("got %q", v.Capabilities())
		}
	}
}
