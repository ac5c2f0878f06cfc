package backend

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/proxy/pop3"
)

// A step is one part of the dialogue, in a backend's fixed order.
type step struct {
	name string
	do   func(*attempt, context.Context) error
}

const (
	stepConnect  = "connect"
	stepTLS      = "TLS"
	stepGreeting = "greeting"
	stepAuth     = "AUTH"
)

// openSteps are what every connection begins with.
func openSteps(c *Config) []step {
	steps := []step{{stepConnect, (*attempt).connect}}
	if c.proxies() {
		steps = append(steps, step{"PROXY", (*attempt).proxy})
	}
	if c.TLS == TLSImplicit {
		steps = append(steps, step{stepTLS, (*attempt).implicitTLS})
	}
	steps = append(steps, step{stepGreeting, (*attempt).greeting})
	if c.TLS == TLSStart {
		steps = append(steps, step{"STLS", (*attempt).stls})
	}
	return steps
}

// loginSteps are what a login goes on with.
func loginSteps(c *Config, method auth.Method) []step {
	var steps []step
	switch c.ClientInfo {
	case ClientXClient:
		steps = append(steps, step{"XCLIENT", (*attempt).xclient})
	case ClientXOIP:
		steps = append(steps, step{"XOIP", (*attempt).xoip})
	}
	if method == auth.MethodPlain {
		return append(steps, step{stepAuth, (*attempt).plain})
	}
	return append(steps, step{"USER", (*attempt).user}, step{"PASS", (*attempt).pass})
}

// An attempt is one connection to one server, until it is logged in or given up.
type attempt struct {
	pool   *Pool
	member *member
	req    *Request           // nil in a check
	as     *auth.BackendLogin // nil in a check that does not log in
	secret []byte             // the login's; not a copy
	wire

	begun, connected, greeted time.Time
	offersXClient             bool
	hello                     pop3.Reply // the greeting
	named                     bool       // the server has been told of a client before its greeting
	passed                    bool       // the password may have left: no other server may be asked
}

// mode is how TLS starts at the server.
func (a *attempt) mode() string { return a.pool.planOf(a.member).mode }

// loginInPlace is login with a place at the server, which is given back unless the connection has it from now on.
func (a *attempt) loginInPlace(ctx context.Context) (c *Conn, err *Error) {
	defer func() {
		if c != nil {
			return
		}
		if err == nil { // a panic, which ends one session and shall not cost the others a place for ever
			a.close()
		}
		a.member.server.places.give()
	}()
	return a.login(ctx)
}

// login runs all steps. It returns nil for one of its results.
func (a *attempt) login(ctx context.Context) (*Conn, *Error) {
	steps := a.pool.planOf(a.member).login
	if a.as.Method == auth.MethodPlain {
		steps = a.pool.planOf(a.member).plain
	}
	if err := a.run(ctx, steps); err != nil {
		a.close()
		return nil, err
	}
	c := &Conn{
		Conn:   a.conn,
		Server: a.member.address.text,
		Stages: Stages{
			Connect:  a.connected.Sub(a.begun),
			Greeting: a.greeted.Sub(a.connected),
			Login:    time.Since(a.greeted),
		},
		below: a.below,
	}
	if rest := a.lines.Buffered(); len(rest) > 0 {
		c.Leftover = bytes.Clone(rest)
	}
	if err := a.disarm(ctx); err != nil {
		a.close()
		return nil, a.failed(ctx, steps[len(steps)-1].name, err)
	}
	a.lines.Release()
	c.place.Store(&a.member.server.places)
	a.member.server.tally().took.add(c.Stages.Connect + c.Stages.Greeting + c.Stages.Login)
	return c, nil
}

// close gives up the connection. A server behind a refused login finds out by the end of the stream.
func (a *attempt) close() {
	if a.raw == nil {
		return
	}
	a.stop()
	if a.lines != nil {
		a.lines.Release()
	}
	_ = a.raw.Close()
}

func (a *attempt) run(ctx context.Context, steps []step) *Error {
	for i := range steps {
		if err := steps[i].do(a, ctx); err != nil {
			return a.failed(ctx, steps[i].name, err)
		}
	}
	return nil
}

// failed makes an Error of what a step returned, which may be one already as far as the step knows.
func (a *attempt) failed(ctx context.Context, name string, err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Kind: a.kind(err), Err: err}
		if end := ended(ctx); end != nil {
			e.Kind, e.Err = Local, end
		}
	}
	e.Server, e.Step = a.member.address.text, name
	a.diagnose(e)
	switch e.Kind {
	case Down, Temporary, Protocol, RefusesPlaintext:
		a.member.server.failed(e)
	}
	if a.greeted.IsZero() {
		a.settle(e)
	}
	return e
}

// kind says what an error means that is no answer.
func (a *attempt) kind(err error) Kind {
	switch {
	case ours(err):
		return Local
	case errors.Is(err, errLongLine), errors.Is(err, errEarly), errors.Is(err, errHeader), errors.Is(err, errInjected):
		return Protocol
	case a.greeted.IsZero():
		return Down
	}
	return Temporary
}

// ended says why ctx is over, nil where it is not. The deadline counts from its time on, for a connection that has it
// as its own may fail a moment before ctx does.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return nil
}

// another says that another server may be tried after err: this one has not seen the password, and has not said
// anything about the user that another would say as well.
func (a *attempt) another(ctx context.Context, err *Error) bool {
	if a.passed || ended(ctx) != nil {
		return false
	}
	switch err.Kind {
	case Down, Temporary, Protocol, RefusesPlaintext:
		return true
	case Local:
		return noPort(err.Err)
	}
	return false
}

func (a *attempt) connect(ctx context.Context) error {
	a.begun = time.Now()
	c, err := a.pool.backends.dial(ctx, a.pool.dialer, a.member.address)
	if err != nil {
		return err
	}
	a.raw, a.conn = c, c
	a.stop = context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })
	a.connected = time.Now()
	return a.armBy(ctx, a.connectBy())
}

// connectBy is when a connection must stand, TLS included; zero for no limit.
func (a *attempt) connectBy() time.Time {
	if a.pool.config.ConnectTimeout == 0 {
		return time.Time{}
	}
	return a.begun.Add(a.pool.config.ConnectTimeout)
}

func (a *attempt) greeting(ctx context.Context) error {
	if err := a.arm(ctx, a.pool.config.GreetingTimeout); err != nil {
		return err
	}
	a.lines = pop3.NewReader(a.conn)
	line, err := a.next()
	if err != nil {
		return err
	}
	r, err := parseReply(line)
	if err != nil {
		return err
	}
	if !r.OK {
		if wantsTLS(strings.ToLower(r.Text)) {
			return a.refusesPlaintext(stepGreeting, r)
		}
		return &Error{Kind: Temporary, Reply: r}
	}
	a.greeted = time.Now()
	a.hello, a.offersXClient = r, r.Code == "XCLIENT"
	a.arrived()
	return nil
}

func (a *attempt) user(ctx context.Context) error {
	line := append(append(append(a.line[:0], "USER "...), a.as.User...), '\r', '\n')
	r, err := a.command(ctx, line)
	if err != nil {
		return err
	}
	s := a.member.server
	if r.OK {
		s.willing.Store(true)
		return nil
	}
	if a.mistaken(r) {
		return &Error{Kind: Protocol, Reply: r, Err: errHeader}
	}
	kind := a.kindOfUser(r)
	if kind == RefusesPlaintext {
		return a.refusesPlaintext("USER", r)
	}
	return &Error{Kind: kind, Reply: r}
}

func (a *attempt) pass(ctx context.Context) error {
	// Sized first: were the buffer to grow, the secret would be left behind in the old one.
	line := a.line[:0]
	if n := len("PASS \r\n") + len(a.secret); n > cap(line) {
		line = make([]byte, 0, n)
	}
	line = append(append(append(line, "PASS "...), a.secret...), '\r', '\n')
	err := a.ready(ctx)
	if err == nil {
		a.passed = true
		_, err = a.conn.Write(line)
	}
	clear(line)
	if err != nil {
		return err
	}
	if line, err = a.next(); err != nil {
		return err
	}
	return a.verdict("PASS", line)
}

// verdict is what line, the answer to the password, says; nil is that the login is done.
func (a *attempt) verdict(at string, line []byte) error {
	r, err := pop3.ParseReply(line)
	if err != nil {
		return &Error{Kind: Protocol, Err: err} // without the line: it may have the secret in it in any form
	}
	if r.OK {
		return nil
	}
	kind := a.kindOfPass(r)
	if r = discreet(r, line, a.secret); kind == RefusesPlaintext {
		return a.refusesPlaintext(at, r)
	}
	return &Error{Kind: kind, Reply: r}
}

func (a *attempt) refusesPlaintext(at string, r pop3.Reply) error {
	a.advise(warnPlaintext, "backend refuses plaintext logins; nobody can log in there", plaintextFix,
		slog.String("step", at), slog.String("answer", replyText(r)))
	return &Error{Kind: RefusesPlaintext, Reply: r}
}
