package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/pop3"
)

// A login is one attempt, from the client's credentials to its reply.
type login struct {
	s     *session
	creds auth.Credentials
	query auth.Query
	route auth.Route
	other auth.Server   // the server that goes with the other backend of a user who is being moved
	moves bool          // the user is being moved
	conn  *backend.Conn // the session at the backend, once the password was right
	from  string        // the server that decided, "" for none
	came  time.Time     // when the credentials were complete
	toll  time.Duration // how much later a refusal leaves for the failures before
	spent [len(loginStages)]time.Duration
}

// The stages of a login whose time is measured, in their order.
const (
	stageGate = iota
	stageHold
	stageRoute
	stageConnect
	stageGreeting
	stageLogin
)

// loginStages are their names in metrics.
var loginStages = [...]string{
	stageGate: "gate", stageHold: "hold", stageRoute: "route", stageConnect: "connect", stageGreeting: "greeting", stageLogin: "login",
}

// login makes one attempt and answers the client. It returns errLoggedIn when bytes are to be carried from now on,
// nil when the client may try again, any other error when the session is over.
func (s *session) login(ctx context.Context, creds auth.Credentials) error {
	l := &login{s: s, creds: creds, came: time.Now()}
	l.query = auth.Query{
		Name: creds.Name, Client: &s.client, Mechanism: creds.Mechanism, Secret: creds.Secret,
		Attempt: s.talk.failures + 1, Session: s.id,
	}
	defer creds.Secret.Wipe()
	defer func() {
		l.route.Login.Secret.Wipe()
		if s.relay == nil && l.conn != nil { // after a panic, too: it holds a place at the server
			_ = l.conn.Close()
		}
	}()
	s.phase.Store(phaseLoggingIn)
	return l.finish(ctx, l.run(ctx))
}

// run goes from the credentials to the session at the backend.
func (l *login) run(ctx context.Context) error {
	if err := l.timed(ctx, stageGate, l.attempt); err != nil {
		return err
	}
	if err := l.timed(ctx, stageHold, l.hold); err != nil {
		return err
	}
	// Not before: a login that had to wait for longer would be told that it was no question of its password.
	ctx, cancel := context.WithTimeout(ctx, l.s.snap.Timeouts.BackendLogin)
	defer cancel()
	if err := l.timed(ctx, stageRoute, l.find); err != nil {
		return err
	}
	if err := l.timed(ctx, stageGate, l.enter); err != nil {
		return err
	}
	return l.logIn(ctx)
}

func (l *login) timed(ctx context.Context, stage int, step func(context.Context) error) error {
	began := time.Now()
	err := step(ctx)
	l.spent[stage] += time.Since(began)
	return err
}

// attempt asks the gate, before anything is looked up.
func (l *login) attempt(ctx context.Context) error {
	return l.s.visit.Attempt(ctx, &l.query)
}

// hold waits as long as the gate wants, or until the gateway goes down.
func (l *login) hold(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.s.held.Store(&cancel)
	defer l.s.held.Store(nil)
	if l.s.gw.isClosing() { // after arming: the wake may have come just before
		cancel(errShutdown)
	}
	return l.s.visit.Hold(ctx)
}

// find asks the router where the user goes. A name that cannot be one has no key, and goes nowhere.
func (l *login) find(ctx context.Context) (err error) {
	if l.creds.Name.Key == "" {
		return auth.ErrBadName
	}
	l.route, err = l.s.snap.Router.Route(ctx, l.query)
	switch {
	case errors.Is(err, auth.ErrWrongPassword), errors.Is(err, auth.ErrNetwork):
		l.s.snap.Router.Refresh(l.query, &l.route)
	case err == nil && l.route.Verified && l.route.Disabled:
		l.s.snap.Router.Refresh(l.query, &l.route)
		return errDisabled
	case err == nil && l.route.Then != "" && l.s.gw.moved.last(l.route.Account) == l.route.Then:
		l.turn(l.route.Backend)
	}
	return err
}

// enter tells the gate where the login goes.
func (l *login) enter(ctx context.Context) error {
	return l.s.visit.Enter(ctx, &l.route)
}

// logIn logs in at the backend, and where a user who is being moved is refused there, at the other one.
func (l *login) logIn(ctx context.Context) error {
	l.moves = l.route.Then != ""
	err := l.logInAt(ctx)
	if l.moves && wrongPassword(err) {
		l.turn("")
		if err := l.enter(ctx); err != nil {
			return fmt.Errorf("%w: %w", errHalfRefused, err)
		}
		if err = l.logInAt(ctx); err != nil && !wrongPassword(err) {
			err = fmt.Errorf("%w: %w", errHalfRefused, err)
		}
	}
	switch {
	case wrongPassword(err):
		l.s.snap.Router.Refresh(l.query, &l.route)
		if l.route.Verified {
			return fmt.Errorf("%w: %w", errLoginRefused, err)
		}
	case err == nil && l.moves:
		l.s.gw.moved.worked(l.route.Account, l.route.Backend)
	}
	if err == nil && l.route.Disabled {
		return errDisabled
	}
	return err
}

// turn sends the login to the other backend of a user who is being moved, and leaves then to be tried after it. The server that a
// directory named is one of the backend it named.
func (l *login) turn(then string) {
	l.route.Backend, l.route.Then = l.route.Then, then
	l.route.Server, l.other = l.other, l.route.Server
}

// wrongPassword says that a backend has refused the user or the password.
func wrongPassword(err error) bool {
	var refused *backend.Error
	return errors.As(err, &refused) && refused.Kind == backend.WrongPassword
}

// logInAt logs in at the backend that the route leads to now.
func (l *login) logInAt(ctx context.Context) (err error) {
	pool := l.s.snap.Backends.Pool(l.route.Backend)
	if pool == nil {
		return fmt.Errorf("%s sends the user to backend %q, which does not exist", l.route.Label, l.route.Backend)
	}
	req := backend.Request{
		Client:  &l.s.client,
		Session: l.s.id,
		Account: l.route.Account,
		Login:   l.route.Login,
		Server:  l.route.Server,
		Moving:  l.moves,
	}
	if req.Login.Secret == nil {
		req.Login.Secret = l.creds.Secret
	}
	l.conn, err = pool.Login(ctx, &req)
	var refused *backend.Error
	if errors.As(err, &refused) {
		l.from = refused.Server
	} else if err == nil {
		l.from = l.conn.Server
		st := &l.conn.Stages
		l.spent[stageConnect], l.spent[stageGreeting], l.spent[stageLogin] = st.Connect, st.Greeting, st.Login
	}
	return err
}

// finish is the end of every attempt, good or bad: gate, record, metrics, delay, reply, in this order, so that no
// client hears an answer that is not on record. cause is why the login failed, nil when it did not.
func (l *login) finish(ctx context.Context, cause error) error {
	o := outcomeOf(cause)
	if cause != nil {
		l.toll = l.s.visit.Toll()
	}
	switch err := l.s.visit.Done(ctx, o.gate); {
	case err != nil && cause == nil:
		cause, o = err, outcomeOf(err)
	case err != nil: // the record says what was wrong, and the client hears what all from there do
		told := outcomeOf(err)
		o.code, o.text = told.code, told.text
	}
	if err := l.s.gw.recorder.Record(ctx, l.event(o, cause)); err != nil {
		if cause == nil { // what was refused stays refused
			cause = fmt.Errorf("%w: %w", errUnrecorded, err)
			o = outcomeOf(cause)
			_ = l.s.visit.Done(ctx, policy.Undecided) // giving back does not fail
		}
		l.s.gw.say(slog.LevelError, "record", "write the audit record of a login", "session", l.s.id, "error", err)
	}
	l.s.gw.metrics.login(l, o, time.Since(l.came))
	if cause == nil {
		return l.succeed()
	}
	if l.conn != nil {
		_ = l.conn.Close() // the mailbox is let go at once: the client is told that it does not have it
	}
	l.wait(o, cause)
	return l.refuse(o, cause)
}

// succeed tells the client that it is logged in, and makes the session ready to carry bytes.
func (l *login) succeed() error {
	s := l.s
	s.talk.out = pop3.AppendOK(s.talk.out, textWelcome)
	if err := s.talk.flush(); err != nil {
		_ = l.conn.Close()
		return err
	}
	s.visit.Settle()
	s.loggedIn(l, l.conn)
	return errLoggedIn
}

// refuse tells the client why it is not logged in, as far as it may know.
func (l *login) refuse(o outcome, cause error) error {
	s := l.s
	s.gw.sayRefused(l, o, cause)
	s.phase.Store(phaseWaiting)
	s.talk.failures++
	if o.ends {
		return cause // farewell says it
	}
	s.talk.out = pop3.AppendErr(s.talk.out, o.code, o.text)
	if s.talk.failures >= s.snap.Bounds.FailedLogins {
		return errTooManyFailures
	}
	return nil
}

// wait holds a refusal of credentials back until its tick, so that its time does not tell what was wrong.
func (l *login) wait(o outcome, cause error) {
	if !o.paced {
		return
	}
	due := l.s.gw.pace.due(l.ready(), l.s.snap.FailureDelay, l.creds.Name, l.route.Backend, o.code == pop3.CodeAuth && checked(cause))
	due = due.Add(l.toll - l.held())
	if asked := l.came.Add(min(l.route.Wait, maxWait)); asked.After(due) {
		due = asked
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.s.gw.closing:
	}
}

// held is how much of its toll the login has waited before it went on.
func (l *login) held() time.Duration { return min(l.toll, l.spent[stageHold]) }

// ready is when the login came, less all that was made to wait: what failures cost one client must not be remembered as the pace of a
// backend, which others keep, too. What a policy service asks for counts by whole ticks, so that the ticks stay what they are.
func (l *login) ready() time.Time {
	held := l.held()
	if tick := l.s.snap.FailureDelay; tick > 0 {
		held += (l.spent[stageHold] - held).Truncate(tick)
	}
	return l.came.Add(held)
}

// maxWait bounds the pause before a refusal that a directory may ask for.
const maxWait = 30 * time.Second

// event is the attempt's audit record.
func (l *login) event(o outcome, cause error) *audit.Event {
	name := audit.LoginRefused
	if o.gate == policy.Accepted && o.reason == "" {
		name = audit.LoginAccepted
	}
	e := l.s.event(name)
	e.User = l.creds.Name.Full()
	e.Mechanism = l.creds.Mechanism
	e.Tenant = l.route.Tenant
	e.Backend = l.route.Backend
	e.Server = l.from
	e.Reason = o.reason
	e.Repeated = (o.gate == policy.Refused || o.gate == policy.Unknown) && l.s.visit.Repeated()
	var limited *policy.LimitError
	if errors.As(cause, &limited) {
		e.Limit = limited.What.String()
	}
	if v := l.s.visit.Verdict(); v.Action != access.Allow {
		e.Rule, e.Because = v.Rule, v.Because()
	}
	return e
}
