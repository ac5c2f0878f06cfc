package store

import (
	"hash/maphash"
	"net/netip"
)

// A Key names one thing that is counted. It holds for the life of its Hasher only.
type Key uint64

// A Hasher makes keys. It may be used by many at once.
type Hasher struct {
	seed maphash.Seed
}

// NewHasher returns a Hasher with a seed of its own.
func NewHasher() Hasher { return Hasher{seed: maphash.MakeSeed()} }

// Network is the key of a client network.
func (h Hasher) Network(p netip.Prefix) Key {
	a := p.Addr().As16()
	var b [17]byte
	copy(b[:], a[:])
	b[16] = byte(p.Bits())
	return Key(maphash.Bytes(h.seed, b[:]))
}

// Pair is the key of two strings; the pairs ("ab", "c") and ("a", "bc") differ.
func (h Hasher) Pair(a, b string) Key {
	return Key(maphash.Comparable(h.seed, [2]string{a, b}))
}
