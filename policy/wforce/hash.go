package wforce

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/popgate/popgate/auth"
)

// passwordHash is the pwhash of a login, as Dovecot makes it: the first bits of SHA-256 over nonce, user, a zero byte and
// the password, in hexadecimal. A nil secret counts as the empty one.
func passwordHash(nonce, user string, secret *auth.Secret, bits int) string {
	h := sha256.New()
	h.Write([]byte(nonce))
	h.Write([]byte(user))
	h.Write([]byte{0})
	h.Write(secret.Reveal())
	return hex.EncodeToString(firstBits(h.Sum(nil), bits))
}

// firstBits is the number that the first bits of sum are, in as few bytes as hold them. It shifts within sum itself.
func firstBits(sum []byte, bits int) []byte {
	if bits >= 8*len(sum) {
		return sum
	}
	sum = sum[:(bits+7)/8]
	shift := 8*len(sum) - bits
	for i := len(sum) - 1; i > 0; i-- {
		sum[i] = sum[i]>>shift | sum[i-1]<<(8-shift)
	}
	sum[0] >>= shift
	return sum
}
