package certs

import (
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync"
	"time"
)

const (
	ticketLife = 24 * time.Hour
	// ticketKeysKept bounds how long a stolen key is of use to read TLS 1.2 tickets: three days.
	ticketKeysKept = 3
)

// tickets are the session ticket keys of one listener. They outlive every reload. All configs of the listener, those of
// older views and clones too, seal and open their tickets here, so one rotation reaches them all:
// SetSessionTicketKeys on a config would not reach its clones.
type tickets struct {
	sealer tls.Config // holds the keys, serves no connection

	mu   sync.Mutex
	keys [][32]byte // its own, the newest first
	// The keys that all gateways of a shared storage have, the one that seals first; nil where none are shared.
	shared [][32]byte
	stale  bool // shared should have been replaced long ago
}

func newTickets() *tickets {
	t := &tickets{}
	t.rotate()
	return t
}

// rotate makes a new key for new tickets; those under the last few keys stay good.
func (t *tickets) rotate() {
	var key [32]byte
	rand.Read(key[:]) // never fails (crypto/rand)
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := append([][32]byte{key}, t.keys...)
	t.keys = keys[:min(len(keys), ticketKeysKept)]
	t.set()
}

// share has the tickets sealed with keys that other gateways have too, unless these are stale. What was sealed otherwise stays good.
func (t *tickets) share(keys [][32]byte, stale bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Equal(keys, t.shared) && stale == t.stale {
		return
	}
	t.shared, t.stale = keys, stale
	t.set()
}

// set puts the keys in force. The lock is held.
func (t *tickets) set() {
	first, then := t.shared, t.keys
	if t.stale {
		first, then = then, first
	}
	t.sealer.SetSessionTicketKeys(slices.Concat(first, then))
}

func (t *tickets) seal(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
	return t.sealer.EncryptTicket(cs, ss)
}

func (t *tickets) open(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	return t.sealer.DecryptTicket(ticket, cs)
}
