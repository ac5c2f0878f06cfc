package directory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

func TestBoundedConn(t *testing.T) {
	p := newFaultProxy(t, "tcp", "127.0.0.1:1")
	p.set(faultFlood)
	c, err := dialBounded(t.Context(), "tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 { // again after each time that we say something
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, c)
		if !errors.Is(err, errAnswerTooLong) || n <= maxAnswer || n > maxAnswer+64<<10 {
			t.Errorf("got %d bytes, %v; want little more than %d", n, err, maxAnswer)
		}
	}
	if raw, err := c.(syscall.Conn).SyscallConn(); raw == nil || err != nil {
		t.Errorf("the descriptor: %v, %v", raw, err)
	}
	inMemory, _ := net.Pipe()
	if _, err := (&boundedConn{Conn: inMemory}).SyscallConn(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

func TestUntilDone(t *testing.T) {
	for _, late := range []bool{true, false} {
		near, far := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		done := untilDone(ctx, near)
		if late {
			cancel()
			if n, err := far.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				t.Errorf("the other side got %v, want the end", err)
			}
		}
		if got := done(); got != late {
			t.Errorf("late: got %v, want %v", got, late)
		}
		cancel()
		if !late {
			go func() { _, _ = near.Write([]byte("x")) }()
			if b, err := io.ReadAll(io.LimitReader(far, 1)); !bytes.Equal(b, []byte("x")) || err != nil {
				t.Errorf("the connection does not live on: %q, %v", b, err)
			}
		}
		_ = near.Close()
		_ = far.Close()
	}
}
