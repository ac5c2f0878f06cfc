package auth

import (
	"bytes"
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
