package cluster

import (
	"encoding/binary"
	"time"
)

// A Fact is something that nodes know and shall know after a restart of all of them.
type Fact struct {
	Key   uint64    // a keyed digest
	At    time.Time // when it came to be; of two with one key, the later holds
	Until time.Time // when it may be forgotten
	Value []byte    // at most 4 KiB
}

// What is written for a fact: its time in 7 bytes, by which the script tells which is later, and, sealed, its end and value.
const (
	factTime = 7
	maxTime  = 1<<(8*factTime) - 1
)

func fieldOf(key uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], key)
	return string(b[:])
}

func (s *Shelf) sealed(f Fact) []byte {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(min(max(f.At.UnixMicro(), 0), maxTime)))
	text := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(f.Value)), uint64(f.Until.UnixMicro()))
	b := append(make([]byte, 0, factTime+8+len(f.Value)+s.seal.Overhead()), at[1:]...)
	return s.seal.Seal(b, nil, append(text, f.Value...), s.about(fieldOf(f.Key), at[1:]))
}

// about is what is sealed along with a fact: it fits this place only.
func (s *Shelf) about(field string, at []byte) []byte {
	return append(append([]byte(s.part+"\x00"), field...), at...)
}

// open reads what sealed has written.
func (s *Shelf) open(field string, b []byte) (Fact, error) {
	if len(field) != 8 || len(b) < factTime {
		return Fact{}, errForged
	}
	text, err := s.seal.Open(nil, nil, b[factTime:], s.about(field, b[:factTime]))
	if err != nil || len(text) < 8 {
		return Fact{}, errForged
	}
	at := binary.BigEndian.Uint64(append([]byte{0}, b[:factTime]...))
	return Fact{
		Key: binary.BigEndian.Uint64([]byte(field)), At: time.UnixMicro(int64(at)),
		Until: time.UnixMicro(int64(binary.BigEndian.Uint64(text))), Value: text[8:],
	}, nil
}
