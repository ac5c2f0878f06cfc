package storage

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrUnreadable is in the error for a record that is there and cannot be used: changed, put in another's place,
// encrypted with a key we do not have, or not encrypted where it has to be.
var ErrUnreadable = errors.New("stored value cannot be read")

// ErrAltered is in the error beside ErrUnreadable for a record that is lost for good: it names a key that we have, which did not make it as it is, or
// it is nothing that was ever written.
var ErrAltered = errors.New("it was changed by somebody, or is another record in its place")

// sealedMark begins every encrypted record; behind it are the key's id in hex, a line feed, and what AES-GCM makes: nonce,
// ciphertext and tag. The text is for whoever looks into the storage.
const sealedMark = "popgate-sealed-1:"

const (
	keyIDBytes = 8
	headerSize = len(sealedMark) + 2*keyIDBytes + 1
	overhead   = headerSize + 12 + 16
)

// A sealer encrypts with its first key and decrypts with all. A nil one leaves values as they are.
type sealer struct {
	first   sealKey
	byID    map[string]cipher.AEAD
	migrate bool // plaintext is accepted
}

type sealKey struct {
	id   string
	aead cipher.AEAD
}

// newSealer reads the key files; without any there is no sealer.
func newSealer(files []string, migrate bool) (*sealer, error) {
	if len(files) == 0 {
		return nil, nil
	}
	s := &sealer{byID: make(map[string]cipher.AEAD, len(files)), migrate: migrate}
	for i, f := range files {
		material, err := readKeyFile(f)
		var k sealKey
		if err == nil {
			k, err = newSealKey(material)
		}
		if err != nil {
			return nil, fmt.Errorf("encryption_key_files[%d]: %w", i, err)
		}
		if i == 0 {
			s.first = k
		}
		s.byID[k.id] = k.aead
	}
	return s, nil
}

// newSealKey derives key and id from the material, so that neither tells of the other.
func newSealKey(material []byte) (sealKey, error) {
	derive := func(info string, n int) []byte {
		out, err := hkdf.Key(sha256.New, material, nil, "popgate storage "+info, n)
		if err != nil {
			panic(err) // only for lengths far above ours
		}
		return out
	}
	block, err := aes.NewCipher(derive("encryption", 32))
	if err != nil {
		return sealKey{}, err
	}
	// Random nonces are good for 2^32 records a key; a gateway for 10,000 names writes a million a year.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return sealKey{id: hex.EncodeToString(derive("key id", keyIDBytes)), aead: aead}, err
}

// seal encrypts what is to be stored under key.
func (s *sealer) seal(key string, value []byte) []byte {
	if s == nil {
		return value
	}
	out := make([]byte, 0, len(value)+overhead)
	out = append(append(append(out, sealedMark...), s.first.id...), '\n')
	return s.first.aead.Seal(out, nil, value, associated(out, key))
}

// open decrypts what was found under key.
func (s *sealer) open(key string, record []byte) ([]byte, error) {
	id, sealed := keyID(record)
	switch {
	case s == nil && sealed:
		return nil, fmt.Errorf("%w: %s is encrypted, and there are no encryption_key_files", ErrUnreadable, key)
	case s == nil || !sealed && s.migrate:
		return record, nil
	case !sealed && !plain(record):
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreadable, key, ErrAltered)
	case !sealed:
		return nil, fmt.Errorf("%w: %s is not encrypted; if it is from before there was a key, write accept_plaintext: true", ErrUnreadable, key)
	}
	aead := s.byID[id]
	if aead == nil {
		return nil, fmt.Errorf("%w: %s is encrypted with the key %s, which none of encryption_key_files is", ErrUnreadable, key, id)
	}
	value, err := aead.Open(nil, nil, record[headerSize:], associated(record[:headerSize], key))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreadable, key, ErrAltered)
	}
	return value, nil
}

// plain says that a record looks like one from before there was a key, PEM or JSON, and not like what is left of another.
func plain(record []byte) bool {
	return bytes.HasPrefix(record, []byte("-----BEGIN ")) || json.Valid(record)
}

// fresh says that the record needs no sealing anew.
func (s *sealer) fresh(record []byte) bool {
	id, sealed := keyID(record)
	return s == nil || sealed && id == s.first.id
}

// several says that there may be records which are not sealed with the first key, and can be.
func (s *sealer) several() bool { return s != nil && (s.migrate || len(s.byID) > 1) }

// associated binds header and name of a record to its content.
func associated(header []byte, key string) []byte { return append(bytes.Clone(header), key...) }

// keyID is of the record's header, if it has one.
func keyID(record []byte) (id string, sealed bool) {
	if len(record) < headerSize || !bytes.HasPrefix(record, []byte(sealedMark)) || record[headerSize-1] != '\n' {
		return "", false
	}
	return string(record[len(sealedMark) : headerSize-1]), true
}
