package audit

import (
	"net/netip"
	"time"

	"github.com/popgate/popgate/auth"
)

// appendDovecotLine appends a failed login as Dovecot's log has it, for programs that read Dovecot's log and ban who fails
// there, such as fail2ban and CrowdSec with their own rules for it. The line ends in a newline. What is no login.refused,
// or was refused for what is no fault of the client's, appends nothing. Nor does what repeats the wrong password of
// before: a mail client that was left with an old one would have its office banned. node is the gateway's name.
//
// What a stranger can choose is between "user=<" and ">", and has there no byte that means anything to a reader.
func appendDovecotLine(b []byte, node string, e *Event) []byte {
	if e.Name != LoginRefused || e.Repeated || !e.Reason.guess() || !e.Client.IsValid() {
		return b
	}
	at := e.Time
	if at.IsZero() {
		at = time.Now()
	}
	b = at.UTC().AppendFormat(b, timeFormat)
	b = append(b, ' ')
	b = appendHost(b, node)
	// One attempt, for there is a line for each; and for how long it went on is no question then.
	b = append(b, " dovecot: pop3-login: Aborted login (auth failed, 1 attempts in 0 secs): user=<"...)
	b = appendEscaped(b, clip(e.User))
	b = append(b, ">, method="...)
	b = append(b, dovecotMethod(e.Mechanism)...)
	remote := e.Client.Addr().Unmap().WithZone("")
	b = append(b, ", rip="...)
	b = remote.AppendTo(b)
	b = append(b, ", lip="...)
	b = localFor(remote, e.Local).AppendTo(b)
	if e.TLS != nil {
		b = append(b, ", TLS"...)
	}
	if e.Session != "" { // an empty <> is in no reader's pattern
		b = append(b, ", session=<"...)
		b = appendEscaped(b, clip(e.Session))
		b = append(b, '>')
	}
	return append(b, '\n')
}

// guess says that a login refused for r may be one of somebody who guesses. Who is locked out and goes on does so. Who may
// not come at all (access_denied) has shown nothing of the kind, and what weakforced refuses may be the user's logins from
// everywhere, because of what others tried on it.
func (r Reason) guess() bool {
	switch r {
	case WrongPassword, UnknownUser, BadName, LockedOut:
		return true
	}
	return false
}

// dovecotMethod is what Dovecot calls a mechanism: to it, USER and PASS are PLAIN.
func dovecotMethod(m auth.Mechanism) string {
	if m == auth.Login {
		return "LOGIN"
	}
	return "PLAIN"
}

// localFor is never the zero Addr: CrowdSec knows no line without lip.
func localFor(remote, local netip.Addr) netip.Addr {
	switch {
	case local.IsValid():
		return local.Unmap().WithZone("")
	case remote.Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// appendHost appends node as a host's name.
func appendHost(b []byte, node string) []byte {
	if node == "" {
		return append(b, "popgate"...)
	}
	for i := range len(node) {
		c := node[i]
		if !letterOrDigit(c) && c != '-' && c != '.' && c != '_' {
			c = '-'
		}
		b = append(b, c)
	}
	return b
}

// appendEscaped appends s with every byte as %XX that is not known to mean nothing to a reader of logs. Letters, digits and
// what usual names have besides stay; = does not, so that no rip= can be in a name.
func appendEscaped(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case letterOrDigit(c), c == '@', c == '.', c == '_', c == '-', c == '+', c == '/':
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

func letterOrDigit(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
