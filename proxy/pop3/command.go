package pop3

import "bytes"

// A Verb is a command's name in capitals; the zero Verb stands for all that POP3 does not know.
type Verb string

// The commands that popgate or its test server answer.
const (
	APOP Verb = "APOP"
	AUTH Verb = "AUTH"
	CAPA Verb = "CAPA"
	DELE Verb = "DELE"
	LANG Verb = "LANG"
	LIST Verb = "LIST"
	NOOP Verb = "NOOP"
	PASS Verb = "PASS"
	QUIT Verb = "QUIT"
	RETR Verb = "RETR"
	RSET Verb = "RSET"
	STAT Verb = "STAT"
	STLS Verb = "STLS"
	TOP  Verb = "TOP"
	UIDL Verb = "UIDL"
	USER Verb = "USER"
	UTF8 Verb = "UTF8"
)

// verbs lists all of them: giving back one of these makes no new string.
var verbs = [...]Verb{
	APOP, AUTH, CAPA, DELE, LANG, LIST, NOOP, PASS, QUIT, RETR, RSET, STAT, STLS, TOP, UIDL, USER, UTF8,
}

// ParseCommand parts a line, without its line end, into its verb, in any case, and its argument. A blank or a tab
// parts them, just one: all that follows belongs to the argument, since passwords may begin and end with blanks.
// The argument is a part of line.
func ParseCommand(line []byte) (Verb, []byte) {
	word, arg := line, []byte(nil)
	if i := bytes.IndexAny(line, " \t"); i >= 0 {
		word, arg = line[:i], line[i+1:]
	}
	return verb(word), arg
}

func verb(word []byte) Verb {
	var up [4]byte
	if len(word) > len(up) {
		return ""
	}
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		up[i] = c
	}
	for _, v := range verbs {
		if string(up[:len(word)]) == string(v) {
			return v
		}
	}
	return ""
}

// Foreign names the protocol that a first line of a connection belongs to when it is not POP3: "HTTP", "SMTP",
// "IMAP", "TLS" or "PROXY protocol"; "" when it may be POP3. The line need not be whole: the first few octets tell.
//
// A gateway that goes on talking to such a client lets an attacker use it across protocols (ALPACA, CVE-2021-3618).
func Foreign(line []byte) string {
	if len(line) >= 3 && line[0] == 0x16 && line[1] == 0x03 {
		return "TLS"
	}
	if bytes.HasPrefix(line, []byte("\r\n\r\n\x00")) {
		return "PROXY protocol"
	}
	word := line
	if i := bytes.IndexAny(line, " \t\r\n"); i >= 0 {
		word = line[:i]
	}
	if verb(word) != "" {
		return "" // or AUTH LOGIN were an IMAP client's LOGIN with the tag AUTH
	}
	switch string(bytes.ToUpper(word)) {
	case "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI":
		return "HTTP"
	case "EHLO", "HELO", "LHLO", "MAIL":
		return "SMTP"
	case "PROXY":
		return "PROXY protocol"
	}
	if rest := bytes.TrimLeft(line[len(word):], " "); len(rest) > 0 && imapVerb(rest) {
		return "IMAP"
	}
	return ""
}

// imapVerb says that rest, what follows an IMAP client's tag, starts with a command such clients begin with.
func imapVerb(rest []byte) bool {
	for _, v := range []string{"CAPABILITY", "LOGIN", "STARTTLS", "AUTHENTICATE", "ID ("} {
		if len(rest) >= len(v) && bytes.EqualFold(rest[:len(v)], []byte(v)) {
			return true
		}
	}
	return false
}
