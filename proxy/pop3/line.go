package pop3

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// ErrLineTooLong means that a line has more octets than its reader was told to take.
var ErrLineTooLong = errors.New("line too long")

// bufferSize holds any command of RFC 2449 and a short pipelined sequence behind it.
const bufferSize = 2048

// maxEmptyReads is how often a stream may say that nothing happened (io.Reader allows it) before it counts as broken.
const maxEmptyReads = 100

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A Reader takes lines off a stream, each bounded in length. It borrows its buffer and gives it back wiped, for
// passwords pass through it. One goroutine at a time may use it.
type Reader struct {
	src        io.Reader
	own        *[bufferSize]byte // the borrowed buffer, nil when not borrowed
	buf        []byte            // own, or a larger one made for a long line
	start, end int               // what has been read and not yet taken
}

// NewReader returns a reader of src that holds no buffer until its first use.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src}
}

// Line returns the next line without its line end, which is CRLF or LF alone. A line of more than limit octets,
// line end not counted, is ErrLineTooLong, and the stream is of no more use. The slice is valid until the next call.
//
// A stream that ends inside a line is io.ErrUnexpectedEOF; one that ends between lines is io.EOF.
func (r *Reader) Line(limit int) ([]byte, error) {
	scanned := 0
	for {
		if i := bytes.IndexByte(r.buf[r.start+scanned:r.end], '\n'); i >= 0 {
			line := r.buf[r.start : r.start+scanned+i]
			r.start += scanned + i + 1
			line = bytes.TrimSuffix(line, []byte{'\r'})
			if len(line) > limit {
				return nil, ErrLineTooLong
			}
			return line, nil
		}
		scanned = r.end - r.start
		if scanned > limit+1 { // one more for a CR
			return nil, ErrLineTooLong
		}
		if err := r.fill(limit + 2); err != nil {
			if errors.Is(err, io.EOF) && scanned > 0 {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// fill waits for more octets, after making room for a line of size.
func (r *Reader) fill(size int) error {
	if r.buf == nil {
		r.own = buffers.Get().(*[bufferSize]byte)
		r.buf = r.own[:]
	}
	if r.start > 0 && (r.start == r.end || r.start+size > len(r.buf)) {
		r.shift(r.buf)
	}
	if r.end == len(r.buf) {
		old := r.buf
		r.shift(make([]byte, min(2*len(old), max(size, len(old)+1))))
		clear(old)
	}
	for range maxEmptyReads {
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// shift moves what is buffered to the start of buf, which may be the present buffer, and uses buf from then on.
// What is left of the old bytes is wiped.
func (r *Reader) shift(buf []byte) {
	n := copy(buf, r.buf[r.start:r.end])
	r.buf, r.start, r.end = buf, 0, n
	clear(buf[n:])
}

// Buffered returns what has been read from the stream and not been taken as a line yet. The slice is valid until
// the next call.
func (r *Reader) Buffered() []byte {
	return r.buf[r.start:r.end]
}

// Wipe overwrites the octets that have been taken as lines already, and keeps what is buffered.
func (r *Reader) Wipe() {
	clear(r.buf[:r.start])
}

// Release wipes the buffer and gives it back, with what was left in it. The reader may be used again.
func (r *Reader) Release() {
	clear(r.buf) // all of it: a Read may use what lies behind the octets it returns
	if r.own != nil {
		clear(r.own[:])
		buffers.Put(r.own)
	}
	r.own, r.buf, r.start, r.end = nil, nil, 0, 0
}
