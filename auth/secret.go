package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"log/slog"
)

// hidden is what a secret prints as, whichever way it is printed.
const hidden = "[secret]"

// A Secret is a password or token. It prints as a constant through every verb of fmt, in slog and in JSON.
// It must not be copied once it is in use; one goroutine at a time may touch it.
type Secret struct {
	// open returns the octets, nil once they are wiped. A func, since that is what fmt never looks into: it shows the
	// fields of a value with methods all the same when it complains about a verb, as in Errorf("%s: %w", name, secret).
	open func() []byte
}

// NewSecret makes a secret of a copy of b; the caller still owns b, and wipes it.
func NewSecret(b []byte) *Secret {
	own := bytes.Clone(b)
	return &Secret{open: func() []byte { return own }}
}

// Reveal returns the secret's bytes, which are valid until Wipe. The callers of Reveal are counted by a test:
// every one is a place from which a password can leave.
func (s *Secret) Reveal() []byte {
	if s == nil || s.open == nil {
		return nil
	}
	return s.open()
}

// Clone makes a secret of its own with the same octets, for who needs it longer than it was lent. A nil or wiped Secret
// gives nil.
func (s *Secret) Clone() *Secret {
	if s == nil || s.open == nil {
		return nil
	}
	return NewSecret(s.open())
}

// Digest is the HMAC-SHA-256 of the secret under a key: what two equal secrets have in common, for whoever must not know
// them. A nil or wiped Secret counts as the empty one.
func (s *Secret) Digest(key []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, key)
	if s != nil && s.open != nil {
		mac.Write(s.open())
	}
	return [sha256.Size]byte(mac.Sum(nil))
}

// Wipe overwrites the secret; after it Reveal returns nothing. It may be called more than once.
func (s *Secret) Wipe() {
	if s == nil || s.open == nil {
		return
	}
	clear(s.open())
	s.open = nil
}

// Format prints a constant, whatever the verb and its flags.
func (*Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// String returns a constant.
func (*Secret) String() string { return hidden }

// GoString returns a constant.
func (*Secret) GoString() string { return hidden }

// LogValue returns a constant.
func (*Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText returns a constant.
func (*Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
