package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// slots bounds the TLS handshakes at work. A handshake takes a slot once its ClientHello is complete, so that a
// client that sends nothing holds none, and gives it back when it waits for the client again. No network gets more
// than an eighth of them.
type slots struct {
	mu       sync.Mutex
	size     int
	all      *semaphore.Weighted
	networks map[netip.Prefix]*share
}

// A share is what one network may take. It exists while somebody of the network holds or awaits a slot.
type share struct {
	sem  *semaphore.Weighted
	used int
}

// A slot is the right to do one handshake.
type slot struct {
	of      *slots
	all     *semaphore.Weighted
	network netip.Prefix
	share   *share
}

// resize sets the number of slots. Handshakes at work keep the slots they have.
func (s *slots) resize(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n != s.size {
		s.size, s.all, s.networks = n, semaphore.NewWeighted(int64(n)), make(map[netip.Prefix]*share)
	}
}

// take waits until a slot is free for network or the deadline has come. The caller gives it back by release.
func (s *slots) take(network netip.Prefix, deadline time.Time) (*slot, error) {
	s.mu.Lock()
	sh := s.networks[network]
	if sh == nil {
		sh = &share{sem: semaphore.NewWeighted(int64(max(1, s.size/8)))}
		s.networks[network] = sh
	}
	sh.used++
	t := &slot{of: s, all: s.all, network: network, share: sh}
	s.mu.Unlock()
	if err := acquire(sh.sem, deadline); err != nil {
		t.leave()
		return nil, err
	}
	if err := acquire(t.all, deadline); err != nil {
		sh.sem.Release(1)
		t.leave()
		return nil, err
	}
	return t, nil
}

func acquire(sem *semaphore.Weighted, deadline time.Time) error {
	if sem.TryAcquire(1) {
		return nil
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	return sem.Acquire(ctx, 1)
}

// giveSlot gives back the session's slot, if it has one.
func (s *session) giveSlot() {
	if s.slot != nil {
		s.slot.release()
		s.slot = nil
	}
}

// release gives the slot back.
func (t *slot) release() {
	t.all.Release(1)
	t.share.sem.Release(1)
	t.leave()
}

func (t *slot) leave() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if t.share.used--; t.share.used == 0 && t.of.networks[t.network] == t.share {
		delete(t.of.networks, t.network)
	}
}

// Hello is to be called with every ClientHello that comes on one of the gateway's connections, before any of the
// handshake's work is done. It waits for the handshake's turn. Where the gate has none for the client, it closes the connection: the alert
// that crypto/tls sends for an error would be an answer.
func (g *Gateway) Hello(hello *tls.ClientHelloInfo) error {
	c, ok := hello.Conn.(*clientConn)
	if !ok {
		return fmt.Errorf("handshake on a %T, which is no connection of this gateway", hello.Conn)
	}
	s := c.session
	if err := s.visit.Handshake(hello.Context()); err != nil {
		_ = s.raw.Close()
		return err
	}
	t, err := g.slots.take(s.client.Network(), s.handshakeBy)
	if err != nil {
		return errNoSlot
	}
	s.slot = t
	return nil
}
