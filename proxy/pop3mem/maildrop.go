package pop3mem

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"slices"
	"strconv"
)

var (
	errCredentials = errors.New("wrong user name or password")
	errInUse       = errors.New("mailbox is in use")
)

// A maildrop is a user's mailbox. Its server's lock guards it.
type maildrop struct {
	password []byte
	messages []*message
	last     uint64 // the number in the newest message's unique id
	locked   bool   // by a session (RFC 1939 section 4)
}

// A message is kept the way it is sent. It never changes.
type message struct {
	id   string // unique in its maildrop, for ever (RFC 1939, UIDL)
	size int    // octets with CRLF line ends, before dot-stuffing
	wire []byte // dot-stuffed, up to the line with the dot
}

func (d *maildrop) add(text []byte) {
	d.last++
	m := &message{id: "popgate-" + strconv.FormatUint(d.last, 10)}
	m.wire, m.size = stuff(text)
	d.messages = append(d.messages, m)
}

// stuff brings a message into the form of a multi-line reply (RFC 1939 section 3), and counts its octets.
func stuff(text []byte) (wire []byte, size int) {
	wire = make([]byte, 0, len(text)+len(text)/32+8)
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte{'\n'})
		line = bytes.TrimSuffix(line, []byte{'\r'})
		text = rest
		if len(line) > 0 && line[0] == '.' {
			wire = append(wire, '.')
			size--
		}
		wire = append(wire, line...)
		wire = append(wire, '\r', '\n')
	}
	size += len(wire)
	return append(wire, '.', '\r', '\n'), size
}

// top returns the header, the empty line behind it, and n lines of the body, in the form of wire but for the last line.
func (m *message) top(n int) []byte {
	body := m.wire[:len(m.wire)-len(".\r\n")]
	end := bytes.Index(body, []byte("\r\n\r\n"))
	switch {
	case bytes.HasPrefix(body, []byte("\r\n")):
		end = len("\r\n") // no header at all
	case end < 0:
		return body
	default:
		end += len("\r\n\r\n")
	}
	for ; n > 0 && end < len(body); n-- {
		end += bytes.IndexByte(body[end:], '\n') + 1
	}
	return body[:end]
}

// login takes a mailbox for one session, and returns what is in it now.
func (s *Server) login(user, password []byte) (*maildrop, []*message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	box := s.boxes[string(user)]
	if box == nil || subtle.ConstantTimeCompare(box.password, password) != 1 {
		return nil, nil, errCredentials
	}
	if box.locked {
		return nil, nil, errInUse
	}
	box.locked = true
	return box, slices.Clone(box.messages), nil
}

// logout gives a mailbox back and removes the messages that a session has deleted.
func (s *Server) logout(box *maildrop, deleted []*message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(deleted) > 0 {
		box.messages = slices.DeleteFunc(box.messages, func(m *message) bool { return slices.Contains(deleted, m) })
	}
	box.locked = false
}
