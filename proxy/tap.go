package proxy

import (
	"io"
	"net"
	"sync"
	"syscall"
)

// chunkSize is how much is read at once: four TLS records.
const chunkSize = 64 << 10

// recordSize is the most that one TLS record carries (RFC 8446 section 5.1), and so the most that one read of a
// TLS connection returns.
const recordSize = 16 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// A tap reads from a connection and holds no buffer while there is nothing to read: with thousands of idle sessions,
// buffers would be most of the memory. One goroutine at a time may use it.
type tap struct {
	conn  net.Conn
	raw   syscall.RawConn // waits for bytes below the buffer; nil where there is TLS in between
	chunk *[chunkSize]byte
	small [64]byte // a command fits; what does not shows that a chunk is worth borrowing
	more  bool     // the last read filled what it was given
	n     int
	err   error
	try   func(fd uintptr) bool
}

// open makes the tap ready to read conn.
func (t *tap) open(conn net.Conn) {
	t.conn = conn
	if c, ok := conn.(*net.TCPConn); ok && canWait {
		if raw, err := c.SyscallConn(); err == nil {
			t.raw, t.try = raw, t.attempt
		}
	}
}

// read waits for bytes and returns them; they are valid until the next call of read or rest.
func (t *tap) read() ([]byte, error) {
	if t.raw != nil {
		return t.readRaw()
	}
	buf := t.small[:]
	if t.more {
		t.borrow()
		buf = t.chunk[:]
	}
	n, err := t.conn.Read(buf)
	t.more = n == len(t.small) || n >= recordSize
	return buf[:n], err
}

func (t *tap) readRaw() ([]byte, error) {
	if err := t.raw.Read(t.try); err != nil {
		return nil, err
	}
	if t.err != nil {
		return nil, t.err
	}
	if t.n == 0 {
		return nil, io.EOF
	}
	return t.chunk[:t.n], nil
}

// attempt reads into a borrowed chunk, and gives it back when nothing is there.
func (t *tap) attempt(fd uintptr) bool {
	t.borrow()
	t.n, t.err = readDescriptor(fd, t.chunk[:])
	if isAgain(t.err) {
		t.rest()
		return false
	}
	return true
}

func (t *tap) borrow() {
	if t.chunk == nil {
		t.chunk = chunks.Get().(*[chunkSize]byte)
	}
}

// rest gives the buffer back until the next read.
func (t *tap) rest() {
	if t.chunk != nil {
		chunks.Put(t.chunk)
		t.chunk = nil
	}
}
