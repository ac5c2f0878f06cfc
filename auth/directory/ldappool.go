package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/popgate/popgate/auth/files"
)

// The times of connections to LDAP servers.
const (
	ldapConnectTimeout = 10 * time.Second // the longest for one server; a lookup's own end is mostly earlier
	ldapServerRest     = 30 * time.Second // how long one that did not answer is asked last
)

// An ldapConn is one connection. The library's requests take no context: to end raw ends them.
type ldapConn struct {
	*ldap.Conn
	raw    net.Conn
	server ldapServer
	used   time.Time
}

// end closes the connection at once. The socket goes first, or the library waits for a server that takes nothing.
func (c *ldapConn) end() {
	_ = c.raw.Close()
	_ = c.Close()
}

// An ldapDialer makes connections that are ready: TLS is up and we have logged in.
type ldapDialer struct {
	servers      []ldapServer
	startTLS     bool
	tls          *tls.Config
	bindDN       string // "" does not log in
	passwordFile string
	hide         *hider

	mu   sync.Mutex
	rest map[string]time.Time // until when a server is asked last, by its URL
}

// password reads the password of bindDN.
func (d *ldapDialer) password() (string, error) {
	if d.passwordFile == "" {
		return "", nil
	}
	p, err := files.Secret(d.passwordFile)
	d.hide.add(p)
	return p, err
}

// dial connects to the first server that answers. Each has an equal part of the time that is left.
func (d *ldapDialer) dial(ctx context.Context) (*ldapConn, error) {
	servers := d.order()
	var problems []string
	for i, s := range servers {
		limit := ldapConnectTimeout
		if deadline, ok := ctx.Deadline(); ok {
			limit = min(limit, time.Until(deadline)/time.Duration(len(servers)-i))
		}
		c, err := d.connect(ctx, limit, s)
		if err == nil {
			d.mark(s, time.Time{})
			return c, nil
		}
		problems = append(problems, s.url+": "+err.Error())
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s (%w)", strings.Join(problems, "; "), ctx.Err())
		}
		d.mark(s, time.Now().Add(ldapServerRest))
	}
	return nil, errors.New(strings.Join(problems, "; "))
}

// order is the servers as they are to be tried.
func (d *ldapDialer) order() []ldapServer {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	servers := slices.Clone(d.servers)
	slices.SortStableFunc(servers, func(a, b ldapServer) int {
		resting := func(s ldapServer) int {
			if d.rest[s.url].After(now) {
				return 1
			}
			return 0
		}
		return resting(a) - resting(b)
	})
	return servers
}

func (d *ldapDialer) mark(s ldapServer, until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rest == nil {
		d.rest = make(map[string]time.Time)
	}
	d.rest[s.url] = until
}

// connect makes one server ready.
func (d *ldapDialer) connect(ctx context.Context, limit time.Duration, s ldapServer) (*ldapConn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	raw, err := dialBounded(ctx, s.network, s.addr)
	if err != nil {
		return nil, err
	}
	done := untilDone(ctx, raw)
	c, err := d.prepare(ctx, raw, s)
	if late := done(); late && err == nil {
		c.end()
		return nil, ctx.Err()
	} else if late {
		return nil, fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return c, err
}

// prepare brings up TLS and logs in. Where it fails the connection is closed.
func (d *ldapDialer) prepare(ctx context.Context, raw net.Conn, s ldapServer) (*ldapConn, error) {
	config := d.tls.Clone()
	if config.ServerName == "" {
		config.ServerName = s.host
	}
	stream := raw
	if s.tls {
		t := tls.Client(raw, config)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		stream = t
	}
	c := &ldapConn{Conn: ldap.NewConn(stream, s.tls), raw: raw, server: s}
	c.Start()
	err := d.login(c, config)
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

func (d *ldapDialer) login(c *ldapConn, config *tls.Config) error {
	if d.startTLS {
		if err := c.StartTLS(config); err != nil {
			return fmt.Errorf("StartTLS: %w", err)
		}
	}
	if d.bindDN == "" {
		return nil
	}
	password, err := d.password()
	if err != nil {
		return fmt.Errorf("password_file: %w", err)
	}
	if err := c.Bind(d.bindDN, password); err != nil {
		return fmt.Errorf("log in as %s: %w", d.bindDN, err)
	}
	return nil
}

// An ldapPool keeps connections that are ready, and bounds how many there are.
type ldapPool struct {
	dialer   *ldapDialer
	turns    chan struct{} // holds one for each connection in use
	idleTime time.Duration

	mu     sync.Mutex
	idle   []*ldapConn // the last was used last
	closed bool
}

func newLDAPPool(d *ldapDialer, size int, idleTime time.Duration) *ldapPool {
	return &ldapPool{dialer: d, turns: make(chan struct{}, size), idleTime: idleTime}
}

// do has use ask on a connection of its own, and again on another one where it died: those in the pool may all be dead when the
// server was started anew.
func (p *ldapPool) do(ctx context.Context, use func(*ldap.Conn) error) error {
	select {
	case p.turns <- struct{}{}:
		defer func() { <-p.turns }()
	case <-ctx.Done():
		return fmt.Errorf("all %d connections are in use: %w", cap(p.turns), ctx.Err())
	}
	for {
		c, reused := p.take()
		if c == nil {
			var err error
			if c, err = p.dialer.dial(ctx); err != nil {
				return err
			}
		}
		done := untilDone(ctx, c.raw)
		err := use(c.Conn)
		late := done()
		switch {
		case late && err == nil:
			c.end() // it was closed, after the answer
			return nil
		case late:
			c.end()
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				p.leave(c.server)
			}
			return fmt.Errorf("%w (%w)", ctx.Err(), err)
		case refusal(err):
			p.give(c)
			return err
		}
		c.end()
		if !reused {
			return err
		}
	}
}

// refusal says that the server has said no to this one question, or yes, and the connection is as it was.
func refusal(err error) bool {
	return err == nil || ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultConstraintViolation,
		ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultInappropriateAuthentication, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultSizeLimitExceeded)
}

// take takes a connection out of the pool; nil where there is none that can be used.
func (p *ldapPool) take() (c *ldapConn, reused bool) {
	p.mu.Lock()
	dead := p.old()
	for c == nil && len(p.idle) > 0 {
		c = p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.IsClosing() { // the library has heard the server's end
			dead, c = append(dead, c), nil
		}
	}
	p.mu.Unlock()
	endAll(dead)
	return c, c != nil
}

// give puts a connection back.
func (p *ldapPool) give(c *ldapConn) {
	c.used = time.Now()
	p.mu.Lock()
	dead := p.old()
	if p.closed || c.IsClosing() {
		dead = append(dead, c)
	} else {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	endAll(dead)
}

// old takes out the connections that nobody has used for long. The first has waited longest.
func (p *ldapPool) old() []*ldapConn {
	n := 0
	for n < len(p.idle) && p.idleTime > 0 && time.Since(p.idle[n].used) > p.idleTime {
		n++
	}
	dead := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	return dead
}

// leave gives up a server that hangs: it is asked last for a while, and its connections hang most likely too.
func (p *ldapPool) leave(s ldapServer) {
	p.dialer.mark(s, time.Now().Add(ldapServerRest))
	var dead []*ldapConn
	p.mu.Lock()
	p.idle = slices.DeleteFunc(p.idle, func(c *ldapConn) bool {
		if c.server == s {
			dead = append(dead, c)
		}
		return c.server == s
	})
	p.mu.Unlock()
	endAll(dead)
}

func endAll(dead []*ldapConn) {
	for _, c := range dead {
		c.end()
	}
}

// close ends the connections.
func (p *ldapPool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	endAll(idle)
}
