package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"strings"
	"sync/atomic"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/limit"
)

// A Pool is the servers of one backend, as one view of the configuration has them. Any goroutine may use it.
type Pool struct {
	plan     // of servers where TLS starts as the backend says
	backends *Backends
	config   Config
	dialer   *dialer
	texts    texts
	members  []*member
	tls      *tls.Config        // what the servers' configurations have in common
	drained  *atomic.Bool       // by an operator
	probe    *auth.BackendLogin // what a check logs in with; nil for none
}

// A plan is how the dialogue goes with servers where TLS starts in one way.
type plan struct {
	mode  string // none, starttls or implicit
	open  []step // to a server's greeting, and to TLS where that comes behind it
	login []step // open, and what a login by USER and PASS needs
	plain []step // open, and what a login by AUTH PLAIN needs
	check []step // open, and what a check needs
}

func newPlan(c *Config, mode string) plan {
	of := *c
	of.TLS = mode
	pl := plan{mode: mode, open: openSteps(&of)}
	pl.login = append(append(pl.login, pl.open...), loginSteps(&of, auth.MethodUser)...)
	pl.plain = append(append(pl.plain, pl.open...), loginSteps(&of, auth.MethodPlain)...)
	pl.check = append(append(pl.check, pl.open...), checkSteps(c.Check.Type)...)
	return pl
}

// A member is a server in its role in a pool.
type member struct {
	server  *server
	address address
	weight  int
	seed    uint64
	tls     *tls.Config // nil without TLS
	plan    *plan       // nil for the pool's
	drain   bool        // by the configuration

	maxSessions int64
	pacer       *limit.Pacer // nil for no pace
}

func newMember(a address, weight int) *member {
	return &member{address: a, weight: weight, seed: seed(a.text)}
}

// limit sets the limits of m: the server's own, which s has, or the backend's. A pace that has not changed goes on.
func (m *member) limit(c *Config, s *ServerConfig) {
	m.maxSessions = int64(c.MaxSessions)
	if s.MaxSessions > 0 {
		m.maxSessions = int64(s.MaxSessions)
	}
	pace := c.LoginsPerSecond
	if s.LoginsPerSecond > 0 {
		pace = s.LoginsPerSecond
	}
	if m.pacer = m.server.pacer; m.pacer.PerSecond() != pace {
		m.pacer = limit.NewPacer(pace)
	}
}

// planOf is how the dialogue with m goes.
func (p *Pool) planOf(m *member) *plan {
	if m.plan != nil {
		return m.plan
	}
	return &p.plan
}

// A Request is one login.
type Request struct {
	// Client is who logs in. It must be set.
	Client *auth.Client
	// Session is the session's id, for PROXY and XCLIENT.
	Session string
	// Account is what a server is chosen by: equal for all spellings of one user.
	Account string
	// Login is what the server is told. The caller wipes its secret.
	Login auth.BackendLogin
	// Server is the one server to log in at, by the backend's settings; the zero Server leaves the choice to the backend.
	Server auth.Server
	// Moving says that the user may have been moved away: a server that no longer takes the password has not banned popgate.
	Moving bool
}

// Login logs in at one of the servers, the one that the backend's balance picks for the account unless that one is dead,
// or at the one that the request names. It goes on to the next only while the password has not been sent. The deadline of
// ctx covers all servers that are tried. Every error is an *Error: that of the server which saw the password or refused
// the name, where there is one, whatever went wrong at others before.
func (p *Pool) Login(ctx context.Context, req *Request) (*Conn, error) {
	secret := reveal(&req.Login)
	if !sendable(&req.Login, secret) {
		return nil, &Error{Kind: WrongPassword, Step: "USER", Err: ErrBadCredentials}
	}
	var few [8]candidate
	candidates, failed := p.candidates(few[:0], req)
	for _, r := range p.rounds() {
		for i := range candidates {
			c := &candidates[i]
			if c.tried || !r.dead && !c.server.usable(p.backends.now(), p.config.RetryAfter) {
				continue
			}
			if err := p.enter(ctx, c.member, r.patient); err != nil {
				if r.patient {
					return nil, worst(failed, err)
				}
				continue
			}
			c.tried = true
			a := attempt{pool: p, member: c.member, req: req, as: &req.Login, secret: secret}
			conn, err := a.loginInPlace(ctx)
			if err == nil {
				a.succeeded()
				a.acceptedLogin()
				return conn, nil
			}
			a.refusedLogin(err)
			a.failedLogin(err)
			if a.passed || err.Kind == WrongPassword {
				// The answer to the password counts, or what was refused as wrong behind a failover could be guessed on
				// as if nobody had looked at it.
				err.also = failed
				return nil, err
			}
			failed = worst(failed, err)
			if !a.another(ctx, err) {
				return nil, failed
			}
		}
	}
	if failed == nil {
		failed = p.nowhere(req)
	}
	return nil, failed
}

// nowhere is why there was no server to try.
func (p *Pool) nowhere(req *Request) *Error {
	e := &Error{Kind: Down, Step: stepConnect, Err: errDrained}
	if len(p.members) == 0 && req.Server.Address == "" {
		e.Err = errNoServers
	}
	return e
}

// candidates appends the servers that the login may go to, in the order in which they are to be tried. It fails where the
// request names a server that cannot be one.
func (p *Pool) candidates(dst []candidate, req *Request) ([]candidate, *Error) {
	if req.Server.Address == "" {
		return p.order(dst, req.Account), nil
	}
	m, err := p.named(req.Server)
	if err != nil {
		return nil, &Error{Kind: Down, Server: req.Server.Address, Step: stepConnect, Err: err}
	}
	if p.drains(m) {
		return dst, nil
	}
	return append(dst, candidate{member: m}), nil
}

// reveal is the one place of the package where a password becomes readable.
func reveal(l *auth.BackendLogin) []byte { return l.Secret.Reveal() }

// sendable says that nothing of a login would end its line, or its part of one.
func sendable(l *auth.BackendLogin, secret []byte) bool {
	const ends = "\r\n\x00"
	return l.User != "" && !strings.ContainsAny(l.User, ends) && !strings.ContainsAny(l.Authzid, ends) &&
		!bytes.ContainsAny(secret, ends)
}
