package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"strings"

	"github.com/popgate/popgate/auth"
)

// A Pool is the servers of one backend, as one view of the configuration has them. Any goroutine may use it.
type Pool struct {
	plan     // of servers where TLS starts as the backend says
	backends *Backends
	config   Config
	dialer   dialer
	members  []*member
	tls      *tls.Config // what the servers' configurations have in common
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
	pl.check = append(append(pl.check, pl.open...), checkSteps...)
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
}

func newMember(a address, weight int) *member {
	return &member{address: a, weight: weight, seed: seed(a.text)}
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
}

// Login logs in at one of the servers, the one that the backend's balance picks for the account unless that one is dead,
// or at the one that the request names. It goes on to the next only while the password has not been sent. The deadline of
// ctx covers all servers that are tried. Every error is an *Error: that of the server which saw the password or refused
// the name, where there is one, whatever went wrong at others before.
func (p *Pool) Login(ctx context.Context, req *Request) (*Conn, error) {
	secret := req.Login.Secret.Reveal()
	if !sendable(&req.Login, secret) {
		return nil, &Error{Kind: WrongPassword, Step: "USER", Err: ErrBadCredentials}
	}
	var few [8]candidate
	candidates, failed := p.candidates(few[:0], req)
	for _, skipped := range [...]bool{false, true} { // the dead ones last, should nobody else be there
		for i := range candidates {
			c := &candidates[i]
			if c.tried || !skipped && !c.server.usable(p.backends.now(), p.config.RetryAfter) {
				continue
			}
			c.tried = true
			a := attempt{pool: p, member: c.member, req: req, as: &req.Login, secret: secret}
			conn, err := a.login(ctx)
			if err == nil {
				return conn, nil
			}
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
		failed = &Error{Kind: Down, Step: stepConnect, Err: errDrained}
	}
	return nil, failed
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
	return append(dst, candidate{member: m}), nil
}

// sendable says that nothing of a login would end its line, or its part of one.
func sendable(l *auth.BackendLogin, secret []byte) bool {
	const ends = "\r\n\x00"
	return l.User != "" && !strings.ContainsAny(l.User, ends) && !strings.ContainsAny(l.Authzid, ends) &&
		!bytes.ContainsAny(secret, ends)
}
