package directory

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// maxAnswer bounds what is read from a server between two things said to it: an answer, or its part of a handshake. The
// protocols' libraries believe any length that a server announces.
const maxAnswer = 256 << 10

var errAnswerTooLong = errors.New("the server's answer is too long")

// A boundedConn fails when the server says more than maxAnswer at a time.
type boundedConn struct {
	net.Conn
	read atomic.Int64 // bytes since the last write
}

// dialBounded connects to addr. The keep-alives are the dialer's usual ones.
func dialBounded(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &boundedConn{Conn: c}, nil
}

// Read reads what the server says, and fails where it is too much.
func (c *boundedConn) Read(p []byte) (int, error) {
	if c.read.Load() > maxAnswer {
		return 0, errAnswerTooLong
	}
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// Write says something to the server, which may answer anew.
func (c *boundedConn) Write(p []byte) (int, error) {
	c.read.Store(0)
	return c.Conn.Write(p)
}

// SyscallConn gives the connection's descriptor: the MySQL driver looks by it whether the server has closed an idle one.
func (c *boundedConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// untilDone closes what a library without context uses when ctx ends. The caller calls the returned func when it is done;
// it says whether ctx was faster.
func untilDone(ctx context.Context, c net.Conn) (done func() (late bool)) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)); _ = c.Close() })
	return func() bool { return !stop() }
}
