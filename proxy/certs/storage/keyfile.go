package storage

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

const (
	minKeyMaterial = 32 // 256 bits, as the cipher's key
	maxKeyFile     = 64 << 10
)

// readKeyFile gives the key material in a file: base64, hex or raw.
func readKeyFile(name string) ([]byte, error) {
	// Not to wait: a FIFO that nobody writes would hold up the start for ever.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no key file %s: make one with `(umask 077; openssl rand -base64 32 > %s)`, or bring the one the "+
			"other gateways have", name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read key file: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("key file %s is no ordinary file", name)
	// A group may read: systemd and Kubernetes hand out secrets that way.
	case info.Mode().Perm()&0o037 != 0:
		return nil, fmt.Errorf("key file %s is open to others (mode %04o): chmod 600 %s, and think about a new key", name, info.Mode().Perm(), name)
	case info.Size() > maxKeyFile:
		return nil, fmt.Errorf("key file %s has %d bytes: that is no key", name, info.Size())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	material, err := decodeKey(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s %w", name, err)
	}
	return material, nil
}

// decodeKey tells hex, base64 and raw bytes apart. Text that is neither of the first two is refused: it would be a passphrase,
// which can be guessed.
func decodeKey(text []byte) ([]byte, error) {
	const advice = "make a key with `openssl rand -base64 32`"
	material, err := decodeText(bytes.Join(bytes.Fields(text), nil))
	if err != nil {
		if printable(text) {
			return nil, errors.New("holds text that is neither base64 nor hex: " + advice)
		}
		material = text
	}
	if len(material) < minKeyMaterial {
		return nil, fmt.Errorf("holds %d bytes of key, and %d are needed: %s", len(material), minKeyMaterial, advice)
	}
	// A file of zeros is what is left of a key file after a crash.
	if bytes.Count(material, material[:1]) == len(material) {
		return nil, errors.New("holds one byte over and over: " + advice)
	}
	return material, nil
}

func decodeText(text []byte) ([]byte, error) {
	// Hex first: its digits are base64's too, the other way round only by an unlikely accident.
	if material, err := hex.DecodeString(string(text)); err == nil {
		return material, nil
	}
	unpadded := string(bytes.TrimRight(text, "="))
	if material, err := base64.RawStdEncoding.DecodeString(unpadded); err == nil {
		return material, nil
	}
	return base64.RawURLEncoding.DecodeString(unpadded)
}

func printable(text []byte) bool {
	return bytes.IndexFunc(text, func(r rune) bool { return r == 0xFFFD || r < ' ' && r != '\n' && r != '\r' && r != '\t' }) < 0
}
