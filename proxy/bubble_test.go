package proxy

import (
	"context"
	"net"
	"time"
)

// A fakeConn is a connection made of functions, for what no real one does on demand.
type fakeConn struct {
	net.Conn
	read  func([]byte) (int, error)
	write func([]byte) (int, error)
}

func (c *fakeConn) Read(p []byte) (int, error)  { return c.read(p) }
func (c *fakeConn) Write(p []byte) (int, error) { return c.write(p) }
func (c *fakeConn) Close() error {
	if c.Conn == nil {
		return nil
	}
	return c.Conn.Close()
}
func (*fakeConn) SetDeadline(time.Time) error        { return nil }
func (*fakeConn) SetReadDeadline(time.Time) error    { return nil }
func (*fakeConn) SetWriteDeadline(t time.Time) error { return nil }

// A duplex is one end of a connection in memory that can close its directions one by one, as TCP can. It holds
// nothing back: a write waits until it is read.
type duplex struct {
	net.Conn          // what is read
	out      net.Conn // what is written to
}

func newDuplex() (a, b *duplex) {
	ar, bw := net.Pipe()
	br, aw := net.Pipe()
	return &duplex{ar, aw}, &duplex{br, bw}
}

func (d *duplex) Write(p []byte) (int, error)        { return d.out.Write(p) }
func (d *duplex) CloseWrite() error                  { return d.out.Close() }
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }

func (d *duplex) SetDeadline(t time.Time) error {
	_ = d.out.SetDeadline(t)
	return d.Conn.SetDeadline(t)
}

func (d *duplex) Close() error {
	_ = d.out.Close()
	return d.Conn.Close()
}

// from gives a connection the address of a client.
type from struct {
	*duplex
	address string
}

func (f from) RemoteAddr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", f.address)
	if err != nil {
		panic(err)
	}
	return a
}

// pipe makes a session of a connection in memory and returns the client's end of it, without TLS.
func (r *rig) pipe() *client {
	r.t.Helper()
	here, there := newDuplex()
	r.gw.start(context.Background(), from{there, "192.0.2.7:4711"}, "here")
	return newClient(r.t, here)
}

// drip sends octets one by one with a pause behind each, or all at once. That the other side has enough of it is no
// fault.
func (c *client) drip(octets []byte, pause time.Duration) {
	size := 1
	if pause == 0 {
		size = max(1, len(octets))
	}
	for len(octets) > 0 {
		if _, err := c.conn.Write(octets[:size]); err != nil {
			return
		}
		octets = octets[size:]
		time.Sleep(pause) // in a bubble
	}
}
