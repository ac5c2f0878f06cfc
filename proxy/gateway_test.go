package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/audit"
)

// At a shutdown, who has not logged in is told so and goes, whatever he is waiting for; relays run on; who connects
// finds nobody.
func TestShutdown(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	waiting := r.dial()
	waiting.expect("+OK POP3 ready")
	asked := r.dial()
	asked.expect("+OK POP3 ready")
	asked.send("AUTH PLAIN\r\n")
	asked.expect("+ ")
	silent := r.plain() // in its handshake
	waitFor(t, func() bool { return r.gw.Sessions() == 4 })
	done := make(chan error, 1)
	go func() { done <- r.gw.Shutdown(context.Background()) }()
	for _, c := range []*client{waiting, asked} {
		c.expect("-ERR [SYS/TEMP] The server is going down, try again later")
		c.ends(true)
		c.conn.Close()
	}
	silent.ends(false)
	silent.conn.Close()
	for range 3 {
		r.closed(audit.Shutdown)
	}
	if late, err := net.Dial("tcp", r.addr); err == nil {
		late.Close()
		t.Error("the listener is still open")
	}
	c.send("RETR 1\r\n")
	b.reads("RETR 1\r\n")
	b.say("+OK\r\n.\r\n")
	c.expect("+OK", ".")
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned with a relay at work: %v", err)
	default:
	}
	c.send("QUIT\r\n")
	b.reads("QUIT\r\n")
	b.say("+OK bye\r\n")
	b.conn.Close()
	c.expect("+OK bye")
	c.ends(true)
	c.conn.Close()
	if err := receive(t, done, "the end of Shutdown"); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	r.closed(audit.ClientQuit)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.gw.Serve(context.Background(), ln, "here"); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve after Shutdown left its listener open: %v", err)
	}
}

// waitFor asks again and again until cond holds, for what tells nobody when it happens.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for late := time.After(until()); !cond(); {
		select {
		case <-again.C:
		case <-late:
			t.Fatal("what is waited for did not happen")
		}
	}
}

// What has not ended when the grace is over is cut: relays, and logins that wait for their backend.
func TestShutdownCuts(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	loggingIn := r.dial()
	loggingIn.expect("+OK POP3 ready")
	loggingIn.send("USER alice@example.org\r\nPASS secret\r\n")
	silent := server.next(t) // it never greets
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.gw.Shutdown(ctx) }()
	select {
	case err := <-done:
		t.Fatalf("Shutdown did not wait: %v", err)
	default:
	}
	cancel()
	c.ends(false)
	b.ends()
	b.conn.Close()
	silent.ends()
	if err := receive(t, done, "the end of Shutdown"); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v, want the end of its context", err)
	}
	got := map[audit.Name][]audit.Reason{}
	for range 3 {
		e := r.next()
		got[e.Name] = append(got[e.Name], e.Reason)
	}
	if l := got[audit.LoginRefused]; len(l) != 1 || l[0] != audit.Shutdown {
		t.Errorf("the login's record: %v", l)
	}
	if s := got[audit.SessionClosed]; len(s) != 2 {
		t.Errorf("the sessions' records: %v", s)
	}
}

// A login that is under way when the shutdown begins goes on, and so does its session.
func TestShutdownDuringLogin(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.send("USER alice@example.org\r\nPASS secret\r\n")
	b := server.next(t)
	done := make(chan error, 1)
	go func() { done <- r.gw.Shutdown(context.Background()) }()
	<-r.gw.closing
	b.say("+OK ready\r\n")
	b.reads("USER alice@example.org\r\n")
	b.say("+OK\r\n")
	b.reads("PASS secret\r\n")
	b.say("+OK\r\n")
	c.expect("+OK", "+OK Logged in")
	c.send("NOOP\r\n")
	b.reads("NOOP\r\n")
	b.conn.Close()
	c.ends(true)
	c.conn.Close()
	if err := receive(t, done, "the end of Shutdown"); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// A refused login does not hold the shutdown up until its tick.
func TestShutdownDuringDelay(t *testing.T) {
	r := start(t, "127.0.0.1:1", func(s *settings) { s.delay = time.Hour })
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.send("USER nobody@example.net\r\nPASS secret\r\n")
	r.next()
	done := make(chan error, 1)
	go func() { done <- r.gw.Shutdown(context.Background()) }()
	c.expect("+OK", "-ERR [AUTH] Wrong user name or password", "-ERR [SYS/TEMP] The server is going down, try again later")
	c.ends(true)
	c.conn.Close()
	if err := receive(t, done, "the end of Shutdown"); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// A listener closed by somebody else ends its Serve, and the sessions go on.
func TestServeListenerClosed(t *testing.T) {
	r := newRig(t, defaults("127.0.0.1:1"))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- r.gw.Serve(context.Background(), ln, "here") }()
	defer r.gw.Close()
	c := r.dial()
	c.expect("+OK POP3 ready")
	ln.Close()
	if err := receive(t, served, "the end of Serve"); !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve: %v, want net.ErrClosed", err)
	}
	c.send("QUIT\r\n")
	c.expect("+OK Bye")
	c.conn.Close()
}

// faulty is a listener whose Accept fails a number of times, then waits for its Close.
type faulty struct {
	net.Listener
	fails  int
	failed []time.Time
	closed chan struct{}
}

func (f *faulty) Accept() (net.Conn, error) {
	f.failed = append(f.failed, time.Now())
	if len(f.failed) <= f.fails {
		return nil, errors.New("too many open files")
	}
	<-f.closed
	return nil, net.ErrClosed
}

func (f *faulty) Close() error {
	select {
	case <-f.closed:
	default:
		close(f.closed)
	}
	return nil
}

func TestAcceptBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := defaults("127.0.0.1:1")
		reg := prometheus.NewRegistry()
		s.registry = reg
		r := newRig(t, s)
		ln := &faulty{fails: 12, closed: make(chan struct{})}
		served := make(chan error)
		go func() { served <- r.gw.Serve(context.Background(), ln, "here") }()
		time.Sleep(time.Minute)
		r.gw.Close()
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
		want := 5 * time.Millisecond
		for i := 1; i <= ln.fails; i++ {
			if got := ln.failed[i].Sub(ln.failed[i-1]); got != want {
				t.Errorf("pause %d is %v, want %v", i, got, want)
			}
			want = min(2*want, time.Second)
		}
		if got := testutil.ToFloat64(r.gw.metrics.accept.errors); got != 12 {
			t.Errorf("%v errors counted, want 12", got)
		}
	})
}

// The back-off of a listener that never works yields to the end.
func TestAcceptBackOffYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, defaults("127.0.0.1:1"))
		ln := &faulty{fails: 1 << 30, closed: make(chan struct{})}
		served := make(chan error)
		go func() { served <- r.gw.Serve(context.Background(), ln, "here") }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		began := time.Now()
		r.gw.Close()
		if err := <-served; !errors.Is(err, ErrServerClosed) || time.Since(began) != 0 {
			t.Errorf("Serve: %v after %v", err, time.Since(began))
		}
	})
}

// panicking is a router with a slip in it.
type panicking struct{ routes }

func (p panicking) Route(ctx context.Context, q auth.Query) (auth.Route, error) {
	if strings.HasPrefix(q.Name.Local, "panic") {
		panic("a slip")
	}
	return p.routes.Route(ctx, q)
}

// A slip in one session ends that one, with a record, a line in the log and a count, and gives back what it held.
func TestPanic(t *testing.T) {
	reg := prometheus.NewRegistry()
	server := listen(t)
	r := start(t, server.address, func(s *settings) {
		s.router, s.registry = panicking{}, reg
		s.limits.Sessions = 2
	})
	c, b := r.connected(server)
	for range 3 {
		other := r.dial()
		other.expect("+OK POP3 ready")
		other.send("USER panic@example.org\r\nPASS secret\r\n")
		e := r.closed(audit.Internal)
		if e.End == nil {
			t.Error("no end on record")
		}
		c.arm()
		_, _ = io.ReadAll(other.conn)
	}
	r.log.has(t, "ERROR session ended by a fault in popgate", "panic=a slip", "login.go")
	if got := testutil.ToFloat64(r.gw.metrics.panics); got != 3 {
		t.Errorf("%v panics counted", got)
	}
	c.send("NOOP\r\n")
	b.reads("NOOP\r\n")
	b.conn.Close()
	c.ends(true)
	c.conn.Close()
	r.closed(audit.BackendClosed)
}

// A slip in the relay, in either direction, closes both its connections.
func TestPanicInRelay(t *testing.T) {
	slip := func([]byte) (int, error) { panic("a slip") }
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		r := b.session.relay
		r.conn.Conn = &fakeConn{Conn: r.conn.Conn, write: slip}
		b.client.send("NOOP\r\n")
		b.client.ends(false)
		b.closed(audit.Internal)
		b.backend.ends()
		b.log.has(t, "panic=a slip", "relay.go")
	})
	inBubble(t, nil, func(t *testing.T, b *bubble) {
		b.session.conn = &fakeConn{Conn: b.session.conn, write: slip}
		b.backend.say("+OK\r\n")
		b.backend.ends()
		b.closed(audit.Internal)
		b.client.ends(false)
		if _, err := io.WriteString(b.backend.conn, "x"); err == nil {
			t.Error("the backend's connection is still open")
		}
	})
}

// A gateway keeps its promise towards reload: a session goes by the snapshot that it began with.
func TestApplyKeepsSessions(t *testing.T) {
	r := start(t, "127.0.0.1:1")
	c := r.dial()
	c.expect("+OK POP3 ready")
	other := *r.snap
	other.Bounds.BadCommands = 1
	r.gw.Apply(&other)
	c.send("X\r\nX\r\nX\r\nX\r\n")
	c.expect("-ERR Unknown command", "-ERR Unknown command", "-ERR Unknown command", "-ERR Unknown command")
	c.conn.Close()
	r.closed(audit.ClientGone)
	c = r.dial()
	c.send("X\r\n")
	c.expect("+OK POP3 ready", "-ERR Too many bad commands")
	c.ends(true)
	c.conn.Close()
	gone := other
	gone.Listeners = nil // a connection that comes to a listener that has just been removed
	r.gw.Apply(&gone)
	late := r.plain()
	late.ends(false)
}

// Addresses are IPv4 or IPv6, never one in the other.
func TestClientAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:0": "127.0.0.1:", "[::1]:0": "[::1]:", "[::]:0": "127.0.0.1:",
	} {
		r := newRig(t, defaults("127.0.0.1:1"))
		r.listen(address)
		r.addr = strings.Replace(r.addr, "[::]", "127.0.0.1", 1)
		c := r.dial()
		c.tlsFacts(r)
		r.log.has(t, "client="+want)
	}
}

func TestIDs(t *testing.T) {
	a, b := newIDs(), newIDs()
	seen := map[string]bool{}
	for range 100 {
		for _, id := range []string{a.next(), b.next()} {
			if len(id) != 16 || seen[id] || strings.Trim(id, "0123456789abcdefghjkmnpqrstvwxyz") != "" {
				t.Errorf("id %q", id)
			}
			seen[id] = true
		}
	}
}
