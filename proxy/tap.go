package proxy

import (
	"bytes"
	"crypto/tls"
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

type chunk [chunkSize]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// A tap reads from a connection and holds no buffer while there is nothing to read: with thousands of idle sessions,
// buffers would be most of the memory. Nor does it wait deep down in crypto/tls, for the stack that is needed there
// would be kept too. One goroutine at a time may use it.
type tap struct {
	conn net.Conn        // what is read
	raw  syscall.RawConn // the socket below it, which waits for bytes; nil where there is none to be had
	try  func(fd uintptr) bool
	tls  *tls.Conn   // conn, where TLS has to be taken off
	feed *clientConn // what TLS reads from: the tap puts in what came from the socket
	took *chunk      // what came from the socket
	out  *chunk      // what TLS made of it
	n    int
	err  error
	more bool // TLS may have something left, or without a socket: the last read filled what it was given
	most int  // how much is read at once

	small []byte // what is waited with where there is no socket
}

// smallRead is what a tap without a socket waits with. A command fits; what does not shows that a chunk is worth borrowing.
const smallRead = 64

// open makes the tap ready to read conn. feed is below conn's TLS, nil where there is none or it is not ours.
func (t *tap) open(conn net.Conn, feed *clientConn) {
	t.conn, t.most = conn, chunkSize
	socket := conn
	if feed != nil {
		socket = feed.Conn
	}
	tcp, ok := socket.(*net.TCPConn)
	if !ok || !canWait {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	t.raw, t.try = raw, t.attempt
	if c, ok := conn.(*tls.Conn); ok {
		t.tls, t.feed = c, feed
		feed.fed, t.more = true, true // the login may have left something in TLS
	}
}

// read waits for bytes and returns them; they are valid until the next call of read or rest. Bytes and an error
// may come together.
func (t *tap) read() ([]byte, error) {
	switch {
	case t.raw == nil:
		return t.readConn()
	case t.tls == nil:
		return t.readSocket()
	}
	for {
		if t.more {
			if p, err := t.readTLS(); len(p) > 0 || err != nil {
				return p, err
			}
		}
		p, err := t.readSocket()
		if isTimeout(err) {
			return nil, err
		}
		t.feed.early, t.feed.fault = p, err
		t.more = true
	}
}

// readSocket waits at the socket, which costs no buffer, and a small stack.
func (t *tap) readSocket() ([]byte, error) {
	if err := t.raw.Read(t.try); err != nil {
		return nil, err
	}
	if t.err == nil && t.n == 0 {
		t.err = io.EOF
	}
	if t.err != nil {
		t.rest()
		return nil, t.err
	}
	return t.took[:t.n], nil
}

// attempt reads into a borrowed chunk, and gives it back when nothing is there.
func (t *tap) attempt(fd uintptr) bool {
	if t.took == nil {
		t.took = chunks.Get().(*chunk)
	}
	t.n, t.err = readDescriptor(fd, t.took[:t.most])
	if isAgain(t.err) {
		t.rest()
		return false
	}
	return true
}

// readTLS returns what TLS makes of what it was fed, and nothing when it needs more.
func (t *tap) readTLS() ([]byte, error) {
	if t.out == nil {
		t.out = chunks.Get().(*chunk)
	}
	n, err := t.tls.Read(t.out[:])
	if err == error(errHungry) {
		t.more, err = false, nil
		if n == 0 {
			t.rest()
		}
	}
	return t.out.upTo(n), err
}

func (c *chunk) upTo(n int) []byte {
	if c == nil {
		return nil
	}
	return c[:n]
}

// readConn waits in a read with a small buffer of its own, and borrows a chunk for what does not fit.
func (t *tap) readConn() ([]byte, error) {
	if !t.more {
		t.rest()
		if t.small == nil {
			t.small = make([]byte, smallRead)
		}
		n, err := t.conn.Read(t.small)
		t.more = n == len(t.small)
		return t.small[:n], err
	}
	if t.out == nil {
		t.out = chunks.Get().(*chunk)
	}
	n, err := t.conn.Read(t.out[:t.most])
	if t.more = n >= min(recordSize, t.most); !t.more && n == 0 {
		t.rest()
	}
	return t.out.upTo(n), err
}

// rest gives the buffers back until the next read.
func (t *tap) rest() {
	if t.took != nil {
		chunks.Put(t.took)
		t.took = nil
	}
	if t.out != nil {
		chunks.Put(t.out)
		t.out = nil
	}
}

// park is rest for a tap that has not been read to its end: what TLS has not taken yet is kept, in no more room than it needs.
func (t *tap) park() {
	if t.took != nil && t.feed != nil && len(t.feed.early) > 0 {
		t.feed.early = bytes.Clone(t.feed.early)
	}
	t.rest()
}

// errHungry is what TLS is told when the tap has nothing to feed it. TLS passes it on and may be asked again, for it
// says of itself that it is temporary.
var errHungry = hungry{}

type hungry struct{}

// Error says what is missing.
func (hungry) Error() string { return "nothing to read yet" }

// Timeout is false: no deadline has passed.
func (hungry) Timeout() bool { return false }

// Temporary makes TLS keep its state.
func (hungry) Temporary() bool { return true }
