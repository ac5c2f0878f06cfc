package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A client is a mail client under the test's control. Every wait is bounded and fails the test.
type client struct {
	t    testing.TB
	raw  *spy
	conn net.Conn
	r    *bufio.Reader
}

// A spy sees whether the stream below TLS ended: crypto/tls reports an end without close_notify as io.EOF too.
type spy struct {
	net.Conn
	ended bool
}

func (s *spy) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil {
		s.ended = true
	}
	return n, err
}

// plain connects without TLS.
func (r *rig) plain() *client {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	return newClient(r.t, c)
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { conn.Close() })
	c := &client{t: t, raw: &spy{Conn: conn}}
	c.use(c.raw)
	return c
}

// dial connects, with TLS.
func (r *rig) dial() *client {
	r.t.Helper()
	c := r.plain()
	c.startTLS(clientTLS())
	return c
}

// loggedIn is a client whose login at a backend of package pop3mem or one like it has succeeded.
func (r *rig) loggedIn() *client {
	r.t.Helper()
	c := r.dial()
	c.login("alice@example.org", "secret")
	return c
}

func (c *client) login(user, secret string) {
	c.t.Helper()
	c.expect("+OK POP3 ready")
	c.send("USER " + user + "\r\nPASS " + secret + "\r\n")
	c.expect("+OK", "+OK Logged in")
}

func (c *client) use(conn net.Conn) {
	c.conn, c.r = conn, bufio.NewReader(conn)
}

func (c *client) startTLS(config *tls.Config) {
	c.t.Helper()
	conn := tls.Client(c.raw, config)
	c.arm()
	if err := conn.Handshake(); err != nil {
		c.t.Fatalf("TLS handshake: %v", err)
	}
	c.use(conn)
}

func (c *client) arm() { _ = c.raw.SetDeadline(time.Now().Add(until())) }

func (c *client) send(octets string) {
	c.t.Helper()
	c.arm()
	if _, err := io.WriteString(c.conn, octets); err != nil {
		c.t.Fatalf("send %.40q: %v", octets, err)
	}
}

// line returns the next line, without its CRLF, which must be there.
func (c *client) line() string {
	c.t.Helper()
	c.arm()
	line, err := c.r.ReadString('\n')
	text, ok := strings.CutSuffix(line, "\r\n")
	if err != nil || !ok {
		c.t.Fatalf("got %q, %v, want a line", line, err)
	}
	return text
}

func (c *client) expect(lines ...string) {
	c.t.Helper()
	for _, want := range lines {
		if got := c.line(); got != want {
			c.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// ends expects no more from the server than its end: clean, that is with close_notify, or not.
func (c *client) ends(clean bool) {
	c.t.Helper()
	c.arm()
	if rest, err := io.ReadAll(c.r); len(rest) > 0 {
		c.t.Fatalf("got %.80q, %v, want the end", rest, err)
	} else if isTimeout(err) {
		c.t.Fatalf("the connection goes on")
	} else if got := err == nil && !c.raw.ended; got != clean && c.conn != net.Conn(c.raw) {
		c.t.Errorf("ended with close_notify: %v, want %v (%v)", got, clean, err)
	}
}

// tcp is the client's socket.
func (c *client) tcp() *net.TCPConn { return c.raw.Conn.(*net.TCPConn) }

// reset breaks the connection off.
func (c *client) reset() {
	_ = c.tcp().SetLinger(0)
	_ = c.tcp().Close()
}
