package certs

import (
	"crypto/rand"
	"crypto/tls"
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
	keys [][32]byte // the newest first
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
	t.sealer.SetSessionTicketKeys(t.keys)
}

func (t *tickets) seal(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
	return t.sealer.EncryptTicket(cs, ss)
}

func (t *tickets) open(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	return t.sealer.DecryptTicket(ticket, cs)
}
