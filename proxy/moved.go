package proxy

import (
	"hash/maphash"
	"sync"
)

// moved remembers where users who are being moved logged in last, so that their next login goes there first. It forgets those who
// have not come for longest. It may be wrong for a user, which costs one more try.
type moved struct {
	mu       sync.Mutex
	seed     maphash.Seed
	now, old map[uint64]string // backends by account
}

// maxMoved bounds each of the two maps.
const maxMoved = 100_000

// key stands for an account; two accounts with one key are harmless.
func (m *moved) key(account string) uint64 {
	if m.now == nil {
		m.now, m.seed = make(map[uint64]string), maphash.MakeSeed()
	}
	return maphash.String(m.seed, account)
}

// worked says that the account was let in at a backend.
func (m *moved) worked(account, backend string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.key(account)
	if len(m.now) >= maxMoved {
		m.now, m.old = make(map[uint64]string), m.now
	}
	m.now[k] = backend
}

// last returns where the account was let in last, "" where that is not known.
func (m *moved) last(account string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.key(account)
	if backend, ok := m.now[k]; ok {
		return backend
	}
	return m.old[k]
}
