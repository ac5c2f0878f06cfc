package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/popgate/popgate/auth"
)

// busyFor is how long a server is passed over that greeted with -ERR: it lives, but has too much to do.
const busyFor = 2 * time.Second

// A Pool is the servers of one backend, as one view of the configuration has them. Any goroutine may use it.
type Pool struct {
	backends *Backends
	config   Config
	dialer   net.Dialer
	members  []*member
	open     []step // to a server's greeting, and to TLS where that comes behind it
	login    []step // open, and what a login needs
	check    []step // open, and what a check needs
}

// A member is a server in its role in a pool.
type member struct {
	server  *server
	address address
	weight  int
	seed    uint64
	tls     *tls.Config // nil without TLS
}

func newMember(a address, weight int) *member {
	return &member{address: a, weight: weight, seed: seed(a.text)}
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
}

// Stages are the times that the parts of a login took, at the server that accepted it.
type Stages struct {
	Connect  time.Duration // name look-up, TCP, PROXY, implicit TLS
	Greeting time.Duration // the wait for the greeting
	Login    time.Duration // from there to the answer to PASS
}

// A Conn is a connection that is logged in. Its Conn is a *net.TCPConn, or a *tls.Conn, whose NetConn is none; it has
// no deadline set and holds no buffer of this package. Whoever has it closes it.
type Conn struct {
	net.Conn
	// Server is the address of the server, as configured.
	Server string
	// Stages are the times of this login.
	Stages Stages
	// Leftover is what the server sent behind its answer to PASS. It goes to the client first.
	Leftover []byte

	below *underTLS // nil without TLS
}

// Truncated says that the server's TLS stream ended without a close_notify, so that anybody on the way may have cut it
// short; ask behind a Read that returned io.EOF. Any other error of Read is a cut in itself. Without TLS it is always
// false, for nothing tells then. Any goroutine may call it.
func (c *Conn) Truncated() bool {
	return c.below != nil && c.below.ended.Load()
}

// CloseWrite ends the direction to the server: with a FIN, or over TLS with a close_notify alone.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Login logs in at one of the servers, the one that hashing picks for the account unless that one is dead. It goes on
// to the next only while PASS has not been sent. The deadline of ctx covers all servers that are tried. Every error
// is an *Error: that of the server which saw the password or refused the name, where there is one, whatever went wrong
// at others before.
func (p *Pool) Login(ctx context.Context, req *Request) (*Conn, error) {
	secret := req.Login.Secret.Reveal()
	user := req.Login.User
	if user == "" || strings.ContainsAny(user, "\r\n\x00") || bytes.ContainsAny(secret, "\r\n\x00") {
		return nil, &Error{Kind: WrongPassword, Step: "USER", Err: ErrBadCredentials}
	}
	var few [8]candidate
	candidates := p.order(few[:0], req.Account)
	var failed *Error
	for _, skipped := range [...]bool{false, true} { // the dead ones last, should nobody else be there
		for i := range candidates {
			c := &candidates[i]
			if c.tried || !skipped && !c.server.usable(p.backends.now(), p.config.RetryAfter) {
				continue
			}
			c.tried = true
			a := attempt{pool: p, member: c.member, req: req, secret: secret}
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

// A candidate is a member in the order of one account.
type candidate struct {
	*member
	score float64
	tried bool
}

// order appends the members that take logins to dst, the one that account belongs to first. It is weighted rendezvous
// hashing: a member's score depends on nobody else, so one that goes or comes moves its own accounts only. Nodes must
// agree on it: a change moves accounts.
func (p *Pool) order(dst []candidate, account string) []candidate {
	h := xxhash.Sum64String(account)
	for _, m := range p.members {
		if m.weight == 0 {
			continue
		}
		// The top 53 bits, in the middle of their step, are a number strictly between 0 and 1.
		u := (float64(mix(h^m.seed)>>11) + 0.5) / (1 << 53)
		c := candidate{member: m, score: -float64(m.weight) / math.Log(u)}
		dst = append(dst, c)
		i := len(dst) - 1
		for ; i > 0 && dst[i-1].score < c.score; i-- {
			dst[i] = dst[i-1]
		}
		dst[i] = c
	}
	return dst
}

// Order returns the addresses of the servers of c that a login of account would try, in order, were all of them alive.
// Drained servers are left out, as are addresses that Validate finds a fault in. It reads no files and asks nobody.
func Order(c Config, account string) []string {
	var p Pool
	for _, s := range c.Servers {
		if a, err := parseAddress(s.Address, c.TLS); err == nil {
			p.members = append(p.members, newMember(a, s.Weight))
		}
	}
	var addresses []string
	for _, m := range p.order(nil, account) {
		addresses = append(addresses, m.address.text)
	}
	return addresses
}

// seed is what a server's address contributes to the scores.
func seed(address string) uint64 {
	return xxhash.Sum64String(address)
}

// mix is the finalizer of splitmix64: every bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func newDialer(c *Config) net.Dialer {
	return net.Dialer{
		Timeout: c.ConnectTimeout,
		// On, with the system's times: the relay has limits of its own, and setting times costs a call each.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1},
	}
}

// ours says that err comes from what popgate or this machine has too little of.
func ours(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return noPort(err)
}

// noPort says that this machine has no port left towards one server; towards another it may.
func noPort(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL)
}

// settle draws the conclusions about a server that a connection failed to, before or in its greeting.
func (a *attempt) settle(e *Error) {
	s := a.member.server
	a.count(e)
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
	a.member.server.counts.connects[r].Add(1)
}

// arrived notes that the server greeted.
func (a *attempt) arrived() {
	s := a.member.server
	s.counts.connects[resultOK].Add(1)
	if s.alive() {
		a.pool.backends.log.Info("server is up again", slog.String("backend", s.backend),
			slog.String("server", s.address))
	}
}
