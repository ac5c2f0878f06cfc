package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/auth"
)

// A clientConn is the connection to a client below TLS. What the PROXY header's reader took too much comes first.
type clientConn struct {
	net.Conn
	early   []byte
	session *session // whose handshake this is; crypto/tls hands the connection back in ClientHelloInfo
	// ended says that the client has closed its side, or that the connection broke. TLS reports the end of the
	// stream alike whether the client said so (close_notify) or not; this tells.
	ended  bool
	stalls stall // for the relay's writes

	// In a relay the socket is read by a tap, which puts what came into early, or the error into fault.
	fed   bool
	fault error
}

// Client is whose connection it is, for what crypto/tls hands the connection to.
func (c *clientConn) Client() *auth.Client { return &c.session.client }

// Read reads what came with the PROXY header first, then from the connection.
func (c *clientConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		if c.early = c.early[n:]; len(c.early) == 0 {
			c.early = nil
		}
		return n, nil
	}
	if c.fed {
		if c.fault == nil {
			return 0, errHungry
		}
		c.ended = true
		return 0, c.fault
	}
	// The handshake's work up to here is done: a client that lets us wait for the rest must not hold its slot.
	c.session.giveSlot()
	n, err := c.Conn.Read(p)
	if err != nil && !isTimeout(err) {
		c.ended = true
	}
	return n, err
}

// Write writes to the connection. In a relay each TLS record has the stall limit for itself.
func (c *clientConn) Write(p []byte) (int, error) {
	if err := c.stalls.arm(c.Conn); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// A stall limits the time that a write may wait. Setting a deadline costs more than a small write itself, so one is
// set for longer, and again only when less than the limit is left of it.
type stall struct {
	limit atomic.Int64 // a duration, 0 is none
	until time.Time
}

func (s *stall) arm(c net.Conn) error {
	limit := time.Duration(s.limit.Load())
	if limit <= 0 {
		return nil
	}
	if now := time.Now(); s.until.Sub(now) < limit {
		s.until = now.Add(limit + limit/2)
		return c.SetWriteDeadline(s.until)
	}
	return nil
}

// isTimeout says that a deadline of ours has struck. The kernel's ETIMEDOUT is something else: a peer that vanished.
func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// closeWrite says that nothing more will be written, where the connection can say so.
func closeWrite(c io.Writer) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
