package passwd

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// An encoding says how the text behind {SCHEME} stands for octets.
type encoding int

const (
	asText encoding = iota
	asBase64
	asHex
)

var suffixes = map[string]encoding{"b64": asBase64, "base64": asBase64, "hex": asHex}

// A scheme is what Dovecot calls by one name.
type scheme struct {
	encoding encoding // what is used where the name has no suffix
	size     int      // octets of a digest without salt: hex and base64 are then told apart by their length
	parse    func(octets []byte) (work, error)
}

// schemes are those that can be checked, by their names in upper case.
var schemes = map[string]scheme{
	"PLAIN": {parse: plain}, "CLEAR": {parse: plain}, "CLEARTEXT": {parse: plain},

	"SHA": digest(sha1.New), "SHA1": digest(sha1.New), "SHA256": digest(sha256.New), "SHA512": digest(sha512.New),
	"LDAP-MD5": digest(md5.New), "PLAIN-MD5": digest(md5.New),
	"SMD5": salted(md5.New), "SSHA": salted(sha1.New), "SSHA256": salted(sha256.New), "SSHA512": salted(sha512.New),

	"PBKDF2": {parse: dovecotPBKDF2}, "SCRAM-SHA-1": scram(sha1.New), "SCRAM-SHA-256": scram(sha256.New),

	"CRYPT": {parse: parseCrypt}, "MD5-CRYPT": {parse: parseCrypt}, "SHA256-CRYPT": {parse: parseCrypt},
	"SHA512-CRYPT": {parse: parseCrypt}, "BLF-CRYPT": {parse: parseCrypt},
	"ARGON2": {parse: parseCrypt}, "ARGON2I": {parse: parseCrypt}, "ARGON2ID": {parse: parseCrypt},
}

// others are Dovecot's that cannot be checked, so that an error may name them. No other word is ever repeated: what looks like
// a scheme may be the beginning of somebody's password.
var others = map[string]bool{
	"DES-CRYPT": true, "PLAIN-MD4": true, "CRAM-MD5": true, "HMAC-MD5": true, "DIGEST-MD5": true, "PLAIN-TRUNC": true,
	"OTP": true, "SKEY": true, "RPA": true, "LANMAN": true, "NTLM": true,
}

// parse takes a stored hash apart.
func parse(stored string) (work, error) {
	if len(stored) > maxHash {
		return work{}, fmt.Errorf("%w: it is longer than %d octets", ErrHash, maxHash)
	}
	if !strings.HasPrefix(stored, "{") {
		if strings.HasPrefix(stored, "$") {
			return parseCrypt([]byte(stored))
		}
		return work{}, fmt.Errorf("%w: it begins neither with {SCHEME} nor with $", ErrScheme)
	}
	name, text, ok := strings.Cut(stored[1:], "}")
	if !ok {
		return work{}, fmt.Errorf("%w: its { is not closed", ErrHash)
	}
	name, suffix, suffixed := strings.Cut(strings.ToUpper(name), ".")
	if name == "MD5" { // which LDAP and Dovecot mean differently: digests in base64 or hex have no length of MD5-CRYPT's
		name = "LDAP-MD5"
		if strings.HasPrefix(text, "$1$") || suffixed && len(text) > hex.EncodedLen(md5.Size) {
			name = "MD5-CRYPT"
		}
	}
	s, ok := schemes[name]
	switch {
	case others[name]:
		return work{}, fmt.Errorf("%w: {%s}", ErrScheme, name)
	case !ok:
		return work{}, ErrScheme
	}
	octets, err := s.decode(text, strings.ToLower(suffix), suffixed)
	if err != nil {
		return work{}, fmt.Errorf("{%s}: %w", name, err)
	}
	w, err := s.parse(octets)
	if err != nil {
		return work{}, fmt.Errorf("{%s}: %w", name, err)
	}
	return w, nil
}

func (s scheme) decode(text, suffix string, suffixed bool) ([]byte, error) {
	e := s.encoding
	if suffixed {
		var ok bool
		if e, ok = suffixes[suffix]; !ok {
			return nil, fmt.Errorf("%w: behind the dot of a scheme's name stands b64, base64 or hex", ErrScheme)
		}
	} else if s.size > 0 && len(text) == hex.EncodedLen(s.size) {
		e = asHex
	}
	var octets []byte
	var err error
	switch e {
	case asBase64:
		octets, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	case asHex:
		octets, err = hex.DecodeString(text)
	case asText:
		octets = []byte(text)
	}
	switch {
	case err != nil: // which holds a piece of the text
		return nil, fmt.Errorf("%w: it is not encoded as its scheme says", ErrHash)
	case len(octets) == 0:
		return nil, fmt.Errorf("%w: it is empty", ErrHash)
	}
	return octets, nil
}

func digest(h func() hash.Hash) scheme {
	size := h().Size()
	return scheme{encoding: asBase64, size: size, parse: func(octets []byte) (work, error) {
		if len(octets) != size {
			return work{}, fmt.Errorf("%w: it has not the length of its digest", ErrHash)
		}
		return digestWork(h, octets, nil), nil
	}}
}

func salted(h func() hash.Hash) scheme {
	size := h().Size()
	return scheme{encoding: asBase64, parse: func(octets []byte) (work, error) {
		if len(octets) <= size {
			return work{}, fmt.Errorf("%w: it has no salt behind its digest", ErrHash)
		}
		return digestWork(h, octets[:size], octets[size:]), nil
	}}
}
