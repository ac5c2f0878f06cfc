package lockout

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/dchest/siphash"
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

// keySize is the number of bytes of the keys that digests are made with.
const keySize = 32

// What a digest is of; the same bytes give different keys.
const (
	ofUser    = 'u'
	ofNetwork = 'n'
	ofSecret  = 's'
)

// hasher makes keys. names is kept beside the state, so that it is understood after a restart; secrets is never written.
type hasher struct {
	names, secrets        [keySize]byte
	user, network, secret half
}

// A half is the key of one kind of digests.
type half struct{ k0, k1 uint64 }

func newHasher() hasher {
	var h hasher
	_, _ = rand.Read(h.names[:]) // never fails: crypto/rand
	_, _ = rand.Read(h.secrets[:])
	h.ready()
	return h
}

// ready makes what digests are made with of names and secrets.
func (h *hasher) ready() {
	h.user, h.network, h.secret = halfOf(&h.names, ofUser), halfOf(&h.names, ofNetwork), halfOf(&h.secrets, ofSecret)
}

func halfOf(key *[keySize]byte, of byte) half {
	sum := sha256.Sum256(append(key[:len(key):len(key)], of))
	return half{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}

func (h *hasher) ofNetwork(p netip.Prefix) Key {
	a := p.Addr().As16()
	var b [17]byte
	copy(b[:], a[:])
	b[16] = byte(p.Bits())
	return h.network.digest(b[:])
}

// ofUser is the key of a user's name.
func (h *hasher) ofUser(name string) Key {
	var room [256]byte // longer ones are allocated
	return h.user.digest(append(room[:0], name...))
}

// digest is SipHash-2-4: fast for short texts, and nobody without the key can tell anything by it or make two texts meet.
func (h half) digest(data []byte) Key { return Key(max(siphash.Hash(h.k0, h.k1, data), 1)) }

// pair is the key of two keys, in that order. Both are keyed digests, so that mixing them well is enough.
func pair(a, b Key) Key {
	x := uint64(a)*0x9e3779b97f4a7c15 ^ uint64(b)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return Key(max(x^x>>31, 1))
}
