package proxy

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/cluster"
)

// moved remembers where users who are being moved logged in last, so that their next login goes there first. It forgets those who
// have not come for longest. It may be wrong for a user, which costs one more try.
type moved struct {
	mu       sync.Mutex
	seed     maphash.Seed
	now, old map[uint64]place // by account
	key      *[32]byte        // of the digests, where nodes share them; else nil
	tell     func(message []byte)
	keep     func(cluster.Fact)
}

// A place is the backend where an account was let in.
type place struct {
	backend string
	at      time.Time // when that became known, or was told last
}

const (
	// maxMoved bounds each of the two maps.
	maxMoved = policy.MaxMoved / 2
	// movedFor is how long it is kept where an account was let in, beyond a node's life.
	movedFor = 90 * 24 * time.Hour
	// tellMoved is how often other nodes are told of a user whom they know already.
	tellMoved = 24 * time.Hour
	// maxBackend is the longest name of a backend that another node is believed to have.
	maxBackend = 256
)

// ShareMoved has this gateway share with those of other nodes where users who are being moved logged in last: over bus, and on
// shelf, of policy.MaxMoved facts, beyond the nodes' lives. Accounts are digests made with key, which all nodes have. It comes before Serve.
func (g *Gateway) ShareMoved(key [32]byte, bus *cluster.Bus, shelf *cluster.Shelf) {
	g.moved.share(key, func(message []byte) { bus.Publish("moved", message) }, shelf.Put)
	bus.Subscribe("moved", g.moved.hear)
	shelf.Own(g.moved.take, g.moved.all)
}

// share has tell called with messages for other nodes, and keep with what is to be kept. Both must return at once.
func (m *moved) share(key [32]byte, tell func([]byte), keep func(cluster.Fact)) {
	m.key, m.tell, m.keep = &key, tell, keep
}

// digest stands for an account; two accounts with one are harmless.
func (m *moved) digest(account string) uint64 {
	if m.key != nil {
		sum := sha256.Sum256(append(m.key[:len(m.key):len(m.key)], account...))
		return binary.BigEndian.Uint64(sum[:])
	}
	if m.now == nil {
		m.seed = maphash.MakeSeed()
		m.now = make(map[uint64]place)
	}
	return maphash.String(m.seed, account)
}

// worked says that the account was let in at a backend.
func (m *moved) worked(account, backend string) {
	at := time.Now()
	m.mu.Lock()
	k := m.digest(account)
	before := m.get(k)
	news := before.backend != backend || at.Sub(before.at) >= tellMoved
	if !news {
		at = before.at
	}
	m.put(k, place{backend, at})
	m.mu.Unlock()
	if m.key == nil || !news {
		return
	}
	m.tell(append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(backend)), k), backend...))
	m.keep(movedFact(k, place{backend, at}))
}

// last returns where the account was let in last, "" where that is not known.
func (m *moved) last(account string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(m.digest(account)).backend
}

func (m *moved) get(k uint64) place {
	if p, ok := m.now[k]; ok {
		return p
	}
	return m.old[k]
}

func (m *moved) put(k uint64, p place) {
	if _, ok := m.now[k]; m.now == nil || !ok && len(m.now) >= maxMoved {
		m.now, m.old = make(map[uint64]place), m.now
	}
	m.now[k] = p
}

// hear takes what another node tells: a digest and a backend.
func (m *moved) hear(message []byte) {
	if len(message) > 8 && len(message) <= 8+maxBackend {
		m.learn(binary.BigEndian.Uint64(message), place{string(message[8:]), time.Now()})
	}
}

// take takes what was kept.
func (m *moved) take(f cluster.Fact) {
	if n := len(f.Value); n > 0 && n <= maxBackend {
		m.learn(f.Key, place{string(f.Value), f.At})
	}
}

// learn remembers what others know, unless it is known later here.
func (m *moved) learn(k uint64, p place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); p.at.After(now) {
		p.at = now
	}
	if p.at.After(m.get(k).at) {
		m.put(k, p)
	}
}

// all is what is known, for a Redis that lost it.
func (m *moved) all(yield func(cluster.Fact) bool) {
	var facts []cluster.Fact
	m.mu.Lock()
	for _, some := range []map[uint64]place{m.old, m.now} {
		for k, p := range some {
			facts = append(facts, movedFact(k, p))
		}
	}
	m.mu.Unlock()
	for _, f := range facts {
		if !yield(f) {
			return
		}
	}
}

func movedFact(k uint64, p place) cluster.Fact {
	return cluster.Fact{Key: k, At: p.at, Until: p.at.Add(movedFor), Value: []byte(p.backend)}
}
