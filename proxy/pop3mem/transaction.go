package pop3mem

import (
	"bytes"
	"strconv"

	"github.com/popgate/popgate/proxy/pop3"
)

// transaction answers the commands of a session that has logged in (RFC 1939 section 5).
func (s *session) transaction(verb pop3.Verb, arg []byte) {
	switch verb {
	case pop3.STAT:
		n, size := s.total()
		s.reply(appendNumbers(append(s.w.AvailableBuffer(), "+OK"...), n, size))
	case pop3.LIST:
		s.list(arg, func(b []byte, m *message) []byte { return strconv.AppendInt(b, int64(m.size), 10) })
	case pop3.UIDL:
		s.list(arg, func(b []byte, m *message) []byte { return append(b, m.id...) })
	case pop3.RETR:
		if m := s.message(arg); m != nil {
			s.reply(append(strconv.AppendInt(append(s.w.AvailableBuffer(), "+OK "...), int64(m.size), 10), " octets\r\n"...))
			s.reply(m.wire)
		}
	case pop3.TOP:
		s.top(arg)
	case pop3.DELE:
		if m := s.message(arg); m != nil {
			n, _ := number(arg)
			s.deleted[n-1] = true
			s.ok("deleted")
		}
	case pop3.RSET:
		clear(s.deleted)
		s.ok("")
	case pop3.NOOP:
		s.ok("")
	case pop3.USER, pop3.PASS, pop3.AUTH, pop3.STLS:
		s.err("", "already logged in")
	default:
		s.err("", "unknown command")
	}
}

// total counts the messages that are not deleted, and their octets.
func (s *session) total() (n, size int) {
	for i, m := range s.mail {
		if !s.deleted[i] {
			n++
			size += m.size
		}
	}
	return n, size
}

// list answers LIST and UIDL, for one message or all.
func (s *session) list(arg []byte, what func([]byte, *message) []byte) {
	if len(bytes.TrimSpace(arg)) > 0 {
		if m := s.message(arg); m != nil {
			n, _ := number(arg)
			b := strconv.AppendInt(append(s.w.AvailableBuffer(), "+OK "...), int64(n), 10)
			s.reply(append(what(append(b, ' '), m), '\r', '\n'))
		}
		return
	}
	n, size := s.total()
	s.ok(strconv.Itoa(n) + " messages (" + strconv.Itoa(size) + " octets)")
	for i, m := range s.mail {
		if !s.deleted[i] {
			b := append(strconv.AppendInt(s.w.AvailableBuffer(), int64(i+1), 10), ' ')
			s.reply(append(what(b, m), '\r', '\n'))
		}
	}
	s.reply([]byte(".\r\n"))
}

func (s *session) top(arg []byte) {
	which, lines, _ := bytes.Cut(bytes.TrimSpace(arg), []byte{' '})
	n, ok := number(lines)
	if !ok {
		s.err("", "TOP needs a message and a number of lines")
		return
	}
	if m := s.message(which); m != nil {
		s.ok("top of message follows")
		s.reply(m.top(n))
		s.reply([]byte(".\r\n"))
	}
}

// message finds the message that a command names, or says that there is none.
func (s *session) message(arg []byte) *message {
	n, ok := number(arg)
	if !ok || n < 1 || n > len(s.mail) || s.deleted[n-1] {
		s.err("", "no such message")
		return nil
	}
	return s.mail[n-1]
}

// number reads decimal digits, and nothing else but blanks around them.
func number(arg []byte) (int, bool) {
	arg = bytes.TrimSpace(arg)
	n := 0
	for _, c := range arg {
		if c < '0' || c > '9' || n > 1<<30 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(arg) > 0
}

func appendNumbers(b []byte, numbers ...int) []byte {
	for _, n := range numbers {
		b = strconv.AppendInt(append(b, ' '), int64(n), 10)
	}
	return append(b, '\r', '\n')
}
