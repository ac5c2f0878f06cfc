package pop3mem

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/popgate/popgate/auth/sasl"
	"github.com/popgate/popgate/proxy/pop3"
)

const (
	lineLimit  = 1024
	authLimit  = 16 << 10         // of AUTH and its continuation lines (RFC 5034 section 4)
	autologout = 10 * time.Minute // the shortest that RFC 1939 section 3 allows
)

// errEnd ends a session that has been answered to its end.
var errEnd = errors.New("session over")

// A session is one connection. Only its goroutine touches it.
type session struct {
	server *Server
	conn   net.Conn
	lines  *pop3.Reader
	w      *bufio.Writer
	secure bool

	user    []byte // named by USER
	named   bool
	box     *maildrop // nil before login
	mail    []*message
	deleted []bool
}

func newSession(s *Server, conn net.Conn) *session {
	_, secure := conn.(*tls.Conn)
	return &session{server: s, conn: conn, lines: pop3.NewReader(conn), w: bufio.NewWriter(conn), secure: secure}
}

// serve is the whole life of the session. Messages are deleted by QUIT alone.
func (s *session) serve() {
	defer func() {
		if s.box != nil {
			s.server.logout(s.box, nil)
		}
		s.lines.Release()
		_ = s.conn.Close() // with a close_notify where TLS is on
	}()
	greeting := s.server.options.Greeting
	if greeting == "" {
		greeting = "popgate's mail in memory is ready"
	}
	s.ok(greeting)
	for {
		line, err := s.line()
		if err == nil {
			err = s.command(line)
		}
		if errors.Is(err, pop3.ErrLineTooLong) {
			s.err("", "line too long")
		}
		if err != nil {
			_ = s.w.Flush()
			return
		}
	}
}

// line waits for the next line. Replies are held back as long as there is a whole line to be answered (pipelining), and
// leave before a wait.
func (s *session) line() ([]byte, error) {
	if bytes.IndexByte(s.lines.Buffered(), '\n') < 0 {
		if err := s.w.Flush(); err != nil {
			return nil, err
		}
		if err := s.conn.SetDeadline(time.Now().Add(autologout)); err != nil {
			return nil, err
		}
	}
	line, err := s.lines.Line(authLimit)
	if err == nil && s.server.options.Observe != nil {
		s.server.options.Observe(s.conn.RemoteAddr(), line)
	}
	return line, err
}

// command answers one command; an error ends the session.
func (s *session) command(line []byte) error {
	verb, arg := pop3.ParseCommand(line)
	if verb != pop3.AUTH && len(line) > lineLimit {
		return pop3.ErrLineTooLong
	}
	switch verb {
	case pop3.CAPA:
		s.capa()
		return nil
	case pop3.QUIT:
		return s.quit()
	}
	if s.box != nil {
		s.transaction(verb, arg)
		return nil
	}
	return s.authorization(verb, arg)
}

func (s *session) ok(text string) { s.reply(pop3.AppendOK(s.w.AvailableBuffer(), text)) }

func (s *session) err(code pop3.Code, text string) {
	s.reply(pop3.AppendErr(s.w.AvailableBuffer(), code, text))
}

// reply queues octets. What fails here fails again, and is seen, when the next line is waited for.
func (s *session) reply(b []byte) { _, _ = s.w.Write(b) }

func (s *session) capa() {
	if s.server.options.NoCapa {
		s.err("", "unknown command")
		return
	}
	s.reply(s.server.capabilities(s.secure, s.box != nil).AppendTo(nil))
}

func (s *session) quit() error {
	if s.box != nil {
		var gone []*message
		for i, m := range s.mail {
			if s.deleted[i] {
				gone = append(gone, m)
			}
		}
		s.server.logout(s.box, gone)
		s.box = nil
	}
	s.ok("bye")
	return errEnd
}

// authorization answers the commands of a session that has not logged in.
func (s *session) authorization(verb pop3.Verb, arg []byte) error {
	switch verb {
	case pop3.STLS:
		return s.stls()
	case pop3.USER, pop3.PASS, pop3.AUTH:
		if s.server.options.RefusePlaintext && !s.secure {
			s.err(pop3.CodeAuth, "Plaintext authentication disallowed on non-secure (SSL/TLS) connections.")
			return nil
		}
	}
	switch verb {
	case pop3.USER:
		if len(arg) == 0 {
			s.err("", "USER needs a name")
			return nil
		}
		s.user, s.named = append(s.user[:0], arg...), true
		s.ok("")
	case pop3.PASS:
		if !s.named {
			s.err("", "USER first")
			return nil
		}
		s.named = false
		s.login(s.user, arg)
	case pop3.AUTH:
		if s.server.options.NoAuth {
			s.err("", "unknown command")
			return nil
		}
		return s.auth(arg)
	case "", pop3.APOP, pop3.LANG, pop3.UTF8:
		s.err("", "unknown command")
	default:
		s.err("", "log in first")
	}
	return nil
}

func (s *session) stls() error {
	switch {
	case s.server.options.TLS == nil:
		s.err("", "unknown command")
		return nil
	case s.secure:
		s.err("", "TLS is on already")
		return nil
	}
	s.ok("begin TLS")
	if err := s.w.Flush(); err != nil {
		return err
	}
	if len(s.lines.Buffered()) > 0 {
		return errEnd // what came in plaintext must not be taken for what comes through TLS (CVE-2011-0411)
	}
	conn := tls.Server(s.conn, s.server.options.TLS)
	if err := conn.Handshake(); err != nil {
		return err
	}
	s.lines.Release()
	s.conn, s.lines, s.secure, s.named = conn, pop3.NewReader(conn), true, false
	s.w.Reset(conn)
	return nil
}

// auth is RFC 5034; without a mechanism it lists them, a habit from RFC 1734's days.
func (s *session) auth(arg []byte) error {
	if len(arg) == 0 {
		b := pop3.AppendOK(nil, "")
		for _, m := range sasl.Mechanisms() {
			b = append(append(b, m...), '\r', '\n')
		}
		s.reply(append(b, ".\r\n"...))
		return nil
	}
	mechanism, response, _ := bytes.Cut(arg, []byte{' '})
	x, err := sasl.Start(mechanism)
	if err != nil {
		s.err("", "unknown mechanism")
		return nil
	}
	defer x.Wipe()
	for {
		challenge, done, err := x.Next(response)
		switch {
		case errors.Is(err, sasl.ErrAuthzid):
			s.err(pop3.CodeAuth, "nobody acts for others here")
			return nil
		case err != nil:
			s.err("", "malformed or cancelled")
			return nil
		case done:
			s.login(x.User(), x.Secret())
			return nil
		}
		s.reply(append(append(append(s.w.AvailableBuffer(), "+ "...), challenge...), '\r', '\n'))
		if response, err = s.line(); err != nil {
			return err
		}
	}
}

func (s *session) login(user, password []byte) {
	box, mail, err := s.server.login(user, password)
	switch {
	case errors.Is(err, errInUse):
		s.err(pop3.CodeInUse, "the mailbox is in use by another session")
	case err != nil:
		s.err(pop3.CodeAuth, "wrong user name or password")
	default:
		s.box, s.mail, s.deleted = box, mail, make([]bool, len(mail))
		s.ok(strconv.Itoa(len(mail)) + " messages")
	}
}
