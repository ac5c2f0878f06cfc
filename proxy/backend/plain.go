package backend

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"

	"github.com/popgate/popgate/proxy/pop3"
)

var (
	errNoPlain  = errors.New("the server takes no AUTH PLAIN")
	errNotTaken = errors.New("the server said +OK to AUTH PLAIN, and does not know a session's commands then")
)

// plain logs in by AUTH PLAIN (RFC 5034, RFC 4616). It asks first and answers the server's challenge: servers of before
// 2007 know no initial response (RFC 1734), and Exchange, whose challenge is "+OK", would seem to accept one. A server that
// wants it all in one line, and refuses the question, gets that.
func (a *attempt) plain(ctx context.Context) error {
	s := a.member.server
	initial := s.initial.Load()
	if !initial {
		line, err := a.ask(ctx, append(a.line[:0], "AUTH PLAIN\r\n"...))
		if err != nil {
			return err
		}
		challenge, err := a.challenged(line)
		if err != nil {
			return err
		}
		initial = !challenge
	}
	if !initial {
		line, err := a.respond(ctx, "")
		if err != nil {
			return err
		}
		return a.verdict(stepAuth, line)
	}
	line, err := a.respond(ctx, "AUTH PLAIN ")
	if err != nil {
		return err
	}
	if challenges(line) { // it has not looked at the response
		if line, err = a.respond(ctx, ""); err != nil {
			return err
		}
		return a.verdict(stepAuth, line)
	}
	if err := a.verdict(stepAuth, line); err != nil {
		return a.unknownPlain(err)
	}
	if err := a.proven(ctx); err != nil {
		return err
	}
	s.initial.Store(true)
	return nil
}

// challenges says that line asks for the response. Exchange says "+OK" there.
func challenges(line []byte) bool {
	return len(line) > 0 && line[0] == '+' && (len(line) == 1 || line[1] == ' ' || line[1] == '\t')
}

// challenged says whether line, which came to AUTH PLAIN alone, asks for the response. Without one and without an error
// the server may want it in one line.
func (a *attempt) challenged(line []byte) (bool, error) {
	if challenges(line) {
		return true, nil
	}
	r, err := pop3.ParseReply(line)
	if err != nil {
		return false, &Error{Kind: Protocol, Err: err}
	}
	if r.OK {
		return true, nil
	}
	if a.mistaken(r) {
		return false, &Error{Kind: Protocol, Reply: r, Err: errHeader}
	}
	text := a.bare(r.Text)
	kind, ok := coded(r.Code)
	switch {
	case wantsTLS(text):
		return false, a.refusesPlaintext(stepAuth, r)
	case ok && kind == Temporary, !ok && containsAny(text, temporary):
		return false, &Error{Kind: Temporary, Reply: r}
	case ok && kind == Permanent:
		return false, a.noPlain(r)
	}
	return false, nil
}

// unknownPlain makes of a refusal in words that are about the command what it is: the server knows no AUTH PLAIN.
func (a *attempt) unknownPlain(err error) error {
	var e *Error
	if errors.As(err, &e) && e.Kind == WrongPassword && e.Reply.Code == "" && unknownCommand(a.bare(e.Reply.Text)) {
		return a.noPlain(e.Reply)
	}
	return err
}

func (a *attempt) noPlain(r pop3.Reply) error {
	a.advise(warnPlain, "backend takes no AUTH PLAIN; nobody can log in there by a master user", plainFix,
		slog.String("answer", replyText(r)))
	return &Error{Kind: Protocol, Reply: r, Err: errNoPlain}
}

const plainFix = "allow AUTH PLAIN there, or name a master user in the way that the server takes with USER and PASS"

// proven makes sure that a +OK to an initial response was the login's: had it been a challenge, as Exchange's is, the next
// command would be taken for a response.
func (a *attempt) proven(ctx context.Context) error {
	line, err := a.ask(ctx, append(a.line[:0], "NOOP\r\n"...))
	if err != nil {
		return err
	}
	if r, err := pop3.ParseReply(line); err != nil || !r.OK {
		return &Error{Kind: Protocol, Err: errNotTaken}
	}
	return nil
}

// respond sends the response of PLAIN behind prefix, in one write, and returns the answer until the next read.
func (a *attempt) respond(ctx context.Context, prefix string) ([]byte, error) {
	// Sized first: were a buffer to grow, the secret would be left behind in the old one.
	raw := make([]byte, 0, len(a.as.Authzid)+len(a.as.User)+len(a.secret)+2)
	raw = append(append(append(raw, a.as.Authzid...), 0), a.as.User...)
	raw = append(append(raw, 0), a.secret...)
	line := make([]byte, 0, len(prefix)+base64.StdEncoding.EncodedLen(len(raw))+2)
	line = base64.StdEncoding.AppendEncode(append(line, prefix...), raw)
	sent := line[len(prefix):]
	line = append(line, '\r', '\n')
	clear(raw)
	defer clear(line)
	err := a.ready(ctx)
	if err == nil {
		a.passed = true
		_, err = a.conn.Write(line)
	}
	if err != nil {
		return nil, err
	}
	answer, err := a.next()
	if err == nil && bytes.HasPrefix(answer, []byte("-")) && repeats(answer, sent) {
		// A server that repeats the line must not bring the password into the log.
		return []byte("-ERR " + repeated), nil
	}
	return answer, err
}

// bare is a server's text in lower case without the names that the login gave.
func (a *attempt) bare(text string) string {
	text = bare(text, a.as.User)
	if a.as.Authzid != "" {
		text = bare(text, a.as.Authzid)
	}
	return strings.TrimSpace(text)
}
