package passwd

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// maxRounds bounds PBKDF2, counted in rounds times the blocks of its result: about two seconds of one CPU.
const maxRounds = 5_000_000

// plain is a password stored as it is. Digests are compared, since comparing takes as long as the texts are.
func plain(octets []byte) (work, error) {
	want := sha256.Sum256(octets)
	return work{match: func(secret []byte) bool {
		got := sha256.Sum256(secret)
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1
	}}, nil
}

func digestWork(h func() hash.Hash, want, salt []byte) work {
	return work{match: func(secret []byte) bool {
		d := h()
		d.Write(secret)
		d.Write(salt)
		return subtle.ConstantTimeCompare(d.Sum(nil), want) == 1
	}}
}

// dovecotPBKDF2 is what Dovecot calls PBKDF2, with SHA-1: $1$salt$rounds$key, salt as it stands and key in hex.
func dovecotPBKDF2(octets []byte) (work, error) {
	parts := strings.Split(string(octets), "$")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "1" || parts[2] == "" {
		return work{}, fmt.Errorf("%w: it is not $1$salt$rounds$key", ErrHash)
	}
	rounds, err := pbkdf2Rounds(parts[3], 1)
	if err != nil {
		return work{}, err
	}
	want, err := hex.DecodeString(parts[4])
	if err != nil || len(want) != sha1.Size {
		return work{}, fmt.Errorf("%w: its key is not 20 octets in hex", ErrHash)
	}
	salt := []byte(parts[2])
	return work{threads: 1, match: func(secret []byte) bool {
		got, err := pbkdf2.Key(sha1.New, string(secret), salt, rounds, len(want))
		return err == nil && subtle.ConstantTimeCompare(got, want) == 1
	}}, nil
}

// scram is the stored form of RFC 5802: rounds,salt,StoredKey,ServerKey, all but the first in base64. The first key alone
// proves the password.
func scram(h func() hash.Hash) scheme {
	return scheme{parse: func(octets []byte) (work, error) {
		parts := bytes.Split(octets, []byte{','})
		if len(parts) != 4 {
			return work{}, fmt.Errorf("%w: it is not rounds,salt,StoredKey,ServerKey", ErrHash)
		}
		rounds, err := pbkdf2Rounds(string(parts[0]), 1)
		if err != nil {
			return work{}, err
		}
		var decoded [3][]byte
		for i := range decoded {
			if decoded[i], err = base64.StdEncoding.DecodeString(string(parts[i+1])); err != nil || len(decoded[i]) == 0 {
				return work{}, fmt.Errorf("%w: its salt and keys are not base64", ErrHash)
			}
		}
		salt, want, size := decoded[0], decoded[1], h().Size()
		if len(want) != size || len(decoded[2]) != size {
			return work{}, fmt.Errorf("%w: its keys have not the length of its digest", ErrHash)
		}
		return work{threads: 1, match: func(secret []byte) bool {
			key, err := pbkdf2.Key(h, string(secret), salt, rounds, size)
			if err != nil {
				return false
			}
			client := hmac.New(h, key)
			client.Write([]byte("Client Key"))
			stored := h()
			stored.Write(client.Sum(nil))
			return subtle.ConstantTimeCompare(stored.Sum(nil), want) == 1
		}}, nil
	}}
}

// pbkdf2Rounds reads a number of rounds that makes so many blocks of key.
func pbkdf2Rounds(text string, blocks int) (int, error) {
	rounds, err := number(text, 1)
	if err != nil {
		return 0, err
	}
	if rounds > maxRounds/max(blocks, 1) {
		return 0, fmt.Errorf("%w: more than %d rounds", ErrCost, maxRounds)
	}
	return rounds, nil
}

// number reads digits, and nothing but digits, as a number of at least least. One that is out of int32 is too much for
// whatever it counts.
func number(text string, least int) (int, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%w: what must be a number is none", ErrHash)
	}
	n, err := strconv.ParseInt(text, 10, 32)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: a number in it has no bounds", ErrCost)
	case n < int64(least):
		return 0, fmt.Errorf("%w: a number in it is less than %d", ErrHash, least)
	}
	return int(n), nil
}
