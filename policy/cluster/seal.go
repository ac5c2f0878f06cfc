package cluster

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// newSeal makes what seals for one purpose: who has no key can neither read nor write, and what was sealed for one purpose
// opens for no other. Its nonces are random and lead what it seals, so that the nonce it is called with is nil.
func newSeal(key [32]byte, salt []byte, purpose string) cipher.AEAD {
	own, err := hkdf.Key(sha256.New, key[:], salt, purpose, len(key))
	if err != nil {
		panic(fmt.Sprintf("derive a key: %v", err)) // a slip of ours: HKDF refuses lengths only
	}
	block, err := aes.NewCipher(own)
	clear(own)
	if err != nil {
		panic(fmt.Sprintf("make a cipher: %v", err)) // a slip of ours: 32 bytes are a key
	}
	// Not an HMAC alone: the messages and facts name networks and users, and whoever may look into Redis need not know them.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(fmt.Sprintf("make an AEAD: %v", err)) // a slip of ours: AES has blocks of 16 bytes
	}
	return aead
}
