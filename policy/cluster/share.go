package cluster

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"time"
)

// The values of ShareConfig.Spread.
const (
	SpreadFull = "full"
	SpreadEven = "even"
)

// minKey is the fewest random bytes that a key file may hold; maxKey is where a file is no key file.
const (
	minKey = 32
	maxKey = 4 << 10
)

// ShareConfig is the cluster section of the configuration: what several nodes share, and where.
type ShareConfig struct {
	// The Redis or Valkey that the nodes share. Without `addresses` each node counts by itself, and none of the other keys matter.
	Redis Config `yaml:"redis"`
	// A file with at least 32 random bytes, raw or in Base64, that is the same on all nodes and that nobody else can read: what is
	// kept in Redis is named by digests under keys that come from it. `openssl rand -base64 32` makes one.
	KeyFile string `yaml:"key_file"`
	// What a node does with limits while it cannot ask Redis: `full` lets each node grant the whole of them, so that together they
	// grant at most so many times as much as there are nodes; `even` divides them by the nodes that were alive when it last could.
	Spread string `yaml:"spread"`
	// How long a decision may wait for Redis. After that the node decides alone.
	Deadline time.Duration `yaml:"deadline"`
	// How long after its last sign of life a node's sessions are still counted by the others.
	Lease time.Duration `yaml:"lease"`
}

// DefaultShareConfig is what holds where the file says nothing: nothing is shared.
func DefaultShareConfig() ShareConfig {
	return ShareConfig{Redis: DefaultConfig(), Spread: SpreadFull, Deadline: 10 * time.Millisecond, Lease: 15 * time.Second}
}

// Off says that nothing is shared.
func (c ShareConfig) Off() bool { return len(c.Redis.Addresses) == 0 }

// Validate reports what is wrong with c by itself. It opens no file.
func (c ShareConfig) Validate(fault func(key, problem string)) {
	if c.Off() {
		if c.KeyFile != "" {
			fault("redis.addresses", `is empty, and there is a key_file; write where Redis listens, such as ["127.0.0.1:6379"], or remove key_file`)
		}
		return
	}
	c.Redis.Validate(func(key, problem string) { fault("redis."+key, problem) })
	if c.KeyFile == "" {
		fault("key_file", "is missing; write the path of a file with 32 random bytes that is the same on all nodes, made by: openssl rand -base64 32")
	}
	if c.Spread != SpreadFull && c.Spread != SpreadEven {
		fault("spread", fmt.Sprintf("is %q; write full or even", c.Spread))
	}
	if c.Deadline < time.Millisecond || c.Deadline > time.Second {
		fault("deadline", fmt.Sprintf("%s is not between 1ms and 1s; write such as 10ms: every login waits so long for a Redis that is slow", c.Deadline))
	}
	if c.Lease < 2*time.Second || c.Lease > time.Hour {
		fault("lease", fmt.Sprintf("%s is not between 2s and 1h; write such as 15s", c.Lease))
	}
}

// A Secret is what all nodes know and nobody else.
type Secret struct {
	key []byte
}

// ReadSecret reads a key file. A warning is for people; it is no reason not to go on.
func ReadSecret(path string) (s Secret, warning string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return s, "", fmt.Errorf("key_file: %w; make one by: openssl rand -base64 32 >%s, and copy it to all nodes", err, path)
	}
	if info.Size() > maxKey {
		return s, "", fmt.Errorf("key_file: %s has %d bytes; a key has at least %d random ones and no more than %d", path, info.Size(), minKey, maxKey)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return s, "", fmt.Errorf("key_file: %w", err)
	}
	if s.key, err = parseKey(text); err != nil {
		return Secret{}, "", fmt.Errorf("key_file: %s %w", path, err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		warning = fmt.Sprintf("key_file: %s can be read or written by everybody (mode %04o): whoever knows it can tell which users and addresses "+
			"are counted in Redis; chmod 0640 %s", path, info.Mode().Perm(), path)
	}
	return s, warning, nil
}

// parseKey reads what a key file holds. Text in Base64 is taken for that, or a file with and one without its newline were two keys.
func parseKey(text []byte) ([]byte, error) {
	trimmed := bytes.TrimSpace(text)
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		key, err := enc.DecodeString(string(trimmed))
		if err != nil {
			continue
		}
		if len(key) < minKey && len(trimmed) > 0 {
			return nil, fmt.Errorf("holds %d bytes in Base64; write at least %d random ones, made by: openssl rand -base64 32", len(key), minKey)
		}
		text = key
		break
	}
	if len(text) < minKey {
		return nil, fmt.Errorf("holds %d bytes; write at least %d random ones, made by: openssl rand -base64 32", len(text), minKey)
	}
	if bytes.Count(text, text[:1]) == len(text) {
		return nil, fmt.Errorf("holds one byte over and over; write at least %d random ones, made by: openssl rand -base64 32", minKey)
	}
	return bytes.Clone(text), nil
}

// Derive gives the key for one purpose. Each purpose has another, and none tells of the others.
func (s Secret) Derive(purpose string) [32]byte {
	var key [32]byte
	derived, err := hkdf.Key(sha256.New, s.key, nil, "popgate cluster "+purpose, len(key))
	if err != nil {
		panic(err) // only of a length that HKDF cannot make
	}
	copy(key[:], derived)
	return key
}

// String is a constant: a secret is not for logs.
func (Secret) String() string { return "(a cluster's secret)" }

// GoString is String.
func (s Secret) GoString() string { return s.String() }
