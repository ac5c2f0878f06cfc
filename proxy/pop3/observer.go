package pop3

import "bytes"

// An Observer counts the commands in a stream from client to server, in pieces of any size, each once its line has
// ended. It looks and never changes a byte. The zero Observer stands at the start of a line. One goroutine at a time
// may use it.
type Observer struct {
	// Retr, Top and Dele count the commands seen, Commands all lines.
	Retr, Top, Dele, Commands int
	// Quit says that the client has sent QUIT.
	Quit bool

	word [4]byte
	n    int  // octets of the line's first word in word; none where it is too long for a verb
	cr   bool // the word ended in a CR, which must be the line's end
	skip bool // the first word is over
}

// Observe looks at the next piece of the stream.
func (o *Observer) Observe(p []byte) {
	for len(p) > 0 {
		if o.skip {
			i := bytes.IndexByte(p, '\n')
			if i < 0 {
				return
			}
			p = p[i:]
		}
		o.octet(p[0])
		p = p[1:]
	}
}

func (o *Observer) octet(c byte) {
	switch {
	case c == '\n':
		o.count()
		o.n, o.cr, o.skip = 0, false, false
	case o.cr, o.n == len(o.word) && c != ' ' && c != '\t' && c != '\r':
		o.n, o.skip = 0, true
	case c == ' ', c == '\t':
		o.skip = true
	case c == '\r':
		o.cr = true
	default:
		o.word[o.n] = c
		o.n++
	}
}

// count notes the command whose line has just ended.
func (o *Observer) count() {
	o.Commands++
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
