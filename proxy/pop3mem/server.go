// Package pop3mem is a POP3 server with its mail in memory, for tests, for `popgate demo` and as the backend of
// benchmarks. It is a whole one: RFC 1939 but for APOP, RFC 2449, RFC 2595 (STLS), RFC 5034 (PLAIN and LOGIN), RFC 3206
// and pipelining.
package pop3mem

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"

	"github.com/popgate/popgate/proxy/pop3"
)

// ErrServerClosed is what Serve returns once Close was called.
var ErrServerClosed = errors.New("server closed")

// Options say how a server differs from a plain one. The zero Options are a server on plaintext that offers all it can.
type Options struct {
	// Greeting is the text behind "+OK" that the server begins with; "" is one of its own. "[XCLIENT] ready" or a
	// stamp such as "ready <1896.697170952@example.org>" make it look like other servers.
	Greeting string
	// Capabilities are the lines of the answer to CAPA, instead of those that tell what the server does.
	Capabilities pop3.Capabilities
	// NoCapa lets the server not know CAPA, as old ones do not.
	NoCapa bool
	// NoAuth lets the server not know AUTH.
	NoAuth bool
	// TLS offers STLS with this configuration.
	TLS *tls.Config
	// RefusePlaintext refuses USER, PASS and AUTH before STLS, with Dovecot's words.
	RefusePlaintext bool
	// Observe, if set, is called with each command line as it came, passwords and all, and with the continuation lines
	// of AUTH. The line is valid during the call. Sessions call it at once.
	Observe func(client net.Addr, line []byte)
}

// A Server serves mailboxes to any number of listeners. Its methods may be called at once.
type Server struct {
	options Options

	mu        sync.Mutex
	boxes     map[string]*maildrop
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[net.Conn]struct{}
	sessions  sync.WaitGroup
}

// New makes a server without mailboxes that listens nowhere.
func New(o Options) *Server {
	return &Server{
		options:   o,
		boxes:     map[string]*maildrop{},
		listeners: map[net.Listener]struct{}{},
		conns:     map[net.Conn]struct{}{},
	}
}

// Add puts messages into the mailbox of user, behind those that are there, and makes it where there is none. The last
// password given counts. Line ends of messages become CRLF; the messages are copied. A session sees what was there when
// it logged in.
func (s *Server) Add(user, password string, messages ...[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	box := s.boxes[user]
	if box == nil {
		box = &maildrop{}
		s.boxes[user] = box
	}
	box.password = []byte(password)
	for _, m := range messages {
		box.add(m)
	}
}

// Messages returns how many messages the mailbox of user holds, 0 where there is none.
func (s *Server) Messages(user string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if box := s.boxes[user]; box != nil {
		return len(box.messages)
	}
	return 0
}

// Serve serves clients of l until Close is called, which makes it return ErrServerClosed, or until accepting fails. It
// closes l.
func (s *Server) Serve(l net.Listener) error {
	if !s.track(l) {
		_ = l.Close()
		return ErrServerClosed
	}
	defer s.untrack(l)
	for {
		conn, err := l.Accept()
		if err != nil {
			if s.isClosed() {
				return ErrServerClosed
			}
			return err
		}
		if !s.open(conn) {
			_ = conn.Close()
			return ErrServerClosed
		}
		go func() {
			defer s.done(conn)
			newSession(s, conn).serve()
		}()
	}
}

// Close closes all listeners and connections, and waits for the sessions to end.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		_ = l.Close()
	}
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.sessions.Wait()
	return nil
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.listeners[l] = struct{}{}
	}
	return !s.closed
}

func (s *Server) untrack(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	_ = l.Close()
}

// open counts a session in, under the lock that Close takes, so that none slips in behind its Wait.
func (s *Server) open(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.conns[c] = struct{}{}
		s.sessions.Add(1)
	}
	return !s.closed
}

func (s *Server) done(c net.Conn) {
	_ = c.Close()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.sessions.Done()
}

// capabilities are what CAPA says, with STLS and SASL as they are now.
func (s *Server) capabilities(secure, loggedIn bool) pop3.Capabilities {
	if s.options.Capabilities != nil {
		return s.options.Capabilities
	}
	c := pop3.Capabilities{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"}
	if !loggedIn && s.options.TLS != nil && !secure {
		c = append(c, "STLS")
	}
	if secure || !s.options.RefusePlaintext {
		c = append(c, "USER")
		if !s.options.NoAuth {
			c = append(c, "SASL PLAIN LOGIN")
		}
	}
	return slices.Clip(c)
}
