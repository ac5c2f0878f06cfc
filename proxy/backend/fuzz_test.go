package backend

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

// A player is a connection whose server says one piece at each read, whatever it hears.
type player struct {
	pieces [][]byte
	sent   bytes.Buffer
	closed bool
}

func (p *player) Read(b []byte) (int, error) {
	if len(p.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.pieces[0])
	if p.pieces[0] = p.pieces[0][n:]; len(p.pieces[0]) == 0 {
		p.pieces = p.pieces[1:]
	}
	return n, nil
}

func (p *player) Write(b []byte) (int, error) { return p.sent.Write(b) }

func (p *player) Close() error {
	p.closed = true
	return nil
}

func (*player) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*player) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*player) SetDeadline(time.Time) error      { return nil }
func (*player) SetReadDeadline(time.Time) error  { return nil }
func (*player) SetWriteDeadline(time.Time) error { return nil }

const userLine = "USER alice@example.org\r\n"

// positive is how many lines of what a server says begin like positive replies.
func positive(data []byte) int {
	n := 0
	for line := range bytes.Lines(bytes.ReplaceAll(data, []byte{0}, nil)) {
		if len(line) >= 3 && bytes.EqualFold(line[:3], []byte("+ok")) {
			n++
		}
	}
	return n
}

// FuzzServer lets a server say anything, in pieces parted by a zero octet. A login must end; it must not send PASS
// before two positive replies, one at a time; and only a third one is a login. Nothing of the secret is in an error.
func FuzzServer(f *testing.F) {
	f.Add([]byte("+OK ready\r\n\x00+OK\r\n\x00+OK logged in\r\n+OK 2 320\r\n"))
	f.Add([]byte("+OK [XCLIENT]\r\n\x00-ERR\r\n"))
	f.Add([]byte("+OK\x00 half\x00\n\x00+ok\n\x00-ERR PASS hunter2 is no command\n"))
	f.Add([]byte("+OK\r\n\x00+OK\r\n+OK\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &player{}
		for piece := range bytes.SplitSeq(data, []byte{0}) {
			if len(piece) > 0 {
				c.pieces = append(c.pieces, bytes.Clone(piece))
			}
		}
		p := pool(t, config("192.0.2.9"))
		dials := 0
		p.backends.dial = func(context.Context, *dialer, address) (net.Conn, error) {
			dials++
			return c, nil
		}
		req := request()
		req.Login.Secret = auth.NewSecret([]byte("hunter2"))
		conn, err := p.Login(t.Context(), req)
		sent := c.sent.String()
		switch sent {
		case "", userLine:
		case userLine + "PASS hunter2\r\n":
			if n := positive(data); n < 2 {
				t.Errorf("sent PASS behind %d positive replies", n)
			}
		default:
			t.Errorf("sent %q", sent)
		}
		if err == nil {
			if conn.Conn != net.Conn(c) || c.closed || !strings.Contains(sent, "PASS") || positive(data) < 3 {
				t.Errorf("logged in by %q", data)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || conn != nil {
			t.Fatalf("got %v, %v", conn, err)
		}
		if !c.closed || dials != 1 {
			t.Errorf("closed: %v, %d connections", c.closed, dials)
		}
		if strings.Contains(sent, "PASS") && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the secret is in %q", err)
		}
	})
}
