package backend

import (
	"log/slog"
	"net"
	"time"
)

// busyFor is how long a server is passed over that greeted with -ERR: it lives, but has too much to do.
const busyFor = 2 * time.Second

// settle draws the conclusions about a server that a connection failed to, before or in its greeting.
func (a *attempt) settle(e *Error) {
	s := a.member.server
	a.count(e)
	if a.raw != nil && e.Kind != Local {
		if tcp, ok := a.raw.RemoteAddr().(*net.TCPAddr); ok {
			s.name.shun(tcp.AddrPort().Addr().Unmap())
		}
	}
	switch {
	case e.Kind == Local:
	case a.named:
		// The server was told of a client before it greeted, and may have meant that client: nobody shall be able to
		// mark a server dead for others. A check, which tells of none, finds out.
		s.suspect()
	default:
		d := a.pool.config.RetryAfter
		if e.Reply.Text != "" || e.Reply.Code != "" {
			d = min(d, busyFor)
		}
		if s.dead(a.pool.backends.now(), d) {
			a.pool.backends.log.Warn("server is down", slog.String("backend", s.backend),
				slog.String("server", s.address), slog.Any("cause", e))
		}
		if a.req != nil {
			s.suspect()
		}
	}
}

func (a *attempt) count(e *Error) {
	r := resultConnect
	switch {
	case e.Kind == Local:
		r = resultLocal
	case timedOut(e.Err):
		r = resultTimeout
	case e.Step == stepTLS:
		r = resultTLS
	case e.Step == stepGreeting:
		r = resultGreeting
	}
	a.member.server.tally().connects[r].Add(1)
}

// arrived notes that the server greeted.
func (a *attempt) arrived() {
	s := a.member.server
	s.tally().connects[resultOK].Add(1)
	if s.alive(a.pool.backends.now()) {
		a.pool.backends.log.Info("server is up again", slog.String("backend", s.backend),
			slog.String("server", s.address))
	}
}
