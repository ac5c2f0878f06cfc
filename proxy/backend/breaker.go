package backend

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// breakerWindow is how long a failure counts.
	breakerWindow = 5 * time.Minute
	// maxBreaker bounds the networks that are remembered.
	maxBreaker = 64
)

// A breaker counts the client networks whose logins a server has failed after its greeting, since one succeeded there last.
// A client can bring about such a failure: a server that holds back its refusals for longer than reply_timeout does it to
// whoever guesses passwords. So one network counts once, whatever it does; and one user who gets in ends the count.
type breaker struct {
	counting atomic.Bool

	mu     sync.Mutex
	failed []failure
}

type failure struct {
	network netip.Prefix
	at      time.Duration
}

// fail counts a failure, and says that it is one too many.
func (b *breaker) fail(network netip.Prefix, now time.Duration, limit int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed = slices.DeleteFunc(b.failed, func(f failure) bool {
		return now-f.at > breakerWindow || f.network == network
	})
	b.failed = append(b.failed, failure{network, now})
	b.counting.Store(true)
	if len(b.failed) < limit {
		return false
	}
	b.failed = b.failed[:0]
	return true
}

// succeed ends the count.
func (b *breaker) succeed() {
	if !b.counting.Load() {
		return
	}
	b.mu.Lock()
	b.failed = b.failed[:0]
	b.counting.Store(false)
	b.mu.Unlock()
}

// site is the network that a client belongs to where one stranger shall not look like many: he may well have a whole /48,
// or a few neighbouring addresses.
func site(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 24
	if addr.Is6() {
		bits = 48
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// failedLogin draws the conclusions about a server that greeted a login, and then failed it.
func (a *attempt) failedLogin(e *Error) {
	limit := a.pool.config.BreakerNetworks
	if a.greeted.IsZero() || limit == 0 || errors.Is(e.Err, errBanned) || e.Kind != Temporary && e.Kind != Protocol {
		return
	}
	s, b := a.member.server, a.pool.backends
	if !s.breaker.fail(site(a.req.Client.Addr.Addr()), b.now(), limit) {
		return
	}
	s.tally().opened.Add(1)
	a.sicken(e, "server fails logins; it is passed over", slog.Int("networks", limit))
}

// sicken marks the server as one that greets and yet fails logins.
func (a *attempt) sicken(e *Error, problem string, facts ...any) {
	s, b := a.member.server, a.pool.backends
	if s.sicken(b.now(), a.pool.config.RetryAfter) {
		b.log.Warn(problem, append([]any{slog.String("backend", s.backend), slog.String("server", s.address),
			slog.Any("cause", e)}, facts...)...)
	}
	if a.req != nil {
		s.suspect()
	}
}

// succeeded notes that somebody has logged in at the server.
func (a *attempt) succeeded() {
	s, b := a.member.server, a.pool.backends
	s.breaker.succeed()
	if s.recover(b.now()) {
		b.log.Info("server takes logins again", slog.String("backend", s.backend), slog.String("server", s.address))
	}
}

// sicken marks the server as failing for d, and says whether it was not.
func (s *server) sicken(now, d time.Duration) bool {
	return s.sickUntil.Swap(int64(now+d)) == 0
}

// recover ends that, and says whether there was anything to end.
func (s *server) recover(now time.Duration) bool {
	if s.sickUntil.Load() == 0 || s.sickUntil.Swap(0) == 0 {
		return false
	}
	s.since.Store(int64(now))
	return true
}
