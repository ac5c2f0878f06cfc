package proxy

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"
)

// A server is the listener of a backend that the test plays.
type server struct {
	address string
	conns   chan net.Conn
	stop    func() int // closes it; how many connections nobody has taken
}

func listen(t testing.TB) *server {
	t.Helper()
	return listenAs(t, func(c net.Conn) net.Conn { return c })
}

// listenAs is listen for connections that are made into others, such as those over TLS.
func listenAs(t testing.TB, as func(net.Conn) net.Conn) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{address: ln.Addr().String(), conns: make(chan net.Conn, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns <- as(c)
		}
	}()
	s.stop = func() int {
		ln.Close()
		<-done
		n := len(s.conns)
		for range n {
			(<-s.conns).Close()
		}
		return n
	}
	t.Cleanup(func() { s.stop() })
	return s
}

// A leg is one connection to the backend.
type leg struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// next is the next connection to the server. It is closed with the test.
func (s *server) next(t testing.TB) *leg {
	t.Helper()
	c := receive(t, s.conns, "a connection to the backend")
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return &leg{t, c, bufio.NewReader(c)}
}

// welcome is the next connection to the server, logged in.
func (s *server) welcome(t testing.TB) *leg {
	t.Helper()
	b := s.next(t)
	b.say("+OK ready\r\n")
	b.reads("USER alice@example.org\r\n")
	b.say("+OK\r\n")
	b.reads("PASS secret\r\n")
	b.say("+OK\r\n")
	return b
}

func (b *leg) say(octets string) {
	b.t.Helper()
	if _, err := io.WriteString(b.conn, octets); err != nil {
		b.t.Fatalf("the backend says %.40q: %v", octets, err)
	}
}

// reads expects these octets next.
func (b *leg) reads(want string) {
	b.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(b.r, got); err != nil || string(got) != want {
		b.t.Fatalf("the backend got %.80q, %v, want %.80q", got[:n], err, want)
	}
}

// ends expects the end of the stream, in good order.
func (b *leg) ends() {
	b.t.Helper()
	if rest, err := io.ReadAll(b.r); len(rest) > 0 || err != nil {
		b.t.Fatalf("the backend got %.80q, %v, want the end", rest, err)
	}
}

// reset breaks the connection off.
func (b *leg) reset() {
	_ = b.conn.(*net.TCPConn).SetLinger(0)
	b.conn.Close()
}
