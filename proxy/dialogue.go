package proxy

import (
	"fmt"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/proxy/pop3"
)

// A dialogue is the state of a session before login. It is the reader behind its own line reader: before it waits
// for the client it sends the replies that are due, so that pipelined commands are answered in one write.
type dialogue struct {
	s        *session
	lines    *pop3.Reader
	out      []byte
	patience time.Duration // how much longer the client may make us wait
	name     *auth.Name    // from USER
	commands int           // all of them
	bad      int           // those that were not understood
	failures int           // logins that failed
	heard    bool          // the client has said something
	idle     bool          // it waits for a command, so that it may fall quiet
	quiet    bool          // it has
}

// maxCommands bounds what one connection may ask before it has logged in. A client needs ten or so; one that never
// stops sending would never make us wait, and so never use up its time.
const maxCommands = 100

func newDialogue(s *session) *dialogue {
	d := &dialogue{s: s, patience: s.snap.Timeouts.ClientLogin}
	d.lines = pop3.NewReader(d)
	return d
}

// command returns the next command's line, valid until the call after.
func (d *dialogue) command() ([]byte, error) {
	if d.commands == maxCommands {
		return nil, errBadCommands
	}
	d.lines.Wipe() // the command before may have been a password
	d.idle = true
	line, err := d.lines.Line(int(max(d.s.snap.Bounds.Line, d.s.snap.Bounds.AuthLine)))
	d.idle = false
	if err != nil {
		return nil, err
	}
	d.commands++
	if !d.heard {
		d.heard = true
		if other := pop3.Foreign(line); other != "" {
			return nil, &foreignError{other}
		}
	}
	if verb, _ := pop3.ParseCommand(line); verb != pop3.AUTH && len(line) > int(d.s.snap.Bounds.Line) {
		return nil, pop3.ErrLineTooLong
	}
	return line, nil
}

// response returns the client's next line within an AUTH exchange, valid until the call after.
func (d *dialogue) response() ([]byte, error) {
	return d.lines.Line(int(d.s.snap.Bounds.AuthLine))
}

// Read sends what is due and reads from the client, within what is left of its time.
func (d *dialogue) Read(p []byte) (int, error) {
	if err := d.flush(); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := d.arm(began); err != nil {
		return 0, err
	}
	n, err := d.s.conn.Read(p)
	d.patience -= time.Since(began)
	if isTimeout(err) {
		return n, d.struck()
	}
	d.quiet = false
	if !d.heard && n > 0 {
		// A TLS hello or a PROXY header need not have a line end: do not wait for one.
		if other := pop3.Foreign(p[:n]); other == "TLS" || other == "PROXY protocol" {
			return 0, &foreignError{other}
		}
	}
	return n, clientGone(err)
}

// arm sets the deadline of a read that begins now.
func (d *dialogue) arm(now time.Time) error {
	wait := d.patience
	if d.idle && wait > quietTime && !d.quiet {
		wait = quietTime
	}
	if err := d.s.conn.SetReadDeadline(now.Add(wait)); err != nil {
		return clientGone(err)
	}
	if d.s.gw.isClosing() { // after arming: the wake may have come just before
		return errShutdown
	}
	return nil
}

// struck is what it means that the deadline of a read has struck.
func (d *dialogue) struck() error {
	switch {
	case d.s.gw.isClosing():
		return errShutdown
	case d.idle && d.patience > 0:
		d.quiet = true
		return errQuiet
	}
	return errTooSlow
}

// clientGone marks an error of the client's connection as such.
func clientGone(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %v", errEndClientGone, err) // not %w: a reader makes something else of an io.EOF
}

// flush sends the replies that are due.
func (d *dialogue) flush() error {
	if len(d.out) == 0 {
		return nil
	}
	began := time.Now()
	if err := d.s.conn.SetWriteDeadline(began.Add(max(d.patience, time.Second))); err != nil {
		return err
	}
	_, err := d.s.conn.Write(d.out)
	d.patience -= time.Since(began) // a client that does not read makes us wait too
	d.out = d.out[:0]
	if err != nil && isTimeout(err) {
		return errTooSlow
	}
	return clientGone(err)
}

// release gives the buffers back, wiped. A nil dialogue has none.
func (d *dialogue) release() {
	if d != nil {
		d.lines.Release()
	}
}
