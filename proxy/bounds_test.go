package proxy

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/popgate/popgate/policy/audit"
)

// heap is what is in use after a collection, stacks included.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what pools held over the first goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// 20 MB without a line end cost no more than the longest line that may be, and the rest of the gateway nothing.
func TestEndlessLine(t *testing.T) {
	for _, begin := range []string{"", "PASS ", "AUTH PLAIN ", "AUTH LOGIN\r\n"} {
		r := start(t, "127.0.0.1:1")
		c := r.dial()
		c.expect("+OK POP3 ready")
		c.arm()
		before := heap()
		var reading sync.WaitGroup
		var answer bytes.Buffer
		reading.Go(func() { _, _ = answer.ReadFrom(c.r) })
		_, err := c.conn.Write(append([]byte(begin), bytes.Repeat([]byte{'x'}, 20<<20)...))
		if err == nil {
			t.Errorf("%q: all of it was taken", begin)
		}
		r.closed(audit.ProtocolError)
		reading.Wait()
		if got := answer.String(); got != "" && got != "-ERR Line too long\r\n" && got != "+ VXNlcm5hbWU6\r\n-ERR Line too long\r\n" {
			t.Errorf("%q: got %q", begin, got)
		}
		if after := heap(); after > before+24<<20 { // 20 of them are the test's own
			t.Errorf("%q: %d octets more are in use", begin, after-before)
		}
	}
}

// A client that never stops sending is cut off although it never makes us wait: by the number of its commands, STLS
// or not.
func TestEndlessCommands(t *testing.T) {
	for _, command := range []string{"USER a@example.org\r\n", "CAPA\r\n", "AUTH\r\n", "UTF8\r\n", "AUTH PLAIN\r\n*\r\n"} {
		r := start(t, "127.0.0.1:1")
		c := r.dial()
		c.expect("+OK POP3 ready")
		c.arm()
		var reading sync.WaitGroup
		var answer bytes.Buffer
		reading.Go(func() { _, _ = answer.ReadFrom(c.r) })
		_, _ = c.conn.Write(bytes.Repeat([]byte(command), 100*maxCommands)) // it is cut off in the middle
		r.closed(audit.ProtocolError)
		reading.Wait()
		if got := answer.String(); !strings.HasSuffix(got, "-ERR "+textTooMany+"\r\n") {
			t.Errorf("%q: ends with %q", command, got[max(0, len(got)-80):])
		}
		if n := strings.Count(answer.String(), "\n"); n > 10*maxCommands {
			t.Errorf("%q: %d lines of answers", command, n)
		}
	}
}

// allowFiles makes room for n open files.
func allowFiles(t testing.TB, n uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur >= n {
		return
	}
	l.Cur, l.Max = n, max(l.Max, n)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Skipf("allow %d open files (ulimit -n %d): %v", n, n, err)
	}
}

// 5,000 clients that connect and never speak: each costs little, nobody else is kept waiting, and their end is clean.
func TestSilentClients(t *testing.T) {
	const clients = 5000
	allowFiles(t, 2*clients+500)
	r := start(t, "127.0.0.1:1")
	before := heap()
	conns := make([]net.Conn, clients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range conns {
		// From many addresses, or the local ports would run out on a busy machine.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i%250+1))}}
		c, err := d.DialContext(t.Context(), "tcp", r.addr)
		if err != nil {
			t.Fatal(fmt.Errorf("client %d: %w", i, err))
		}
		conns[i] = c
	}
	c := r.dial() // is served behind all of them, so that they all are there
	c.expect("+OK POP3 ready")
	if n := r.gw.Sessions(); n != clients+1 {
		t.Errorf("%d sessions", n)
	}
	each := (heap() - before) / clients
	t.Logf("%d octets a silent connection, the test's own end of it included", each)
	if each > 40<<10 {
		t.Errorf("%d octets a silent connection", each)
	}
	if n := len(r.gw.slots.networks); n > 1 {
		t.Errorf("silent clients hold handshake slots of %d networks", n)
	}
	c.tlsEnds(r)
}

// tlsEnds says QUIT.
func (c *client) tlsEnds(r *rig) {
	c.t.Helper()
	c.send("QUIT\r\n")
	c.expect("+OK Bye")
	c.ends(true)
	c.conn.Close()
	r.closed(audit.ClientQuit)
}
