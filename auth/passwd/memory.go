package passwd

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/scrypt"
)

// Here are the formats that take memory: scrypt, yescrypt and argon2.

// yescryptCost knows what crypt(3) and mkpasswd write: one letter for the flavour, one each for N and r.
func yescryptCost(parts []string) (threads, memory int, err error) {
	if len(parts) != 3 || !inAlphabet(parts[0], 3, 3) || !inAlphabet(parts[1], 1, 86) || !inAlphabet(parts[2], 43, 43) {
		return 0, 0, malformed("params$salt$digest")
	}
	if parts[0][0] != 'j' {
		return 0, 0, fmt.Errorf("%w: of yescrypt, only the flavour that crypt(3) writes", ErrScheme)
	}
	log := strings.IndexByte(alphabet, parts[0][1]) + 1
	r := strings.IndexByte(alphabet, parts[0][2]) + 1
	return scryptMemory(log, r)
}

// scryptMemory is what scrypt and yescrypt need: 128 octets times r times N.
func scryptMemory(log, r int) (threads, memory int, err error) {
	if log > 24 || r > maxParallel {
		return 0, 0, fmt.Errorf("%w: N is 2^%d and r is %d", ErrCost, log, r)
	}
	return 1, max(r<<log/8, 1), nil
}

func scryptCost(parts []string) (threads, memory int, err error) {
	if len(parts) != 3 {
		return 0, 0, malformed("params$salt$digest")
	}
	p, err := params(parts[0], "ln", "r", "p")
	if err != nil {
		return 0, 0, err
	}
	if err := keys(parts[1], parts[2], base64.RawStdEncoding); err != nil {
		return 0, 0, err
	}
	return scryptTimes(p[0], p[1], p[2])
}

// A params7 is what stands behind $7$, crypt(3)'s own way to write scrypt.
type params7 struct {
	log, r, p    int
	salt, digest string
}

func parse7(parts []string) (params7, error) {
	if len(parts) != 2 || len(parts[0]) < 12 || !inAlphabet(parts[0][:11], 11, 11) || !inAlphabet(parts[1], 43, 43) {
		return params7{}, malformed("params and salt$digest")
	}
	head := parts[0]
	return params7{strings.IndexByte(alphabet, head[0]), number7(head[1:6]), number7(head[6:11]), head[11:], parts[1]}, nil
}

// number7 reads 30 bits, the lowest six first.
func number7(letters string) int {
	n := 0
	for i := len(letters) - 1; i >= 0; i-- {
		n = n<<6 | strings.IndexByte(alphabet, letters[i])
	}
	return n
}

// encode7 writes octets with the lowest six bits first.
func encode7(octets []byte) string {
	var b strings.Builder
	for len(octets) > 0 {
		n := min(len(octets), 3)
		value := 0
		for i := n - 1; i >= 0; i-- {
			value = value<<8 | int(octets[i])
		}
		for range n + 1 {
			b.WriteByte(alphabet[value&0x3f])
			value >>= 6
		}
		octets = octets[n:]
	}
	return b.String()
}

func cost7(parts []string) (threads, memory int, err error) {
	p, err := parse7(parts)
	if err != nil {
		return 0, 0, err
	}
	if p.log < 1 || p.r < 1 || p.p < 1 {
		return 0, 0, malformed("params and salt$digest")
	}
	return scryptTimes(p.log, p.r, p.p)
}

func decode7(hash string) (func([]byte) (bool, error), error) {
	p, err := parse7(strings.Split(hash, "$")[2:])
	if err != nil {
		return nil, err
	}
	return func(secret []byte) (bool, error) {
		key, err := scrypt.Key(secret, []byte(p.salt), 1<<p.log, p.r, p.p, 32)
		return err == nil && subtle.ConstantTimeCompare([]byte(encode7(key)), []byte(p.digest)) == 1, err
	}, nil
}

// scryptTimes is what scrypt needs that runs p times one after the other.
func scryptTimes(log, r, p int) (threads, memory int, err error) {
	threads, memory, err = scryptMemory(log, r)
	if err == nil && (p > maxParallel || memory > maxScryptWork/p) {
		err = fmt.Errorf("%w: p is %d", ErrCost, p)
	}
	return threads, memory, err
}

func argonCost(parts []string) (threads, memory int, err error) {
	if len(parts) != 4 || parts[0] != "v=19" {
		return 0, 0, malformed("v=19$params$salt$digest")
	}
	p, err := params(parts[1], "m", "t", "p")
	if err != nil {
		return 0, 0, err
	}
	if err := keys(parts[2], parts[3], base64.RawStdEncoding); err != nil {
		return 0, 0, err
	}
	memory, threads = p[0], p[2]
	switch {
	case threads > maxParallel || memory > maxMemory || p[1] > maxArgonWork/memory:
		return 0, 0, fmt.Errorf("%w: m is %d, t is %d, p is %d", ErrCost, memory, p[1], threads)
	case memory < 8*threads: // RFC 9106 section 3.1
		return 0, 0, fmt.Errorf("%w: m is less than 8 times p", ErrHash)
	}
	return threads, memory, nil
}
