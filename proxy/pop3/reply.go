package pop3

import (
	"bytes"
	"errors"
	"strings"
)

// ErrNotReply means that a line is no reply of a POP3 server.
var ErrNotReply = errors.New("not a POP3 reply")

// A Code is a response code of RFC 2449 section 8, without its brackets, in capitals, such as "IN-USE" or "SYS/TEMP".
type Code string

// The codes that tell a client something it can act on.
const (
	CodeAuth       Code = "AUTH"        // RFC 3206: the credentials are wrong
	CodeSysTemp    Code = "SYS/TEMP"    // RFC 3206: try again later
	CodeSysPerm    Code = "SYS/PERM"    // RFC 3206: a human must act
	CodeInUse      Code = "IN-USE"      // RFC 2449: the maildrop is busy
	CodeLoginDelay Code = "LOGIN-DELAY" // RFC 2449: polled too soon
)

// A Reply is the first line of a server's answer.
type Reply struct {
	// OK tells +OK from -ERR.
	OK bool
	// Code is the response code, or "".
	Code Code
	// Text is what follows the status and the code, with control bytes and surrounding blanks removed. It is UTF-8:
	// octets that are not become U+FFFD.
	Text string
}

// ParseReply reads a reply line without its line end. It takes what servers in the field send: any case, no blank
// behind the status. What begins otherwise is ErrNotReply.
func ParseReply(line []byte) (Reply, error) {
	var r Reply
	rest, ok := cutStatus(line, "+OK")
	if ok {
		r.OK = true
	} else if rest, ok = cutStatus(line, "-ERR"); !ok {
		return Reply{}, ErrNotReply
	}
	text := strings.TrimSpace(strings.Map(printable, string(rest)))
	if inner, found := strings.CutPrefix(text, "["); found {
		if code, after, closed := strings.Cut(inner, "]"); closed {
			r.Code, text = Code(strings.ToUpper(code)), strings.TrimSpace(after)
		}
	}
	r.Text = text
	return r, nil
}

// cutStatus removes a status from the start of line. A letter right behind it makes it another word.
func cutStatus(line []byte, status string) ([]byte, bool) {
	if len(line) < len(status) || !bytes.EqualFold(line[:len(status)], []byte(status)) {
		return nil, false
	}
	rest := line[len(status):]
	if len(rest) > 0 && (rest[0]|0x20 >= 'a' && rest[0]|0x20 <= 'z') {
		return nil, false
	}
	return rest, true
}

// printable is for strings.Map: a tab is a blank, and what would command a terminal is dropped.
func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case r < ' ', r >= 0x7f && r < 0xa0, r == 0x2028, r == 0x2029:
		return -1
	}
	return r
}

// AppendOK appends a positive reply with its line end.
func AppendOK(b []byte, text string) []byte {
	return appendReply(b, "+OK", "", text)
}

// AppendErr appends a negative reply with its line end; an empty code is left out.
func AppendErr(b []byte, code Code, text string) []byte {
	return appendReply(b, "-ERR", code, text)
}

func appendReply(b []byte, status string, code Code, text string) []byte {
	b = append(b, status...)
	if code != "" {
		b = append(b, " ["...)
		b = append(b, code...)
		b = append(b, ']')
	}
	if text != "" {
		b = append(b, ' ')
		b = append(b, text...)
	}
	return append(b, '\r', '\n')
}
