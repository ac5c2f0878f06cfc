package proxy

import (
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
)

// downloads has users wait for more than so many octets a second, of which burst may come at once.
func downloads(perSecond, burst int64) func(*settings) {
	return func(s *settings) {
		s.limits = policy.Config{User: limit.UserLimits{Download: limit.Bandwidth{PerSecond: perSecond, Burst: burst}}}
	}
}

// fetch gets the only message of a session that has logged in, and says QUIT right behind RETR.
func (c *client) fetch(message []byte) {
	c.t.Helper()
	want := stuffed(message)
	got := make([]byte, len(want))
	c.send("RETR 1\r\nQUIT\r\n")
	if first := c.line(); !strings.HasPrefix(first, "+OK") {
		c.t.Errorf("RETR: %s", first)
	}
	if n, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
		c.t.Errorf("the message differs (%d of %d octets, %v)", n, len(want), err)
	}
	if last := c.line(); !strings.HasPrefix(last, "+OK") {
		c.t.Errorf("QUIT: %s", last)
	}
	c.ends(true)
	c.conn.Close()
}

// least is how long n octets take that come at a rate, through so many sessions of which each need not wait for its last piece.
func least(n, perSecond, burst int64, sessions int64) time.Duration {
	return time.Duration(n-burst-sessions*chunkSize) * time.Second / time.Duration(perSecond)
}

// A large message comes whole, and not before it may; the QUIT behind it waits for it.
func TestPacedDownload(t *testing.T) {
	for name, change := range map[string]func(*settings){"plain": func(*settings) {}, "TLS to the backend": overTLS} {
		const rate, burst = 16 << 20, 1 << 20
		message := bigMessage(20 << 20)
		address, _ := mail(t, name != "plain", message)
		r := start(t, address, change, downloads(rate, burst))
		c := r.loggedIn()
		began := time.Now()
		c.fetch(message)
		if took, want := time.Since(began), least(int64(len(message)), rate, burst, 1); took < want {
			t.Errorf("%s: it came in %v, want %v at least", name, took, want)
		}
		if got := testutil.ToFloat64(r.gw.metrics.paced.download); got == 0 {
			t.Errorf("%s: no wait was counted", name)
		}
		r.next()
		if e := r.closed(audit.ClientQuit); !e.Quit || e.Retr != 1 {
			t.Errorf("%s: on record: %+v", name, e.End)
		}
	}
}

// Sessions of one user share what is the user's.
func TestPacedTogether(t *testing.T) {
	const rate, burst, sessions = 8 << 20, 1 << 20, 2
	message := string(bigMessage(8 << 20))
	server := listen(t)
	r := start(t, server.address, downloads(rate, burst))
	began := time.Now()
	var all sync.WaitGroup
	for range sessions {
		c, b := r.connected(server)
		all.Go(func() { _, _ = io.WriteString(b.conn, message) }) // the client sees what is missing
		all.Go(func() {
			got := make([]byte, len(message))
			if n, err := io.ReadFull(c.r, got); err != nil || string(got) != message {
				t.Errorf("the message differs (%d of %d octets, %v)", n, len(message), err)
			}
		})
	}
	all.Wait()
	if took, want := time.Since(began), least(sessions*int64(len(message)), rate, burst, sessions); took < want {
		t.Errorf("%d messages came in %v, want %v at least", sessions, took, want)
	}
}

// atOnce sends texts, each in a TLS record of its own, in one write.
func (c *client) atOnce(texts ...string) {
	c.t.Helper()
	var octets []byte
	socket := c.raw.Conn
	c.raw.Conn = &fakeConn{Conn: socket, read: socket.Read, write: func(p []byte) (int, error) {
		octets = append(octets, p...)
		return len(p), nil
	}}
	for _, text := range texts {
		c.send(text)
	}
	c.raw.Conn = socket
	if _, err := socket.Write(octets); err != nil {
		c.t.Fatal(err)
	}
}

// Commands wait for their turn, those of the login among them, and all are answered.
func TestPacedCommands(t *testing.T) {
	const commands, rate, burst = 50, 20, 20
	address, _ := mail(t, false)
	r := start(t, address, func(s *settings) {
		s.limits = policy.Config{User: limit.UserLimits{Commands: limit.Rate{Count: rate, Per: time.Second, Burst: burst}}}
	})
	c := r.loggedIn()
	began := time.Now()
	// More than TLS itself keeps of what is still to come.
	c.atOnce(append(slices.Repeat([]string{"NOOP" + strings.Repeat(" ", 240) + "\r\n"}, commands), "QUIT\r\n")...)
	for i := range commands {
		if i == burst+5 {
			scribble()
		}
		if got := c.line(); !strings.HasPrefix(got, "+OK") {
			t.Fatalf("NOOP: %s", got)
		}
	}
	c.line()
	c.ends(true)
	c.conn.Close()
	// Between the login and began some turns have come back: a second is left for that.
	if took, want := time.Since(began), time.Duration(commands+loginCommands-burst)*time.Second/rate-time.Second/2; took < want {
		t.Errorf("they took %v, want %v at least", took, want)
	}
	r.next()
	r.closed(audit.ClientQuit)
}

// A backend whose connection breaks while its session waits leaves the client a stream that is visibly cut.
func TestPacedBackendResets(t *testing.T) {
	server := listen(t)
	r := start(t, server.address, downloads(64<<10, 64<<10))
	c, b := r.connected(server)
	b.say(strings.Repeat("x", 300<<10))
	if _, err := io.ReadFull(c.r, make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	b.reset()
	c.arm()
	if _, err := io.Copy(io.Discard, c.r); err == nil && !c.raw.ended {
		t.Error("the client got a proper end")
	}
	c.conn.Close()
	r.closed(audit.BackendGone)
}

// A client that goes while its session waits takes the session with it, though there would be an hour's mail to come.
func TestPacedClientResets(t *testing.T) {
	server := listen(t)
	r := start(t, server.address, downloads(1<<10, 1<<10))
	c, b := r.connected(server)
	go func() { _, _ = io.WriteString(b.conn, strings.Repeat("x", 4<<20)) }()
	if _, err := io.ReadFull(c.r, make([]byte, 4<<10)); err != nil {
		t.Fatal(err)
	}
	c.reset()
	r.closed(audit.ClientGone)
}

// Nor does a shutdown wait for those who wait.
func TestPacedShutdown(t *testing.T) {
	server := listen(t)
	r := start(t, server.address, downloads(1<<10, 1<<10))
	c, b := r.connected(server)
	go func() { _, _ = io.WriteString(b.conn, strings.Repeat("x", 1<<20)) }()
	if _, err := io.ReadFull(c.r, make([]byte, 4<<10)); err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		r.gw.Close()
	}()
	receive(t, closed, "the end of Close")
	r.closed(audit.Shutdown)
}
