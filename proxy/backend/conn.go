package backend

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// Stages are the times that the parts of a login took, at the server that accepted it.
type Stages struct {
	Connect  time.Duration // name look-up, TCP, PROXY, implicit TLS
	Greeting time.Duration // the wait for the greeting
	Login    time.Duration // from there to the answer to PASS
}

// A Conn is a connection that is logged in. Its Conn is a *net.TCPConn, or a *tls.Conn, whose NetConn is none; it has
// no deadline set and holds no buffer of this package. Whoever has it closes it.
type Conn struct {
	net.Conn
	// Server is the address of the server, as configured.
	Server string
	// Stages are the times of this login.
	Stages Stages
	// Leftover is what the server sent behind its answer to PASS. It goes to the client first.
	Leftover []byte

	below *underTLS // nil without TLS
	place atomic.Pointer[places]
}

// Close ends the connection. The session does not count at its server any more. It may be called more than once.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	if p := c.place.Swap(nil); p != nil {
		p.give()
	}
	return err
}

// Truncated says that the server's TLS stream ended without a close_notify, so that anybody on the way may have cut it
// short; ask behind a Read that returned io.EOF. Any other error of Read is a cut in itself. Without TLS it is always
// false, for nothing tells then. Any goroutine may call it.
func (c *Conn) Truncated() bool {
	return c.below != nil && c.below.ended.Load()
}

// CloseWrite ends the direction to the server: with a FIN, or over TLS with a close_notify alone.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
