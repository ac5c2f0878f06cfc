package cluster

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestShareConfig(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*ShareConfig)
		want   []string // the keys at fault
	}{
		{"shared", func(*ShareConfig) {}, nil},
		{"off", func(c *ShareConfig) { *c = DefaultShareConfig() }, nil},
		{"off, all else wrong", func(c *ShareConfig) { *c = ShareConfig{Spread: "x"} }, nil},
		{"a key for nothing", func(c *ShareConfig) { c.Redis.Addresses = nil }, []string{"redis.addresses"}},
		{"no key", func(c *ShareConfig) { c.KeyFile = "" }, []string{"key_file"}},
		{"redis", func(c *ShareConfig) { c.Redis.Mode = "x" }, []string{"redis.mode"}},
		{"even", func(c *ShareConfig) { c.Spread = SpreadEven }, nil},
		{"spread", func(c *ShareConfig) { c.Spread = "" }, []string{"spread"}},
		{"no deadline", func(c *ShareConfig) { c.Deadline = 0 }, []string{"deadline"}},
		{"long deadline", func(c *ShareConfig) { c.Deadline = 2 * time.Second }, []string{"deadline"}},
		{"short lease", func(c *ShareConfig) { c.Lease = time.Second }, []string{"lease"}},
		{"long lease", func(c *ShareConfig) { c.Lease = 2 * time.Hour }, []string{"lease"}},
	} {
		c := DefaultShareConfig()
		c.Redis.Addresses, c.KeyFile = []string{"127.0.0.1:6379"}, "/etc/popgate/cluster.key"
		tt.change(&c)
		var got []string
		c.Validate(func(key, _ string) { got = append(got, key) })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestReadSecret(t *testing.T) {
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = byte(200 + i)
	}
	text := base64.StdEncoding.EncodeToString(raw)
	want, _, err := ReadSecret(fileWith(t, string(raw)))
	must(t, err)
	for name, content := range map[string]string{
		"Base64": text, "with a newline": text + "\n", "without padding": strings.TrimRight(text, "="), "for URLs": base64.URLEncoding.EncodeToString(raw) + "\r\n",
	} {
		got, warning, err := ReadSecret(fileWith(t, content))
		if err != nil || warning != "" {
			t.Errorf("%s: error %v, warning %q", name, err, warning)
		}
		if got.Derive("x") != want.Derive("x") {
			t.Errorf("%s: another key than that of the raw bytes", name)
		}
	}
	for name, content := range map[string]string{
		"empty": "", "short": strings.Repeat("?", 31), "short in Base64": base64.StdEncoding.EncodeToString(raw[:31]),
		"a blank": "\n", "zeros": strings.Repeat("\x00", 64), "one letter in Base64": base64.StdEncoding.EncodeToString(make([]byte, 64)),
		"no key file": strings.Repeat("popgate ", 1024),
	} {
		if _, _, err := ReadSecret(fileWith(t, content)); err == nil || !strings.HasPrefix(err.Error(), "key_file: ") {
			t.Errorf("%s: error %v, want one about the key file", name, err)
		}
	}
	if _, _, err := ReadSecret(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "openssl rand") {
		t.Errorf("no file: error %v, want one that says how to make it", err)
	}
	open := fileWith(t, text)
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o602: true} {
		must(t, os.Chmod(open, mode))
		if _, warning, err := ReadSecret(open); err != nil || (warning != "") != warned {
			t.Errorf("mode %o: error %v, warning %q", mode, err, warning)
		}
	}
}

func TestSecretDerive(t *testing.T) {
	// What has been derived stays so, or nodes of two versions count apart.
	s, _, err := ReadSecret(fileWith(t, strings.Repeat("0123456789abcde.", 2)))
	must(t, err)
	a, b := s.Derive("a"), s.Derive("b")
	if a == b || a == [32]byte{} {
		t.Error("two purposes have one key")
	}
	const want = "fc2c26ee9e047e2b708c8d78d2682ea4963eccdb6df6358da66597c396451acd"
	if got := hex.EncodeToString(a[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := fmt.Sprintf("%v %+v %#v %s", s, s, s, s); strings.Contains(got, "0123") || bytes.Contains([]byte(got), a[:4]) {
		t.Errorf("a secret prints as %s", got)
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(strings.Repeat("0123456789abcde.", 2)))
	f.Add([]byte(base64.StdEncoding.EncodeToString(make([]byte, 40))))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := parseKey(text)
		if err == nil && len(key) < minKey {
			t.Errorf("%q: got a key of %d bytes", text, len(key))
		}
	})
}
