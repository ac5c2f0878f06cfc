package storage

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func newTestSealer(t *testing.T, migrate bool, files ...string) *sealer {
	t.Helper()
	s, err := newSealer(files, migrate)
	must(t, err)
	return s
}

func TestSeal(t *testing.T) {
	s := newTestSealer(t, false, newKeyFile(t))
	for _, value := range []string{"", "x", "-----BEGIN PRIVATE KEY-----", strings.Repeat("long", 1<<18)} {
		record := s.seal("a/b", []byte(value))
		if len(record) != len(value)+overhead {
			t.Errorf("%d bytes become %d, want %d more", len(value), len(record), overhead)
		}
		if len(value) > 8 && bytes.Contains(record, []byte(value[:8])) {
			t.Error("the value can be read in the record")
		}
		got, err := s.open("a/b", record)
		if err != nil || string(got) != value {
			t.Errorf("got %d bytes, want %d: %v", len(got), len(value), err)
		}
		if bytes.Equal(record, s.seal("a/b", []byte(value))) {
			t.Error("the same value gives the same record twice: the nonce is not random")
		}
	}
}

// TestOpenRefuses has every byte of a record changed, records swapped, and foreign ones.
func TestOpenRefuses(t *testing.T) {
	s, other := newTestSealer(t, false, newKeyFile(t)), newTestSealer(t, false, newKeyFile(t))
	record := s.seal("a/key", []byte("secret"))
	for i := range record {
		changed := bytes.Clone(record)
		changed[i] ^= 1
		if _, err := s.open("a/key", changed); !errors.Is(err, ErrUnreadable) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := s.open("a/key", record[:i]); !errors.Is(err, ErrUnreadable) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	for _, tt := range []struct {
		name   string
		sealer *sealer
		key    string
		record []byte
		want   string
	}{
		{"swapped", s, "another/key", record, "in its place"},
		{"more behind it", s, "a/key", append(bytes.Clone(record), 0), "was changed"},
		{"foreign key", other, "a/key", record, s.first.id},
		{"no key", nil, "a/key", record, "no encryption_key_files"},
		{"empty", s, "a/key", nil, ErrAltered.Error()},
		{"rubbish", s, "a/key", []byte("\x00\x01\x02 rubbish"), ErrAltered.Error()},
		{"the header cut off", s, "a/key", record[headerSize:], ErrAltered.Error()},
		{"cut inside the header", s, "a/key", record[:headerSize-2], ErrAltered.Error()},
		{"PEM in clear", s, "a/key", []byte("-----BEGIN CERTIFICATE-----\n"), "accept_plaintext"},
		{"JSON in clear", s, "a/key", []byte("{\"a\": 1}"), "not encrypted"},
	} {
		_, err := tt.sealer.open(tt.key, tt.record)
		if !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q in it", tt.name, err, tt.want)
		}
		if altered := strings.Contains(ErrAltered.Error(), tt.want); errors.Is(err, ErrAltered) != altered {
			t.Errorf("%s: altered is %v, want %v: %v", tt.name, !altered, altered, err)
		}
	}
	if got, err := (*sealer)(nil).open("a/key", []byte("plain")); string(got) != "plain" || err != nil {
		t.Errorf("without encryption: %q, %v", got, err)
	}
}

func TestKeysRotate(t *testing.T) {
	before, after := newKeyFile(t), newKeyFile(t)
	old := newTestSealer(t, false, before)
	both := newTestSealer(t, false, after, before)
	record := old.seal("k", []byte("v"))
	if got, err := both.open("k", record); err != nil || string(got) != "v" {
		t.Errorf("the second key does not decrypt: %v", err)
	}
	if both.fresh(record) || !both.fresh(both.seal("k", []byte("v"))) {
		t.Error("fresh is what the first key has sealed")
	}
	if _, err := old.open("k", both.seal("k", []byte("v"))); !errors.Is(err, ErrUnreadable) {
		t.Errorf("the first key does not encrypt: %v", err)
	}
	if got, err := newTestSealer(t, true, after).open("k", []byte("plain")); err != nil || string(got) != "plain" {
		t.Errorf("plaintext while migrating: %q, %v", got, err)
	}
	if _, err := newTestSealer(t, true, after).open("k", record); !errors.Is(err, ErrUnreadable) {
		t.Errorf("migrating takes what another key has sealed: %v", err)
	}
}

func TestDecodeKey(t *testing.T) {
	material := make([]byte, 32)
	rand.Read(material)
	long := bytes.Repeat(material, 3)
	std, url := base64.StdEncoding, base64.RawURLEncoding
	wrapped := std.EncodeToString(long)
	wrapped = wrapped[:64] + "\n" + wrapped[64:] + "\n" // as openssl rand -base64 96 writes it
	for _, tt := range []struct {
		name, text string
		want       []byte
		problem    string
	}{
		{"base64", std.EncodeToString(material) + "\n", material, ""},
		{"base64, URL's, unpadded", url.EncodeToString(material), material, ""},
		{"base64 in lines", wrapped, long, ""},
		{"hex", hex.EncodeToString(material) + "\r\n", material, ""},
		{"hex in capitals", strings.ToUpper(hex.EncodeToString(material)), material, ""},
		{"raw", "\x00\xff" + string(material), append([]byte("\x00\xff"), material...), ""},
		{"short base64", std.EncodeToString(material[:31]), nil, "31 bytes"},
		{"short hex", hex.EncodeToString(material[:16]), nil, "16 bytes"},
		{"short raw", "\x00\xff\x01", nil, "3 bytes"},
		{"empty", "", nil, "0 bytes"},
		{"blank", " \n", nil, "0 bytes"},
		{"passphrase", "correct horse, battery staple, and so on and on\n", nil, "neither base64 nor hex"},
		{"zeros", strings.Repeat("\x00", 64), nil, "over and over"},
		{"zeros in hex", strings.Repeat("00", 32), nil, "over and over"},
	} {
		got, err := decodeKey([]byte(tt.text))
		if tt.problem == "" && (err != nil || !bytes.Equal(got, tt.want)) {
			t.Errorf("%s: got %x, %v", tt.name, got, err)
		}
		if tt.problem != "" && (err == nil || !strings.Contains(err.Error(), tt.problem)) {
			t.Errorf("%s: got %v, want %q in it", tt.name, err, tt.problem)
		}
	}
}

func TestReadKeyFile(t *testing.T) {
	dir := t.TempDir()
	text := "c9rFJgGSkJ3S4mE0Zp8iF4TQF2S3l1mXo2b7y0k1n5A=\n"
	write := func(name string, mode os.FileMode, text string) string {
		name = filepath.Join(dir, name)
		must(t, os.WriteFile(name, []byte(text), 0o600))
		must(t, os.Chmod(name, mode))
		return name
	}
	fifo := filepath.Join(dir, "fifo")
	must(t, syscall.Mkfifo(fifo, 0o600))
	for name, mode := range map[string]os.FileMode{"a": 0o600, "b": 0o400, "group": 0o440} {
		if _, err := readKeyFile(write(name, mode, text)); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	for _, tt := range []struct{ file, want string }{
		{filepath.Join(dir, "none"), "openssl rand -base64 32"},
		{write("world", 0o604, text), "chmod 600"},
		{write("writable", 0o620, text), "chmod 600"},
		{write("big", 0o600, strings.Repeat(text, 5000)), "that is no key"},
		{write("empty", 0o600, ""), "0 bytes"},
		{dir, "no ordinary file"},
		{fifo, "no ordinary file"},
	} {
		_, err := newSealer([]string{tt.file}, false)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.file) ||
			!strings.HasPrefix(err.Error(), "encryption_key_files[0]: ") {
			t.Errorf("%s: got %v, want %q in it", tt.file, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), text[:8]) {
			t.Errorf("the error holds the key: %v", err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k, err := newSealKey(bytes.Repeat([]byte("material"), 4))
	if err != nil {
		f.Fatal(err)
	}
	s := &sealer{first: k, byID: map[string]cipher.AEAD{k.id: k.aead}}
	f.Add("a/b", s.seal("a/b", []byte("value")))
	f.Add("a/b", []byte(sealedMark+k.id+"\n"))
	f.Fuzz(func(t *testing.T, key string, record []byte) {
		// Who does not have the key makes nothing that opens, but for what the seeds have.
		if value, err := s.open(key, record); err == nil && string(value) != "value" {
			t.Errorf("opened %q as %q", record, value)
		}
		if value, err := s.open(key, s.seal(key, record)); err != nil || !bytes.Equal(value, record) {
			t.Errorf("seal and open: %q, %v", value, err)
		}
	})
}

func FuzzDecodeKey(f *testing.F) {
	f.Add([]byte("c9rFJgGSkJ3S4mE0Zp8iF4TQF2S3l1mXo2b7y0k1n5A=\n"))
	f.Add([]byte(strings.Repeat("0f", 32)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if material, err := decodeKey(text); err == nil && len(material) < minKeyMaterial {
			t.Errorf("took %d bytes", len(material))
		}
	})
}
