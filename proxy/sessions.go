package proxy

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// sessions is the live list.
type sessions struct {
	mu   sync.Mutex
	live map[*session]struct{}
}

func (l *sessions) add(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == nil {
		l.live = make(map[*session]struct{})
	}
	l.live[s] = struct{}{}
}

func (l *sessions) remove(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, s)
}

func (l *sessions) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.live)
}

// each calls f for every session, with the list locked: f must not wait.
func (l *sessions) each(f func(*session)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.live {
		f(s)
	}
}

// sweepAtOnce is for how many sessions sweep holds the list: some 20 µs.
const sweepAtOnce = 512

// sweep calls f for every session, with the list free most of the time. Sessions that begin meanwhile may be left out, and
// those that end may be among them.
func (l *sessions) sweep(f func(*session)) {
	var some [sweepAtOnce]*session
	n := 0
	flush := func() {
		for _, s := range some[:n] {
			f(s)
		}
		n = 0
	}
	l.mu.Lock()
	// A map may be changed between two steps of a range over it.
	for s := range l.live {
		some[n] = s
		if n++; n == len(some) {
			l.mu.Unlock()
			flush()
			l.mu.Lock()
		}
	}
	l.mu.Unlock()
	flush()
}

// ids makes session identifiers: a part of the process's own, so that nodes and restarts do not meet, and a count.
type ids struct {
	process string
	last    atomic.Uint64
}

var idText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

func newIDs() ids {
	var b [5]byte
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand ends the process instead
	return ids{process: idText.EncodeToString(b[:])}
}

func (i *ids) next() string {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], i.last.Add(1))
	var b [16]byte
	copy(b[:], i.process)
	idText.Encode(b[8:], n[3:])
	return string(b[:])
}
