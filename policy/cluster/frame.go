package cluster

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"
)

// A frame is what is published: magic, the sender, its number, and, sealed, the time and the messages. A message is one byte for
// the length of the part's name, that, two for the message's, and that.
const (
	frameMagic  = "pgbus1\x00\x00"
	senderSize  = 16
	frameHeader = len(frameMagic) + senderSize + 8
	maxMessage  = 4 << 10
	maxMessages = 256 << 10 // of all messages of a frame
	maxFrame    = frameHeader + 8 + maxMessages + 64
)

// Messages are believed for so long. It bounds what a recorded one can be replayed to that has come up since, and how far the
// clocks of nodes may differ.
const freshFor = 2 * time.Minute

// maxSenders is how many processes are remembered. Each start of a node is one.
const maxSenders = 256

// Why frames are not believed.
var (
	errForged = errors.New("it is damaged, of another version, or was made with another key")
	errStale  = errors.New("it was made too long ago, or by a clock that is ahead")
	errAgain  = errors.New("it came before")
)

// An author makes frames. Only one goroutine may use it.
type author struct {
	id   [senderSize]byte
	seal cipher.AEAD
	n    uint64
}

func newAuthor(key [32]byte) *author {
	a := new(author)
	_, _ = rand.Read(a.id[:]) // never fails: crypto/rand
	a.seal = newSeal(key, a.id[:], busPurpose)
	return a
}

const busPurpose = "popgate bus 1"

// frame seals messages, which are joined as appendMessage does it.
func (a *author) frame(messages []byte, now time.Time) []byte {
	a.n++
	b := make([]byte, 0, frameHeader+8+len(messages)+a.seal.Overhead())
	b = append(b, frameMagic...)
	b = append(b, a.id[:]...)
	b = binary.BigEndian.AppendUint64(b, a.n)
	text := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(messages)), uint64(now.UnixMilli()))
	return a.seal.Seal(b, nil, append(text, messages...), b)
}

// appendMessage joins a message to b.
func appendMessage(b []byte, part string, message []byte) []byte {
	b = append(b, byte(len(part)))
	b = append(b, part...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(message)))
	return append(b, message...)
}

// eachMessage calls f for each message, and says whether all were whole.
func eachMessage(b []byte, f func(part string, message []byte)) bool {
	for len(b) > 0 {
		n := 1 + int(b[0])
		if len(b) < n+2 {
			return false
		}
		part, size := string(b[1:n]), int(binary.BigEndian.Uint16(b[n:]))
		if b = b[n+2:]; len(b) < size {
			return false
		}
		f(part, b[:size])
		b = b[size:]
	}
	return true
}

// A reader opens frames of others. Only one goroutine may use it.
type reader struct {
	key     [32]byte
	own     [senderSize]byte
	senders map[[senderSize]byte]*sender
}

// A sender is one whose frames were opened.
type sender struct {
	seal  cipher.AEAD
	last  uint64
	heard time.Time
}

func newReader(key [32]byte, own [senderSize]byte) *reader {
	return &reader{key: key, own: own, senders: make(map[[senderSize]byte]*sender)}
}

// open gives the messages of a frame; none, without an error, where it is one of our own.
func (r *reader) open(frame []byte, now time.Time) ([]byte, error) {
	if len(frame) < frameHeader || len(frame) > maxFrame || string(frame[:len(frameMagic)]) != frameMagic {
		return nil, errForged
	}
	id := [senderSize]byte(frame[len(frameMagic):])
	if id == r.own {
		return nil, nil
	}
	s := r.senders[id]
	if s == nil {
		s = &sender{seal: newSeal(r.key, id[:], busPurpose)} // it is remembered once it has shown that it has the key
	}
	text, err := s.seal.Open(nil, nil, frame[frameHeader:], frame[:frameHeader])
	if err != nil || len(text) < 8 {
		return nil, errForged
	}
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(text)))
	if age := now.Sub(made); age > freshFor || age < -freshFor {
		return nil, errStale
	}
	n := binary.BigEndian.Uint64(frame[frameHeader-8:])
	if n <= s.last {
		return nil, errAgain
	}
	s.last, s.heard = n, now
	r.remember(id, s)
	return text[8:], nil
}

// remember keeps s in the place of who has not been heard of for longest, where there are too many.
func (r *reader) remember(id [senderSize]byte, s *sender) {
	if r.senders[id] == nil && len(r.senders) >= maxSenders {
		oldest := id
		for other, o := range r.senders {
			if was := r.senders[oldest]; was == nil || o.heard.Before(was.heard) {
				oldest = other
			}
		}
		delete(r.senders, oldest)
	}
	r.senders[id] = s
}
