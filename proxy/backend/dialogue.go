package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/popgate/popgate/proxy/pop3"
)

// replyLimit bounds a server's reply line. RFC 2449 section 4 says 512 octets with the line end; some say more.
const replyLimit = 1024

// past interrupts what waits on a connection when it is set as its deadline.
var past = time.Unix(1, 0)

// A wire is the connection of an attempt: one command at a time, each answer within its deadline and a bound.
type wire struct {
	raw   net.Conn // TCP
	conn  net.Conn // raw, or TLS on top of below
	below *underTLS
	lines *pop3.Reader
	stop  func() bool // ends the interruption of raw by the context

	answers int       // to commands before the password
	line    [192]byte // commands are built here; most fit
}

// arm sets the deadline of what comes next: timeout from now, or that of ctx where that is earlier.
func (w *wire) arm(ctx context.Context, timeout time.Duration) error {
	var by time.Time
	if timeout > 0 {
		by = time.Now().Add(timeout)
	}
	return w.armBy(ctx, by)
}

func (w *wire) armBy(ctx context.Context, by time.Time) error {
	if d, ok := ctx.Deadline(); ok && (by.IsZero() || d.Before(by)) {
		by = d
	}
	if err := w.raw.SetDeadline(by); err != nil {
		return err
	}
	return ctx.Err() // behind SetDeadline, which may have undone the interruption by ctx
}

// disarm takes all limits of the login off the connection. It fails where ctx has come in between.
func (w *wire) disarm(ctx context.Context) error {
	if !w.stop() {
		return ctx.Err()
	}
	return w.raw.SetDeadline(time.Time{})
}

// ready arms the deadline for one command and its reply, and makes sure that the next reply will be that command's.
func (a *attempt) ready(ctx context.Context) error {
	if len(a.lines.Buffered()) > 0 {
		if a.pool.config.proxies() && a.answers == 0 {
			return errHeader
		}
		return errEarly
	}
	return a.arm(ctx, a.pool.config.ReplyTimeout)
}

// ask sends a command, in one write, and returns the line that answers it, until the next read.
func (a *attempt) ask(ctx context.Context, command []byte) ([]byte, error) {
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	if _, err := a.conn.Write(command); err != nil {
		return nil, err
	}
	line, err := a.next()
	if err == nil {
		a.answers++
	}
	return line, err
}

// command is ask for a reply.
func (a *attempt) command(ctx context.Context, line []byte) (pop3.Reply, error) {
	answer, err := a.ask(ctx, line)
	if err != nil {
		return pop3.Reply{}, err
	}
	return parseReply(answer)
}

// parseReply reads a reply to what came before the password: where it is none, the error shows the line.
func parseReply(line []byte) (pop3.Reply, error) {
	r, err := pop3.ParseReply(line)
	if err != nil {
		return pop3.Reply{}, &Error{Kind: Protocol, Err: fmt.Errorf("%w: %q", err, line[:min(len(line), 80)])}
	}
	return r, nil
}

// next reads one line from the server. Its errors say that they are the server's: a caller that holds a client's
// connection as well must not take them for that one's.
func (w *wire) next() ([]byte, error) {
	line, err := w.lines.Line(replyLimit)
	switch {
	case errors.Is(err, pop3.ErrLineTooLong):
		return nil, errLongLine
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errClosed
	}
	return line, err
}
