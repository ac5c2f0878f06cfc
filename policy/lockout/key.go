package lockout

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
)

// A Key is a keyed digest of a user's name, a client network, both, or a secret. 0 is no key.
type Key uint64

// String is the key in hex, as lists show it.
func (k Key) String() string { return fmt.Sprintf("%016x", uint64(k)) }

// MarshalText is String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText has written.
func (k *Key) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return fmt.Errorf("the key of a user: %w", err)
	}
	*k = Key(n)
	return nil
}

// keySize is the number of bytes of a digest's own key.
const keySize = 32

// What a digest is of; the same bytes give different keys.
const (
	ofUser    = 'u'
	ofNetwork = 'n'
	ofSecret  = 's'
)

// hasher makes keys. names is kept beside the state, so that it is understood after a restart; secrets is never written.
type hasher struct {
	names, secrets [keySize]byte
}

func newHasher() hasher {
	var h hasher
	_, _ = rand.Read(h.names[:]) // never fails: crypto/rand
	_, _ = rand.Read(h.secrets[:])
	return h
}

func (h *hasher) network(p netip.Prefix) Key {
	a := p.Addr().As16()
	var b [17]byte
	copy(b[:], a[:])
	b[16] = byte(p.Bits())
	return digest(&h.names, ofNetwork, b[:])
}

// digest is the first 8 bytes of SHA-256 over key and data: cut that far, nobody can go on hashing from it. What it
// copies of data is wiped.
func digest(key *[keySize]byte, of byte, data []byte) Key {
	var room [256]byte
	b := append(room[:0], key[:]...)
	b = append(b, of)
	if len(data) > cap(b)-len(b) {
		first := sha256.Sum256(data)
		b = append(b, first[:]...)
		b = append(b, of) // 32 bytes and this one: no short data looks like it but data of that very digest
	} else {
		b = append(b, data...)
	}
	sum := sha256.Sum256(b)
	clear(b)
	return Key(max(binary.LittleEndian.Uint64(sum[:8]), 1))
}

// pair is the key of two keys, in that order. Both are keyed digests, so that mixing them well is enough.
func pair(a, b Key) Key {
	x := uint64(a)*0x9e3779b97f4a7c15 ^ uint64(b)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return Key(max(x^x>>31, 1))
}
