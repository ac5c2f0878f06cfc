package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/proxy/pop3"
)

// A way is how a connection begins.
type way struct {
	tls    bool
	header string // "", ClientProxyV1 or ClientProxyV2
}

// A visit is one connection of an examination, greeted.
type visit struct {
	way                way
	raw, conn          net.Conn
	lines              *pop3.Reader
	stop               func() bool
	timeout            time.Duration
	connected, greeted time.Duration
	line               string // of the greeting
	greeting           pop3.Reply
	state              *tls.ConnectionState
}

// A visitError is why there was no greeting.
type visitError struct {
	step    string
	refused bool // the server greeted, with -ERR
	err     error
}

func (e *visitError) Error() string { return e.step + ": " + e.err.Error() }
func (e *visitError) Unwrap() error { return e.err }

// stranger is the client that the server is told of: one of a documentation network (RFC 5737), who came over TLS as
// popgate's clients do.
func stranger() *Request {
	return &Request{
		Client: &auth.Client{
			Addr:  netip.MustParseAddrPort("192.0.2.1:50110"),
			Local: netip.MustParseAddrPort("192.0.2.2:995"),
			TLS:   &auth.TLS{Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256"},
		},
		Session: doctorName,
	}
}

// open connects and reads the greeting. Its errors are of visitError.
func (x *exam) open(ctx context.Context, w way, timeout time.Duration) (*visit, error) {
	return x.openAt(ctx, x.member.address, w, timeout)
}

func (x *exam) openAt(ctx context.Context, a address, w way, timeout time.Duration) (*visit, error) {
	began := time.Now()
	dialing, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := x.pool.backends.dial(dialing, x.pool.dialer, a)
	if err != nil {
		return nil, &visitError{step: stepConnect, err: err}
	}
	v := &visit{way: w, raw: c, conn: c, timeout: timeout, connected: time.Since(began)}
	v.stop = context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })
	if err := v.begin(ctx, x.lenient()); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

func (v *visit) begin(ctx context.Context, lenient *tls.Config) error {
	if v.way.header != "" {
		version := byte(2)
		if v.way.header == ClientProxyV1 {
			version = 1
		}
		header, err := proxyHeader(version, stranger())
		if err == nil {
			err = v.send(ctx, string(header))
		}
		if err != nil {
			return &visitError{step: "PROXY", err: err}
		}
	}
	if v.way.tls {
		if err := v.handshake(ctx, lenient); err != nil {
			return &visitError{step: stepTLS, err: err}
		}
	}
	began := time.Now()
	v.lines = pop3.NewReader(v.conn)
	line, err := v.next(ctx)
	v.greeted = time.Since(began)
	if err != nil {
		return &visitError{step: stepGreeting, err: err}
	}
	v.line = line
	if v.greeting, err = pop3.ParseReply([]byte(line)); err != nil {
		return &visitError{step: stepGreeting, refused: true, err: fmt.Errorf("%w: %q", err, clip(line, 80))}
	}
	if !v.greeting.OK {
		return &visitError{step: stepGreeting, refused: true, err: errors.New(replyText(v.greeting))}
	}
	v.line = replyText(v.greeting)
	return nil
}

func (v *visit) handshake(ctx context.Context, lenient *tls.Config) error {
	if err := v.arm(ctx); err != nil {
		return err
	}
	t := tls.Client(v.conn, lenient)
	if err := t.Handshake(); err != nil { // no HandshakeContext: v.stop does the same
		return err
	}
	state := t.ConnectionState()
	v.conn, v.state = t, &state
	return nil
}

// arm bounds what comes next.
func (v *visit) arm(ctx context.Context) error {
	by := time.Now().Add(v.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(by) {
		by = d
	}
	if err := v.raw.SetDeadline(by); err != nil {
		return err
	}
	return ctx.Err()
}

func (v *visit) send(ctx context.Context, text string) error {
	if err := v.arm(ctx); err != nil {
		return err
	}
	_, err := v.conn.Write([]byte(text))
	return err
}

// next reads a line.
func (v *visit) next(ctx context.Context) (string, error) {
	if err := v.arm(ctx); err != nil {
		return "", err
	}
	line, err := v.lines.Line(replyLimit)
	if errors.Is(err, pop3.ErrLineTooLong) {
		err = errLongLine
	}
	return string(line), err
}

// ask sends a command and reads the first line of its answer. It says in one word what came.
func (v *visit) ask(ctx context.Context, command string) (pop3.Reply, string) {
	if err := v.send(ctx, command+"\r\n"); err != nil {
		return pop3.Reply{}, outcome(err)
	}
	return v.answer(ctx)
}

// answer reads the first line of an answer.
func (v *visit) answer(ctx context.Context) (pop3.Reply, string) {
	line, err := v.next(ctx)
	if err != nil {
		return pop3.Reply{}, outcome(err)
	}
	r, err := pop3.ParseReply([]byte(line))
	switch {
	case err != nil:
		return r, answerGarbage
	case r.OK:
		return r, answerTaken
	}
	return r, answerRefused
}

// outcome says in one word why there was no answer.
func outcome(err error) string {
	switch {
	case errors.Is(err, errLongLine):
		return answerGarbage
	case timedOut(err):
		return answerSilent
	}
	return answerClosed
}

// list reads lines up to the final dot, most of them at most.
func (v *visit) list(ctx context.Context, most int) ([]string, string) {
	var all []string
	for range most {
		line, err := v.next(ctx)
		if err != nil {
			return all, outcome(err)
		}
		if line == "." {
			return all, answerTaken
		}
		all = append(all, line)
	}
	return all, answerGarbage
}

// capa asks for the capabilities.
func (v *visit) capa(ctx context.Context) (pop3.Capabilities, string) {
	if _, how := v.ask(ctx, "CAPA"); how != answerTaken {
		return nil, how
	}
	lines, how := v.list(ctx, maxCapabilities)
	var caps pop3.Capabilities
	for _, line := range lines {
		if c := pop3.ParseCapability([]byte(line)); c != "" {
			caps = append(caps, c)
		}
	}
	return caps, how
}

// quit takes leave and closes.
func (v *visit) quit(ctx context.Context) {
	_, _ = v.ask(ctx, "QUIT")
	v.close()
}

func (v *visit) close() {
	v.stop()
	if v.lines != nil {
		v.lines.Release()
	}
	_ = v.raw.Close()
}

// stamped says that the greeting has a timestamp for APOP (RFC 1939 section 7).
func (v *visit) stamped() bool {
	_, after, ok := strings.Cut(v.greeting.Text, "<")
	stamp, _, closed := strings.Cut(after, ">")
	return ok && closed && strings.Contains(stamp, "@") && !strings.Contains(stamp, " ")
}

// sameHost says that both ends are this machine.
func (v *visit) sameHost() bool {
	local, ok := v.raw.LocalAddr().(*net.TCPAddr)
	remote, ok2 := v.raw.RemoteAddr().(*net.TCPAddr)
	return ok && ok2 && (local.IP.Equal(remote.IP) || remote.IP.IsLoopback())
}
