package store

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"net/netip"
)

// A Key names one thing that is counted. It holds for the life of its Hasher only; that of a shared one is the same on
// all nodes that have the secret.
type Key uint64

// A Class says who can bring keys into being, and so what may be forgotten for whom where there are too many rates.
type Class uint8

// The classes of keys.
const (
	Strangers Class = iota // anybody can, by connecting: the least of them is forgotten first
	Users                  // who has the right password can; no stranger makes popgate forget one
	Fixed                  // the configuration alone does: none is ever forgotten
	classes
)

const classShift = 62

// class is that of k.
func (k Key) class() Class { return min(Class(k>>classShift), classes-1) }

// Of is the key of one quantity of what k names, such as its sessions. The keys of different quantities do not meet.
func (k Key) Of(c Class, quantity uint8) Key {
	x := uint64(k) + (uint64(quantity)+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return Key(x&(1<<classShift-1) | uint64(c)<<classShift)
}

// keySize is the number of bytes of the key that a shared hasher's keys are made with.
const keySize = 32

// What a shared hasher's key is of; the same bytes give different keys.
const (
	ofNetwork = 'n'
	ofPair    = 'p'
	ofText    = 't'
)

// A Hasher makes keys. It may be used by many at once.
type Hasher struct {
	seed   maphash.Seed
	shared *[keySize]byte // nil: keys are this process's own
}

// NewHasher returns a Hasher with a seed of its own.
func NewHasher() Hasher { return Hasher{seed: maphash.MakeSeed()} }

// NewSharedHasher returns a Hasher whose keys are the same wherever the secret is, and tell nothing without it. The
// secret is at least 32 random bytes.
func NewSharedHasher(secret []byte) Hasher {
	derived, err := hkdf.Key(sha256.New, secret, nil, "popgate: keys of counts", keySize)
	if err != nil {
		panic("store: a secret too short for a hasher: " + err.Error())
	}
	return Hasher{shared: (*[keySize]byte)(derived)}
}

// Network is the key of a client network.
func (h Hasher) Network(p netip.Prefix) Key {
	a := p.Addr().As16()
	var b [17]byte
	copy(b[:], a[:])
	b[16] = byte(p.Bits())
	if h.shared != nil {
		return h.digest(ofNetwork, b[:])
	}
	return Key(maphash.Bytes(h.seed, b[:]))
}

// Pair is the key of two strings; the pairs ("ab", "c") and ("a", "bc") differ.
func (h Hasher) Pair(a, b string) Key {
	if h.shared == nil {
		return Key(maphash.Comparable(h.seed, [2]string{a, b}))
	}
	var room [512]byte
	data := binary.AppendUvarint(room[:0], uint64(len(a)))
	return h.digest(ofPair, append(append(data, a...), b...))
}

// Text is the key of one string.
func (h Hasher) Text(s string) Key {
	if h.shared == nil {
		return Key(maphash.String(h.seed, s))
	}
	var room [256]byte
	return h.digest(ofText, append(room[:0], s...))
}

// digest is the first 8 bytes of SHA-256 over the key and data: cut that far, nobody can go on hashing from it.
func (h Hasher) digest(of byte, data []byte) Key {
	var room [640]byte
	b := append(room[:0], h.shared[:]...)
	sum := sha256.Sum256(append(append(b, of), data...))
	return Key(binary.LittleEndian.Uint64(sum[:8]))
}
