package proxy

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/proxy/pop3"
)

// What a handler returns when the dialogue does not simply go on.
var (
	errLoggedIn   = errors.New("logged in")
	errTLSStarted = errors.New("TLS started")
	errQuit       = errors.New("client said QUIT")
)

// A replyError is answered with -ERR and its text; the dialogue goes on. bad counts it among the bad commands.
type replyError struct {
	text string
	bad  bool
}

func (e *replyError) Error() string { return e.text }

// What clients are told of commands that are out of place.
var (
	errUnknown    = &replyError{text: "Unknown command", bad: true}
	errNeedTLS    = &replyError{text: "Use STLS first: this server takes no password in clear", bad: true}
	errNeedUser   = &replyError{text: "USER first", bad: true}
	errNeedLogin  = &replyError{text: "Log in first", bad: true}
	errTLSAlready = &replyError{text: "TLS is on already", bad: true}
	errNoSTLS     = &replyError{text: "No STLS here", bad: true}
	errBadName    = &replyError{text: "Not a possible user name", bad: true}
	errMechanism  = &replyError{text: "Unknown mechanism; PLAIN and LOGIN are known", bad: true}
	errNotOffered = &replyError{text: "Not offered here"}
	errCancelled  = &replyError{text: "Cancelled"}
	errBadSASL    = &replyError{text: "Not a valid response", bad: true}
	errAuthzid    = &replyError{text: "Acting for another user is not allowed here", bad: true}
	errBadSecret  = &replyError{text: "Not a possible password", bad: true}
)

// do carries out one command line. nil means that it is answered, or will be by what stands in the dialogue's out.
func (s *session) do(ctx context.Context, line []byte) error {
	verb, arg := pop3.ParseCommand(line)
	err := s.dispatch(ctx, verb, arg)
	var reply *replyError
	if !errors.As(err, &reply) {
		return err
	}
	if reply.bad {
		if s.talk.bad++; s.talk.bad >= s.snap.Bounds.BadCommands {
			return errBadCommands // its text is the reply
		}
	}
	s.talk.out = pop3.AppendErr(s.talk.out, "", reply.text)
	return nil
}

func (s *session) dispatch(ctx context.Context, verb pop3.Verb, arg []byte) error {
	switch verb {
	case pop3.CAPA:
		return s.cmdCapa()
	case pop3.USER:
		return s.cmdUser(arg)
	case pop3.PASS:
		return s.cmdPass(ctx, arg)
	case pop3.AUTH:
		return s.cmdAuth(ctx, arg)
	case pop3.STLS:
		return s.cmdSTLS()
	case pop3.QUIT:
		s.talk.out = pop3.AppendOK(s.talk.out, "Bye")
		return errQuit
	case pop3.UTF8, pop3.LANG, pop3.APOP:
		return errNotOffered
	case pop3.STAT, pop3.LIST, pop3.RETR, pop3.DELE, pop3.NOOP, pop3.RSET, pop3.TOP, pop3.UIDL:
		return errNeedLogin
	}
	return errUnknown
}

// cmdCapa offers what popgate does itself before login, and what all backends do after it: which one it will be is
// not known yet.
func (s *session) cmdCapa() error {
	var caps pop3.Capabilities
	if s.mayStartTLS() {
		caps = append(caps, "STLS")
	}
	if s.secure() {
		caps = append(caps, "USER", "SASL PLAIN LOGIN")
	}
	caps = append(caps, "RESP-CODES", "AUTH-RESP-CODE")
	caps = append(caps, loginDelay(s.snap.Backends.Capabilities(), s.snap.Gate.MaxLoginDelay())...)
	s.talk.out = caps.AppendTo(s.talk.out)
	return nil
}

// loginDelay puts a delay of ours into what the backends have in common, unless theirs is longer. RFC 2449 section 6.8 wants the largest that
// any user has before login, and the word USER where another may hold for one.
func loginDelay(backends pop3.Capabilities, ours time.Duration) pop3.Capabilities {
	const name = "LOGIN-DELAY"
	seconds := int((ours + time.Second - 1) / time.Second)
	if seconds <= 0 {
		return backends
	}
	if args, ok := backends.Args(name); ok {
		if theirs, err := strconv.Atoi(strings.Join(args[:min(1, len(args))], "")); err == nil {
			seconds = max(seconds, theirs)
		}
	}
	caps := pop3.Capabilities{name + " " + strconv.Itoa(seconds) + " USER"}
	for _, line := range backends {
		if verb, _, _ := strings.Cut(line, " "); verb != name {
			caps = append(caps, line)
		}
	}
	return caps
}

// secure says that passwords may come over this connection.
func (s *session) secure() bool { return s.client.TLS != nil || s.listener.TLS == TLSOptional }

// mayStartTLS says that the client may say STLS.
func (s *session) mayStartTLS() bool {
	return s.client.TLS == nil && (s.listener.TLS == TLSStartTLS || s.listener.TLS == TLSOptional)
}

func (s *session) cmdUser(arg []byte) error {
	if !s.secure() {
		return errNeedTLS
	}
	name, err := s.listener.NameRules().Parse(arg)
	if err != nil {
		return errBadName
	}
	s.talk.name = &name
	s.talk.out = pop3.AppendOK(s.talk.out, "")
	return nil
}

func (s *session) cmdPass(ctx context.Context, arg []byte) error {
	if !s.secure() {
		return errNeedTLS
	}
	if s.talk.name == nil {
		return errNeedUser
	}
	if !possibleSecret(arg) {
		return errBadSecret
	}
	name := *s.talk.name
	s.talk.name = nil // RFC 1939: after a failed PASS the client starts again with USER
	return s.login(ctx, auth.Credentials{Mechanism: auth.User, Name: name, Secret: auth.NewSecret(arg)})
}

// possibleSecret says that a password can be sent in a PASS command.
func possibleSecret(secret []byte) bool {
	return !slices.ContainsFunc(secret, func(c byte) bool { return c == 0 || c == '\r' || c == '\n' })
}

func (s *session) cmdSTLS() error {
	switch {
	case s.client.TLS != nil:
		return errTLSAlready
	case !s.mayStartTLS():
		return errNoSTLS
	case len(s.talk.lines.Buffered()) > 0:
		// Somebody may have put commands between the client's plaintext and its TLS (CVE-2011-0411).
		s.talk.out = s.talk.out[:0]
		return errBehindSTLS
	}
	s.talk.out = pop3.AppendOK(s.talk.out, "Begin TLS")
	if err := s.talk.flush(); err != nil {
		return err
	}
	before := s.talk
	s.talk.release()
	if err := s.handshake(); err != nil {
		return err
	}
	s.talk = newDialogue(s) // RFC 2595 section 4: forget all that was said in clear, but not what it cost
	s.talk.patience, s.talk.commands = before.patience, before.commands
	return errTLSStarted
}
