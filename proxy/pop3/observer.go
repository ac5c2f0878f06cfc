package pop3

import "bytes"

// An Observer counts the commands in a stream from client to server, in pieces of any size. It looks and never
// changes a byte. The zero Observer stands at the start of a line. One goroutine at a time may use it.
type Observer struct {
	// Retr, Top and Dele count the commands seen.
	Retr, Top, Dele int
	// Quit says that the client has sent QUIT.
	Quit bool

	word [4]byte
	n    int // octets of the line's first word so far; more than len(word) means that the rest of the line is skipped
}

const skipping = 5

// Observe looks at the next piece of the stream.
func (o *Observer) Observe(p []byte) {
	for len(p) > 0 {
		if o.n == skipping {
			i := bytes.IndexByte(p, '\n')
			if i < 0 {
				return
			}
			p, o.n = p[i+1:], 0
			continue
		}
		c := p[0]
		p = p[1:]
		switch {
		case c == '\n':
			o.count()
			o.n = 0
		case c == ' ' || c == '\t' || c == '\r':
			o.count()
			o.n = skipping
		case o.n < len(o.word):
			o.word[o.n] = c
			o.n++
		default:
			o.n = skipping
		}
	}
}

// count notes the command whose verb has just ended.
func (o *Observer) count() {
	switch verb(o.word[:o.n]) {
	case RETR:
		o.Retr++
	case TOP:
		o.Top++
	case DELE:
		o.Dele++
	case QUIT:
		o.Quit = true
	}
}
