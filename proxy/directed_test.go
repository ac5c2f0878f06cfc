package proxy

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/pop3mem"
)

// directed is a router whose answers come as from a directory, by local part.
type directed struct {
	answers map[string]func(q auth.Query) (auth.Route, error)

	mu        sync.Mutex
	asked     []auth.Query // without secrets
	refreshed map[string]int
}

func (d *directed) Route(_ context.Context, q auth.Query) (auth.Route, error) {
	d.mu.Lock()
	seen := q
	seen.Secret = nil
	d.asked = append(d.asked, seen)
	d.mu.Unlock()
	answer := d.answers[q.Name.Local]
	if answer == nil {
		return auth.Route{}, auth.ErrUnknownUser
	}
	r, err := answer(q)
	r.Directory, r.Account = "users", q.Name.Key
	if r.Backend == "" {
		r.Backend = "old"
	}
	return r, err
}

func (d *directed) Refresh(q auth.Query, r *auth.Route) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refreshed == nil {
		d.refreshed = map[string]int{}
	}
	d.refreshed[q.Name.Local+" "+r.Directory]++
}

// countedMail is a POP3 server that counts who comes.
func countedMail(t *testing.T) (string, *pop3mem.Server, *atomic.Int64) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &countingListener{Listener: inner}
	s := pop3mem.New(pop3mem.Options{})
	s.Add("alice@example.org", "secret")
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(ln) // it ends with Close
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return inner.Addr().String(), s, &ln.n
}

type countingListener struct {
	net.Listener
	n atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// as answers with a route, told as alice.
func as(r auth.Route, err error) func(auth.Query) (auth.Route, error) {
	return func(auth.Query) (auth.Route, error) {
		if r.Login.User == "" {
			r.Login.User = "alice@example.org"
		}
		return r, err
	}
}

func TestDirected(t *testing.T) {
	const (
		wrong    = "-ERR [AUTH] Wrong user name or password"
		later    = "-ERR [SYS/TEMP] The mail server cannot be reached now, try again later"
		disabled = "-ERR [SYS/PERM] This account cannot log in; ask your provider"
		welcome  = "+OK Logged in"
	)
	address, _, came := countedMail(t)
	router := &directed{answers: map[string]func(auth.Query) (auth.Route, error){
		"plain":    as(auth.Route{}, nil),
		"edge":     as(auth.Route{}, fmt.Errorf("directory users: %w", auth.ErrWrongPassword)),
		"nets":     as(auth.Route{}, fmt.Errorf("directory users: %w", auth.ErrNetwork)),
		"down":     as(auth.Route{}, fmt.Errorf("%w: directory users: %w", auth.ErrDirectoryDown, context.Canceled)),
		"disabled": as(auth.Route{Disabled: true}, nil),
		"shut":     as(auth.Route{Disabled: true, Verified: true}, nil),
		"verified": func(q auth.Query) (auth.Route, error) {
			return as(auth.Route{Verified: true, Login: auth.BackendLogin{User: "alice@example.org", Secret: auth.NewSecret([]byte("secret"))}}, nil)(q)
		},
		"stored": func(q auth.Query) (auth.Route, error) {
			return as(auth.Route{Verified: true, Login: auth.BackendLogin{User: "alice@example.org", Secret: auth.NewSecret([]byte("old"))}}, nil)(q)
		},
	}}
	r := start(t, address, func(s *settings) { s.router = router })
	for _, tt := range []struct {
		user, secret, reply string
		reason              audit.Reason
		asked               bool // the backend
		refreshed           int
	}{
		{"plain", "secret", welcome, "", true, 0},
		{"plain", "guess", wrong, audit.WrongPassword, true, 1},
		{"edge", "secret", wrong, audit.WrongPassword, false, 1},
		{"nets", "secret", wrong, audit.WrongNetwork, false, 1},
		{"down", "secret", later, audit.DirectoryDown, false, 0},
		{"disabled", "secret", disabled, audit.Disabled, true, 0},
		{"disabled", "guess", wrong, audit.WrongPassword, true, 1},
		{"shut", "secret", disabled, audit.Disabled, false, 1},
		{"verified", "whatever", welcome, "", true, 0},
		{"stored", "secret", later, audit.BackendLoginRefused, true, 1},
	} {
		clear(router.refreshed)
		before := came.Load()
		c := r.dial()
		c.expect("+OK POP3 ready")
		if got := c.try(tt.user, tt.secret); got != tt.reply {
			t.Errorf("%s with %s: got %q, want %q", tt.user, tt.secret, got, tt.reply)
		}
		if e := r.next(); e.Reason != tt.reason || e.Backend != "old" {
			t.Errorf("%s with %s: recorded %q at %q, want %q", tt.user, tt.secret, e.Reason, e.Backend, tt.reason)
		}
		if got := router.refreshed[tt.user+" users"]; got != tt.refreshed {
			t.Errorf("%s with %s: refreshed %d times (%v), want %d", tt.user, tt.secret, got, maps.Clone(router.refreshed), tt.refreshed)
		}
		if got := came.Load() > before; got != tt.asked {
			t.Errorf("%s with %s: the backend was asked: %t, want %t", tt.user, tt.secret, got, tt.asked)
		}
		c.conn.Close()
		r.next()
	}
	r.log.has(t, "ERROR log in at a backend", "password was checked already")
	r.log.has(t, "ERROR ask a directory", "users")
}

// The router is told all that a directory may need, and counts the attempts of the connection.
func TestDirectedQuery(t *testing.T) {
	address, _ := mail(t, false)
	router := &directed{}
	r := start(t, address, func(s *settings) { s.router = router })
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.try("nobody@example.org", "a")
	id := r.next().Session
	c.try("nobody@example.org", "b")
	c.conn.Close()
	for i, q := range router.asked {
		if q.Attempt != i+1 || q.Session != id || q.Mechanism != auth.User || q.Client == nil || q.Name.Local != "nobody" {
			t.Errorf("attempt %d: got %+v", i+1, q)
		}
	}
	if len(router.asked) != 2 {
		t.Errorf("asked %d times, want 2", len(router.asked))
	}
}

// A user who is being moved is let in where the password is right, and goes there first the next time; one who is not gets
// one try, and a wrong password is one failure for both.
func TestMoving(t *testing.T) {
	oldAddress, oldServer, atOld := countedMail(t)
	newAddress, newServer, atNew := countedMail(t)
	oldServer.Add("bob", "before")
	newServer.Add("bob", "after")
	bob := auth.Route{Backend: "old", Then: "new", Server: auth.Server{Address: oldAddress}, Login: auth.BackendLogin{User: "bob"}}
	still := bob
	still.Then = ""
	router := &directed{answers: map[string]func(auth.Query) (auth.Route, error){"bob": as(bob, nil), "still": as(still, nil)}}
	r := start(t, oldAddress, func(s *settings) {
		s.router = router
		there := backend.DefaultConfig()
		there.Name, there.Servers = "new", []backend.ServerConfig{{Address: newAddress, Weight: 1}}
		s.more = []backend.Config{there}
		s.limits.LoginsPerIP = rate(t, "2/h")
	})
	for _, tt := range []struct {
		user, secret, backend string // where it ends; with a "!" the password was refused there
		old, new              int64  // who came there
	}{
		{"bob", "before", "old", 1, 0},
		{"bob", "after", "new", 1, 1},
		{"bob", "after", "new", 0, 1},
		{"bob", "before", "old", 1, 1},
		{"bob", "before", "old", 1, 0},
		{"bob", "guess", "new!", 1, 1},
		{"still", "after", "old!", 1, 0},
	} {
		beforeOld, beforeNew := atOld.Load(), atNew.Load()
		c := r.dial()
		c.expect("+OK POP3 ready")
		c.try(tt.user, tt.secret)
		e := r.next()
		got := e.Backend
		if e.Reason == audit.WrongPassword {
			got += "!"
		} else if e.Reason != "" {
			got += " " + string(e.Reason)
		}
		if got != tt.backend {
			t.Errorf("%s with %s: ended at %q, want %q", tt.user, tt.secret, got, tt.backend)
		}
		if toOld, toNew := atOld.Load()-beforeOld, atNew.Load()-beforeNew; toOld != tt.old || toNew != tt.new {
			t.Errorf("%s with %s: %d at the old one and %d at the new, want %d and %d", tt.user, tt.secret, toOld, toNew, tt.old, tt.new)
		}
		c.conn.Close()
		r.next()
	}
	// Two have failed, though three servers were asked.
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.try("bob", "before")
	if e := r.next(); e.Reason != audit.RateLimited {
		t.Errorf("after two failures, of two allowed: got %q, want them spent", e.Reason)
	}
	c.conn.Close()
}

// Whoever guesses the password of a user who is being moved has his failures counted where one of the two backends refuses it, even
// though the other is down and it may be the right one there.
func TestMovingToNowhere(t *testing.T) {
	address, server, _ := countedMail(t)
	server.Add("bob", "before")
	bob := auth.Route{Backend: "old", Then: "new", Server: auth.Server{Address: address}, Login: auth.BackendLogin{User: "bob"}}
	r := start(t, address, func(s *settings) {
		s.router = &directed{answers: map[string]func(auth.Query) (auth.Route, error){"bob": as(bob, nil)}}
		there := backend.DefaultConfig()
		there.Name, there.Servers = "new", []backend.ServerConfig{{Address: "127.0.0.1:1", Weight: 1}}
		s.more = []backend.Config{there}
		s.limits.LoginsPerIP = rate(t, "2/h")
		s.delay = 100 * time.Millisecond
	})
	for i, want := range []audit.Reason{audit.BackendDown, audit.BackendDown, audit.RateLimited} {
		c := r.dial()
		c.expect("+OK POP3 ready")
		began := time.Now()
		if got := c.try("bob", "guess"); !strings.HasPrefix(got, "-ERR [SYS/TEMP]") {
			t.Errorf("login %d: got %q", i, got)
		}
		if took := time.Since(began); want == audit.BackendDown && took < 100*time.Millisecond {
			t.Errorf("login %d: refused after %s, before its tick", i, took)
		}
		if e := r.next(); e.Reason != want {
			t.Errorf("login %d: %q, want %q", i, e.Reason, want)
		}
		c.conn.Close()
		r.next()
	}
}

// Where the client may not come to one of the two backends, the failures at the other one count all the same.
func TestMovingWhereClientMayNot(t *testing.T) {
	address, server, _ := countedMail(t)
	server.Add("bob", "before")
	bob := auth.Route{Backend: "old", Then: "new", Server: auth.Server{Address: address}, Login: auth.BackendLogin{User: "bob"}}
	r := start(t, address, func(s *settings) {
		s.router = &directed{answers: map[string]func(auth.Query) (auth.Route, error){"bob": as(bob, nil)}}
		there := backend.DefaultConfig()
		there.Name, there.Servers = "new", []backend.ServerConfig{{Address: "127.0.0.1:1", Weight: 1}}
		s.more = []backend.Config{there}
		s.limits.LoginsPerIP = rate(t, "2/h")
		rule := access.DefaultRule()
		rule.Name, rule.Backends, rule.Networks.Deny = "not there", []string{"new"}, []string{"loopback"}
		s.access = access.DefaultConfig()
		s.access.Lists = []access.ListConfig{{Name: "loopback", Networks: []string{"127.0.0.0/8"}}}
		s.access.Rules = []access.RuleConfig{rule}
	})
	for i, want := range []audit.Reason{audit.AccessDenied, audit.AccessDenied, audit.RateLimited} {
		c := r.dial()
		c.expect("+OK POP3 ready")
		got := c.try("bob", "guess")
		if want == audit.AccessDenied && got != "-ERR [AUTH] Wrong user name or password" {
			t.Errorf("login %d: got %q", i, got)
		}
		if e := r.next(); e.Reason != want {
			t.Errorf("login %d: %q, want %q", i, e.Reason, want)
		}
		c.conn.Close()
		r.next()
	}
}

func TestMovedIsBounded(t *testing.T) {
	var m moved
	m.worked("first", "new")
	for i := range 3 * maxMoved {
		m.worked(fmt.Sprint(i), "new")
	}
	if got := len(m.now) + len(m.old); got > 2*maxMoved {
		t.Errorf("remembers %d accounts, want %d at most", got, 2*maxMoved)
	}
	if got := m.last("first"); got != "" {
		t.Errorf("the one that came before all others is at %q, want it forgotten", got)
	}
	if got := m.last(fmt.Sprint(3*maxMoved - 1)); got != "new" {
		t.Errorf("the last one is at %q, want new", got)
	}
}

// A directory may ask for a longer pause before a refusal, within bounds, and not for a shorter one.
func TestDirectoryWait(t *testing.T) {
	for _, tt := range []struct{ wait, want time.Duration }{
		{0, 2 * time.Second}, {time.Second, 2 * time.Second}, {7 * time.Second, 7 * time.Second}, {time.Hour, maxWait},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := &login{s: &session{gw: New(newBook(), nil, nil), snap: &Snapshot{FailureDelay: 2 * time.Second}}, came: time.Now()}
			l.route.Wait = tt.wait
			l.wait(outcomeOf(auth.ErrWrongPassword), auth.ErrWrongPassword)
			if got := time.Since(l.came); got != tt.want {
				t.Errorf("with a pause of %s asked for, the refusal left after %s, want %s", tt.wait, got, tt.want)
			}
		})
	}
}

// Where hashes are checked so slowly that refusals miss their first tick, unknown users are refused as late as known ones.
func TestSlowHashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gw := New(newBook(), nil, nil)
		refusal := func(cause error, took time.Duration) time.Duration {
			l := &login{s: &session{gw: gw, snap: &Snapshot{FailureDelay: 2 * time.Second}}, came: time.Now()}
			l.route.Backend = "old"
			time.Sleep(took)
			l.wait(outcomeOf(cause), cause)
			return time.Since(l.came)
		}
		if got := refusal(fmt.Errorf("directory users: %w", auth.ErrWrongPassword), 5*time.Second); got != 6*time.Second {
			t.Errorf("a wrong password, refused by its hash after 5 s, leaves after %s", got)
		}
		if got := refusal(auth.ErrUnknownUser, 0); got != 6*time.Second {
			t.Errorf("an unknown user is refused after %s: not as late as a wrong password", got)
		}
	})
}

// A slip behind a login that the backend took lets the mailbox go, and gives the place at the server back.
func TestPanicBehindLogin(t *testing.T) {
	address, _, _ := countedMail(t)
	r := start(t, address)
	r.audit.hook = func(e *audit.Event) error {
		if e.Name == audit.LoginAccepted {
			panic("a slip")
		}
		return nil
	}
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.send("USER alice@example.org\r\nPASS secret\r\n")
	for e := r.next(); e.Name != audit.SessionClosed; {
		e = r.next()
	}
	if s := r.snap.Backends.Status()[0].Servers[0]; s.Sessions != 0 {
		t.Errorf("%d sessions are counted at the server, want none", s.Sessions)
	}
}
