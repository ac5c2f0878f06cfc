package backend

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/proxy/pop3"
)

// A server is what popgate remembers of one server of one backend. It outlives reloads; any goroutine may use it.
type server struct {
	backend, address string

	// deadUntil is 0 while the server is believed alive, else when it may be tried again, by Backends.now.
	deadUntil atomic.Int64
	// sickUntil is the same for a server that greets and yet fails logins.
	sickUntil atomic.Int64
	breaker   breaker
	ban       ban
	// informed is the client_info that the server took last, nil for none; deaf is that it takes it no more.
	informed atomic.Pointer[string]
	deaf     atomic.Bool
	// since is when the server came back, or was added by a reload, by Backends.now; 0 where it was there all the time.
	since atomic.Int64
	// fallen is that the server is dead for more than being busy.
	fallen atomic.Bool
	// drained is that an operator has taken the server out of service.
	drained atomic.Bool
	places  places
	name    hostState // of the server's address, where that has one
	// pacer is what the view in use paces logins with; Backends.mu.
	pacer *limit.Pacer
	// last is what went wrong there last, nil for nothing.
	last atomic.Pointer[lastError]
	// willing is that the server has said +OK to USER since it was dead last, if ever.
	willing atomic.Bool
	// initial is that the server wants the response of AUTH PLAIN in the same line.
	initial atomic.Bool
	// caps is the server's last answer to CAPA, nil until there is one.
	caps atomic.Pointer[pop3.Capabilities]
	// poke asks for a check soon.
	poke chan struct{}
	// shared is what a directory's servers of one backend have in common of counts; nil for others, which have their own.
	shared *counts
	counts counts
	// said is when each warning may be logged again, by Backends.now.
	said [warnings]atomic.Int64
	// saidDown is that the log's last word on the server is that it is down.
	saidDown atomic.Bool
}

func newServer(backend, address string) *server {
	s := &server{backend: backend, address: address, poke: make(chan struct{}, 1)}
	s.name.poke = make(chan struct{}, 1)
	return s
}

// tally is what the server's numbers are added to.
func (s *server) tally() *counts {
	if s.shared != nil {
		return s.shared
	}
	return &s.counts
}

// lastError is what went wrong last.
type lastError struct {
	at   time.Time
	text string
}

// failed notes what went wrong.
func (s *server) failed(e *Error) { s.last.Store(&lastError{time.Now(), e.Error()}) }

// A warning is something worth a log line that would otherwise come with every login.
type warning int

const (
	warnPlaintext warning = iota
	warnXClient
	warnXClientRefused
	warnXOIP
	warnPublic
	warnProxy
	warnCertificate
	warnSTLS
	warnPlain
	warnProbe
	warnName
	warnDown
	warnings
)

// every is how often w is logged of one server.
func (w warning) every() time.Duration {
	if w == warnPublic {
		return 24 * time.Hour // it is about what works
	}
	return time.Minute
}

// level is how loud w is: an error is what keeps users from their mail, or clients' addresses from the server's limits.
func (w warning) level() slog.Level {
	if w == warnPublic || w == warnXOIP || w == warnName {
		return slog.LevelWarn
	}
	return slog.LevelError
}

// due says that w may be logged now, to one caller in its time.
func (s *server) due(w warning, now time.Duration) bool {
	at := s.said[w].Load()
	return int64(now) >= at && s.said[w].CompareAndSwap(at, int64(now+w.every()))
}

// up says that the server is believed alive.
func (s *server) up() bool {
	return s.deadUntil.Load() == 0 && s.sickUntil.Load() == 0
}

// usable says that a login may try the server now. Of the logins that come when a dead or failing server's time is up, one is
// told so, and the others go on passing it over until that one knows.
func (s *server) usable(now, retryAfter time.Duration) bool {
	return retryAfter == 0 || due(&s.deadUntil, now, retryAfter) && due(&s.sickUntil, now, retryAfter)
}

func due(at *atomic.Int64, now, again time.Duration) bool {
	until := at.Load()
	return until == 0 || int64(now) >= until && at.CompareAndSwap(until, int64(now+again))
}

// dead marks the server as dead for d, and says whether the log shall hear of it: not each time that a server too busy
// to greet comes and goes.
func (s *server) dead(now, d time.Duration) bool {
	was := s.deadUntil.Swap(int64(now + d))
	if d > busyFor {
		s.fallen.Store(true)
	}
	s.willing.Store(false) // it may come back with another configuration
	s.initial.Store(false)
	if was != 0 || !s.due(warnDown, now) {
		return false
	}
	s.saidDown.Store(true)
	return true
}

// alive marks the server as alive, and says whether the log shall hear of it.
func (s *server) alive(now time.Duration) bool {
	if s.deadUntil.Load() == 0 {
		return false
	}
	if s.fallen.Swap(false) {
		s.since.Store(int64(now))
	}
	s.deadUntil.Store(0)
	return s.saidDown.Swap(false)
}

// suspect asks for a check soon; more than one request until then is one.
func (s *server) suspect() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// oldCapabilities is what a server can do that has no CAPA: it is of the time before 1998 (RFC 2449). It is not changed.
var oldCapabilities = pop3.Capabilities{"TOP", "UIDL"}

// capabilities is what the server is known to do. One that has not answered is taken for an old one.
func (s *server) capabilities() pop3.Capabilities {
	if c := s.caps.Load(); c != nil {
		return *c
	}
	return oldCapabilities
}
