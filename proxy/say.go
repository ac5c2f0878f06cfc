package proxy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
)

// said keeps the log readable when the same thing happens a thousand times: a sentence is said once a minute for
// each subject, with the number of times it was not said.
type said struct {
	mu   sync.Mutex
	last map[string]*saying
}

type saying struct {
	at    time.Time
	quiet int
}

const sayEvery = time.Minute

// maxSayings bounds the memory; subjects are listeners, servers and protocols, so it is not reached in earnest.
const maxSayings = 1000

// now tells whether subject may be spoken of now, and how often it was not since the last time.
func (s *said) now(subject string) (quiet int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || len(s.last) >= maxSayings {
		s.last = make(map[string]*saying)
	}
	e := s.last[subject]
	if e == nil {
		e = new(saying)
		s.last[subject] = e
	}
	if !e.at.IsZero() && time.Since(e.at) < sayEvery {
		e.quiet++
		return 0, false
	}
	quiet, e.at, e.quiet = e.quiet, time.Now(), 0
	return quiet, true
}

// say puts a sentence into the log, unless the same was said of subject a moment ago.
func (g *Gateway) say(level slog.Level, subject, sentence string, attrs ...any) {
	quiet, ok := g.said.now(subject)
	if !ok {
		return
	}
	if quiet > 0 {
		attrs = append(attrs, "repeated", quiet)
	}
	g.log.Log(context.Background(), level, sentence, attrs...)
}

// sayRefused puts into the log what an operator must know of a refused login, and no more: that somebody mistyped a
// password is in the audit.
func (g *Gateway) sayRefused(l *login, o outcome, cause error) {
	switch o.reason {
	case audit.BackendDown, audit.BackendRefused, audit.BackendProtocol, audit.BackendLoginRefused, audit.Internal, audit.Timeout:
	case audit.DirectoryDown:
		g.say(slog.LevelError, "directory "+l.route.Directory, "ask a directory where a user lives",
			"session", l.s.id, "directory", l.route.Directory, "reason", string(o.reason), "error", cause)
		return
	default:
		return
	}
	subject := l.route.Backend
	var e *backend.Error
	if errors.As(cause, &e) {
		subject += " " + e.Server
	}
	g.say(slog.LevelError, "login "+subject+" "+string(o.reason), "log in at a backend",
		"session", l.s.id, "backend", l.route.Backend, "reason", string(o.reason), "error", cause)
}
