package passwd

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/argon2"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/md5crypt"
	"github.com/go-crypt/crypt/algorithm/pbkdf2"
	"github.com/go-crypt/crypt/algorithm/scrypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
)

// Bounds of what one hash may ask for, each about two to four seconds of one CPU. Memory has bounds of its own.
const (
	maxBcrypt     = 16          // the logarithm of its rounds
	maxSHARounds  = 2_000_000   // of $5$ and $6$
	maxArgonWork  = 4096 * mebi // memory times passes
	maxScryptWork = 1024 * mebi // memory times parallelism
	maxParallel   = 64
)

// A format is one that crypt(3) or the modular crypt format knows by the word between its first two "$".
type format struct {
	decode decoder
	// cost checks the parts behind the first "$" as strictly as decode ought to, and finds what the work takes.
	cost func(parts []string) (threads, memory int, err error)
}

// A decoder gives what tells whether an octet string is the password.
type decoder func(hash string) (func(secret []byte) (bool, error), error)

// library is a decoder of go-crypt's.
func library(decode func(string) (algorithm.Digest, error)) decoder {
	return func(hash string) (func([]byte) (bool, error), error) {
		d, err := decode(hash)
		if err != nil {
			return nil, err
		}
		return d.MatchBytesAdvanced, nil
	}
}

// formats names them all: the library's own decoders are never asked for anything else, and never before cost agreed.
var formats = map[string]format{
	"1": {library(md5crypt.DecodeVariant(md5crypt.VariantStandard)), md5Cost},
	"5": {library(shacrypt.DecodeVariant(shacrypt.VariantSHA256)), shaCost(43)},
	"6": {library(shacrypt.DecodeVariant(shacrypt.VariantSHA512)), shaCost(86)},

	"2a": {library(bcrypt.DecodeVariant(bcrypt.VariantStandard)), bcryptCost},
	"2b": {library(bcrypt.DecodeVariant(bcrypt.VariantStandard)), bcryptCost},
	"2y": {library(bcrypt.DecodeVariant(bcrypt.VariantStandard)), bcryptCost},

	"y":      {library(scrypt.DecodeVariant(scrypt.VariantYescrypt)), yescryptCost},
	"7":      {decode7, cost7},
	"scrypt": {library(scrypt.DecodeVariant(scrypt.VariantScrypt)), scryptCost},

	"argon2i":  {library(argon2.DecodeVariant(argon2.VariantI)), argonCost},
	"argon2id": {library(argon2.DecodeVariant(argon2.VariantID)), argonCost},

	"pbkdf2":        {library(pbkdf2.DecodeVariant(pbkdf2.VariantSHA1)), pbkdf2Cost(20)},
	"pbkdf2-sha256": {library(pbkdf2.DecodeVariant(pbkdf2.VariantSHA256)), pbkdf2Cost(32)},
	"pbkdf2-sha512": {library(pbkdf2.DecodeVariant(pbkdf2.VariantSHA512)), pbkdf2Cost(64)},
}

// parseCrypt takes a hash apart that names its own format.
func parseCrypt(octets []byte) (work, error) {
	if octets[0] == '!' || octets[0] == '*' {
		return never, nil
	}
	parts := strings.Split(string(octets), "$")
	if len(parts) < 2 || parts[0] != "" {
		return work{}, fmt.Errorf("%w: of crypt, only hashes that begin with $", ErrScheme)
	}
	f, ok := formats[parts[1]]
	if !ok {
		return work{}, fmt.Errorf("%w: the word between the first two $ of the hash is not known", ErrScheme)
	}
	threads, memory, err := f.cost(parts[2:])
	if err == nil && memory > maxMemory {
		err = fmt.Errorf("%w: more than %d MiB of memory", ErrCost, maxMemory/mebi)
	}
	if err != nil {
		return work{}, fmt.Errorf("$%s$: %w", parts[1], err)
	}
	match, err := f.decode(string(octets))
	if err != nil { // which holds pieces of the hash
		return work{}, fmt.Errorf("$%s$: %w", parts[1], ErrHash)
	}
	return work{threads: int64(threads), memory: int64(memory), match: func(secret []byte) bool {
		ok, err := match(secret)
		return ok && err == nil
	}}, nil
}

// malformed says in which form a hash ought to be.
func malformed(form string) error { return fmt.Errorf("%w: it is not $…$%s", ErrHash, form) }

// alphabet is that of crypt(3).
const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// inAlphabet says that s has from least to most letters of crypt(3)'s alphabet, and no other.
func inAlphabet(s string, least, most int) bool {
	return len(s) >= least && len(s) <= most && strings.Trim(s, alphabet) == ""
}

func md5Cost(parts []string) (threads, memory int, err error) {
	if len(parts) != 2 || len(parts[0]) > 8 || !inAlphabet(parts[1], 22, 22) {
		return 0, 0, malformed("salt$digest")
	}
	return 1, 0, nil
}

func shaCost(size int) func([]string) (int, int, error) {
	return func(parts []string) (threads, memory int, err error) {
		if len(parts) == 3 {
			text, ok := strings.CutPrefix(parts[0], "rounds=")
			if !ok {
				return 0, 0, malformed("rounds=N$salt$digest")
			}
			rounds, err := number(text, shacrypt.IterationsMin)
			if err != nil {
				return 0, 0, err
			}
			if rounds > maxSHARounds {
				return 0, 0, fmt.Errorf("%w: more than %d rounds", ErrCost, maxSHARounds)
			}
			parts = parts[1:]
		}
		if len(parts) != 2 || len(parts[0]) > shacrypt.SaltLengthMax || !inAlphabet(parts[1], size, size) {
			return 0, 0, malformed("salt$digest")
		}
		return 1, 0, nil
	}
}

func bcryptCost(parts []string) (threads, memory int, err error) {
	if len(parts) != 2 || len(parts[0]) != 2 || !inAlphabet(parts[1], 53, 53) {
		return 0, 0, malformed("NN$salt and digest")
	}
	n, err := number(parts[0], 4)
	if err != nil {
		return 0, 0, err
	}
	if n > maxBcrypt {
		return 0, 0, fmt.Errorf("%w: more than 2^%d rounds", ErrCost, maxBcrypt)
	}
	return 1, 0, nil
}

// adapted is base64 as Python's passlib writes it.
var adapted = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./").WithPadding(base64.NoPadding)

func pbkdf2Cost(size int) func([]string) (int, int, error) {
	return func(parts []string) (threads, memory int, err error) {
		if len(parts) != 3 {
			return 0, 0, malformed("rounds$salt$digest")
		}
		if err := keys(parts[1], parts[2], adapted); err != nil {
			return 0, 0, err
		}
		blocks := (adapted.DecodedLen(len(parts[2])) + size - 1) / size
		_, err = pbkdf2Rounds(parts[0], blocks)
		return 1, 0, err
	}
}

// keys checks a salt and a digest: that they are encoded rightly, and that the digest is as long as proves a password.
func keys(salt, digest string, e *base64.Encoding) error {
	s, err := e.Strict().DecodeString(salt)
	d, digestErr := e.Strict().DecodeString(digest)
	if err != nil || digestErr != nil || len(s) == 0 || len(d) < 16 || len(d) > 128 {
		return fmt.Errorf("%w: its salt or its digest is not base64 of the length that it must have", ErrHash)
	}
	return nil
}

// params reads name=number for each of names, which must all be there once, in this order, and positive.
func params(text string, names ...string) ([]int, error) {
	values := make([]int, len(names))
	parts := strings.Split(text, ",")
	if len(parts) != len(names) {
		return nil, fmt.Errorf("%w: its parameters are not %s", ErrHash, strings.Join(names, ", "))
	}
	for i, name := range names {
		digits, ok := strings.CutPrefix(parts[i], name+"=")
		if !ok {
			return nil, fmt.Errorf("%w: its parameters are not %s", ErrHash, strings.Join(names, ", "))
		}
		var err error
		if values[i], err = number(digits, 1); err != nil {
			return nil, err
		}
	}
	return values, nil
}
