package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/pop3"
)

// A session is one client connection. Only the goroutine that owns it now touches its fields; phase, held, raw's
// deadlines and raw's Close are for everybody.
type session struct {
	gw       *Gateway
	snap     *Snapshot
	listener *Listener
	id       string
	raw      *clientConn // the connection below TLS
	conn     net.Conn    // what commands are read from: raw, or TLS over it
	client   auth.Client
	visit    *policy.Visit
	talk     *dialogue // what is needed before login only
	relay    *relay    // what is needed after login only
	began    time.Time
	phase    atomic.Int32
	cutOff   atomic.Bool                             // by the gateway's end
	held     atomic.Pointer[context.CancelCauseFunc] // ends the wait before a login; nil while there is none
	facts    *audit.TLS                              // client.TLS as records show it

	handshakeBy time.Time // when the handshake at work must be done
	slot        *slot     // its turn
}

// The phases of a session, as far as others must know them.
const (
	phaseArriving  = iota // the client is not known yet: a PROXY header may name another
	phaseWaiting          // for the client, before login
	phaseLoggingIn        // the client waits for us
	phaseRelaying         // nothing of ours may be written any more
)

// A stage is a part of a session's life. It returns the stage that follows, nil at the end of the session. A quiet
// session, which will wait for a while, goes on with it on a fresh goroutine.
type stage func(*session, context.Context) (next stage, quiet bool)

// errQuiet means that nothing has come for a while: what waits on goes to a fresh goroutine, because a stack that
// has done TLS is several times as large as one that only waits.
var errQuiet = errors.New("nothing has come for a while")

// quietTime is how long nothing must come until a fresh goroutine is worth its while.
const quietTime = time.Second

// run goes through the stages from the given one on.
func (s *session) run(ctx context.Context, next stage) {
	quiet := false
	defer func() {
		// One session's slip must not end all the others: it is logged with its stack, counted, and closed.
		if p := recover(); p != nil {
			s.slipped(p)
			s.end(errInternal)
			quiet = false
		}
		if quiet {
			go s.run(ctx, next)
			return
		}
		s.gw.serving.Done()
	}()
	for next != nil && !quiet {
		next, quiet = next(s, ctx)
	}
}

// slipped tells of a panic.
func (s *session) slipped(p any) {
	s.gw.metrics.panics.Inc()
	s.gw.log.Error("session ended by a fault in popgate; please report it", "session", s.id,
		"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// open is the first stage: PROXY header, admission, and TLS where it comes first.
func (s *session) open(ctx context.Context) (stage, bool) {
	s.conn = s.raw
	if len(s.listener.ProxyProtocolFrom) > 0 {
		err := s.readHeader(time.Now().Add(s.snap.Timeouts.ProxyHeader))
		switch {
		case s.stopped(err):
			return s.turnAway(audit.Shutdown)
		case err != nil:
			s.gw.sayStranger(s, "sent no usable PROXY header ("+err.Error()+")")
			return s.turnAway(audit.ProxyHeader)
		}
	}
	s.phase.Store(phaseWaiting)
	if !s.listener.takes(s.client.Addr.Addr()) {
		return s.turnAway(audit.AccessDenied)
	}
	visit, err := s.snap.Gate.Admit(ctx, &s.client)
	if err != nil {
		if s.listener.TLS != TLSImplicit { // on 995 nothing can be said before TLS
			_ = s.raw.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = s.raw.Write(pop3.AppendErr(nil, pop3.CodeSysTemp, textBusy))
		}
		return s.deny(err)
	}
	s.visit = visit
	s.gw.recorder.Post(s.event(audit.SessionOpened))
	if s.listener.TLS == TLSImplicit {
		if err := s.handshake(); err != nil {
			return s.end(err)
		}
	}
	return (*session).converse, false
}

// handshake does the TLS handshake on the raw connection, within its own deadline.
func (s *session) handshake() error {
	s.handshakeBy = time.Now().Add(s.snap.Timeouts.Handshake)
	if err := s.raw.SetDeadline(s.handshakeBy); err != nil {
		return &tlsError{err}
	}
	if s.gw.isClosing() { // after arming: the wake may have come just before
		return errShutdown
	}
	conn := tls.Server(s.raw, s.listener.TLSConfig)
	began := time.Now()
	err := conn.Handshake()
	s.giveSlot()
	s.visit.Handshaken()
	if err != nil {
		if s.stopped(err) {
			return errShutdown
		}
		s.gw.metrics.handshakeFailed(s.listener.Name, err)
		s.sayIfForeign(err)
		return &tlsError{err}
	}
	state := conn.ConnectionState()
	s.client.TLS = auth.TLSFrom(&state)
	s.conn = conn
	s.gw.metrics.handshake(s.client.TLS, time.Since(began))
	return nil
}

// converse is the stage of the commands before login.
func (s *session) converse(ctx context.Context) (stage, bool) {
	if s.talk == nil {
		s.talk = newDialogue(s)
		s.talk.out = pop3.AppendOK(s.talk.out, textGreeting)
	}
	for {
		line, err := s.talk.command()
		if errors.Is(err, errQuiet) {
			return (*session).converse, true
		}
		if err != nil {
			return s.end(s.farewell(err))
		}
		err = s.do(ctx, line)
		switch {
		case errors.Is(err, errLoggedIn):
			return (*session).carry, false
		case errors.Is(err, errTLSStarted):
			return (*session).converse, false
		case err != nil:
			return s.end(s.farewell(err))
		}
	}
}

// farewell sends the last reply that err asks for and all that waits to be sent. It returns err.
func (s *session) farewell(err error) error {
	if o := outcomeOf(err); o.says() {
		s.talk.out = pop3.AppendErr(s.talk.out, o.code, o.text)
	}
	var foreign *foreignError
	if errors.As(err, &foreign) {
		s.sayForeign(foreign.protocol)
	}
	_ = s.talk.flush() // the session is over: err is what ended it
	return err
}

// carry is the stage after login: bytes both ways.
func (s *session) carry(ctx context.Context) (stage, bool) {
	err := s.relay.run(ctx)
	if errors.Is(err, errQuiet) {
		return (*session).carry, true
	}
	return s.end(err)
}

// end closes the session and leaves its records. It is always the last call of a session.
func (s *session) end(err error) (stage, bool) {
	s.giveSlot()
	if s.cutOff.Load() && !errors.Is(err, errQuit) {
		err = errShutdown // what broke, broke by our own hand
	}
	o := outcomeOf(err)
	switch {
	case s.relay != nil: // it has closed what is to be closed in an orderly way, unless it panicked
		_ = s.relay.conn.Close()
	case errors.Is(err, errQuit), errors.Is(err, errTooManyFailures), o.says():
		s.closeGently()
	}
	_ = s.raw.Close()
	if s.visit != nil {
		s.visit.Close() // not before the descriptor is given back, or there could be more of them than sessions may be
	}
	s.gw.live.remove(s)
	s.talk.release()

	e := s.event(audit.SessionClosed)
	e.Reason = o.reason
	e.End = &audit.End{DurationMS: time.Since(s.began).Milliseconds()}
	if s.relay != nil {
		s.relay.describe(e)
	}
	var limited *policy.LimitError
	if errors.As(err, &limited) {
		e.Limit = limited.What.String()
	}
	s.gw.recorder.Post(e)
	s.gw.metrics.sessionEnded(e)
	s.logEnd(e, err)
	return nil, false
}

// turnAway ends a connection that has not become a session.
func (s *session) turnAway(reason audit.Reason) (stage, bool) {
	return s.leave(audit.Refusal{Reason: reason})
}

// deny ends a connection that the gate does not let in, and leaves on record what it was that refused it.
func (s *session) deny(cause error) (stage, bool) {
	r := audit.Refusal{Reason: outcomeOf(cause).reason}
	if limited, ok := errors.AsType[*policy.LimitError](cause); ok {
		r.Limit = limited.What.String()
	}
	if barred, ok := errors.AsType[*policy.AccessError](cause); ok {
		r.Rule = barred.Rule
	}
	return s.leave(r)
}

func (s *session) leave(r audit.Refusal) (stage, bool) {
	s.gw.refuse(r, &s.client)
	_ = s.raw.Close()
	s.gw.live.remove(s)
	return nil, false
}

// closeGently lets what was written last arrive: it ends the stream and waits a moment for the client's own end.
// Closing at once, with something unread, would reset the connection and could take the last reply with it.
func (s *session) closeGently() {
	s.closeStream()
	discard(s.raw)
}

// closeStream tells the client, in TLS and in TCP, that nothing more comes. What the client still sends may be read
// for a moment. All here is a courtesy: an error means that the client is gone already.
func (s *session) closeStream() {
	s.raw.stalls.limit.Store(0)
	_ = s.raw.SetDeadline(time.Now().Add(lingerTime))
	if s.conn != net.Conn(s.raw) {
		_ = closeWrite(s.conn)
	}
	_ = closeWrite(s.raw.Conn)
}

// lingerTime is how long a closed session waits for the client's end of the stream.
const lingerTime = 2 * time.Second

// discard reads to the end, an error, or a bound that no well-meaning client comes near.
func discard(c net.Conn) {
	var b [512]byte
	for range 128 {
		if _, err := c.Read(b[:]); err != nil {
			return
		}
	}
}

// event begins a record with what is known of the session.
func (s *session) event(name audit.Name) *audit.Event {
	e := &audit.Event{
		Name:     name,
		Session:  s.id,
		Listener: s.listener.Name,
		Client:   s.client.Addr,
		Local:    s.client.Local.Addr(),
		Legacy:   s.legacy(),
	}
	if s.facts == nil {
		s.facts = audit.TLSOf(s.client.TLS)
	}
	e.TLS = s.facts
	return e
}

// logEnd writes the log's line for a session: at level debug, for all but the error is in the audit's record of it.
func (s *session) logEnd(e *audit.Event, err error) {
	log := s.gw.log
	if !log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []slog.Attr{
		slog.String("session", s.id),
		slog.String("listener", e.Listener),
		slog.String("client", e.Client.String()),
		slog.String("user", e.User),
		slog.String("backend", e.Backend),
		slog.String("server", e.Server),
		slog.String("reason", string(e.Reason)),
		slog.Int64("bytes_out", e.BytesOut),
		slog.Int64("took_ms", e.DurationMS),
	}
	if err != nil && !errors.Is(err, errQuit) {
		attrs = append(attrs, slog.Any("error", err))
	}
	log.LogAttrs(context.Background(), slog.LevelDebug, "session closed", attrs...)
}

// wake makes a session that waits before login look up: its next read from the client fails, and a login that is held back ends.
func (s *session) wake() {
	if end := s.held.Load(); end != nil {
		(*end)(errShutdown)
	}
	if s.phase.Load() <= phaseWaiting {
		_ = s.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// stopped says that err is the gateway's going down and no fault of the client: wake or cut may have struck a read.
func (s *session) stopped(err error) bool {
	return s.gw.isClosing() && (isTimeout(err) || errors.Is(err, net.ErrClosed) || errors.Is(err, errShutdown))
}

// cut breaks the session off, its backend's side too: the gateway ends now.
func (s *session) cut() {
	s.cutOff.Store(true)
	_ = s.raw.Close()
	if s.phase.Load() == phaseRelaying {
		s.relay.brake.release()
		_ = s.relay.conn.Close()
	}
}

// loggedIn hands the session over to its relay.
func (s *session) loggedIn(l *login, conn *backend.Conn) {
	s.relay = newRelay(s, l, conn)
	s.phase.Store(phaseRelaying)
	s.talk.release()
	s.talk = nil
}
