package storage

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	redis := func(change func(*Config)) Config {
		c := DefaultConfig()
		c.Type, c.Redis.Addresses, c.EncryptionKeyFiles = TypeRedis, []string{"127.0.0.1:6379"}, []string{"/etc/popgate/storage.key"}
		change(&c)
		return c
	}
	postgres := func(change func(*Config)) Config {
		c := DefaultConfig()
		c.Type, c.EncryptionKeyFiles = TypePostgres, []string{"/etc/popgate/storage.key"}
		c.Postgres.Connection = "postgres://popgate@db.example.org/popgate?sslmode=verify-full"
		change(&c)
		return c
	}
	for _, tt := range []struct {
		name   string
		config Config
		want   []string // the keys at fault
	}{
		{"default", DefaultConfig(), nil},
		{"redis", redis(func(*Config) {}), nil},
		{"postgres", postgres(func(*Config) {}), nil},
		{"unencrypted on purpose", redis(func(c *Config) { c.EncryptionKeyFiles, c.Encryption = nil, "none" }), nil},
		{"unencrypted by accident", redis(func(c *Config) { c.EncryptionKeyFiles = nil }), []string{"encryption_key_files"}},
		{"both", postgres(func(c *Config) { c.Encryption = "none" }), []string{"encryption"}},
		{"unknown word", postgres(func(c *Config) { c.Encryption = "aes" }), []string{"encryption"}},
		{"unknown type", Config{Type: "etcd"}, []string{"type", "encryption_key_files"}},
		{"redis beside postgres", postgres(func(c *Config) { c.Redis.Addresses = []string{"127.0.0.1:6379"} }), []string{"redis"}},
		{"postgres beside redis", redis(func(c *Config) { c.Postgres.Connection = "host=x" }), []string{"postgres"}},
		{"no address", redis(func(c *Config) { c.Redis.Addresses = nil }), []string{"redis.addresses"}},
		{"twice the same key", redis(func(c *Config) { c.EncryptionKeyFiles = []string{"a", "a", ""} }),
			[]string{"encryption_key_files[1]", "encryption_key_files[2]"}},
		{"plaintext without key", Config{Type: TypeFile, AcceptPlaintext: true}, []string{"accept_plaintext"}},
		{"nothing of postgres", postgres(func(c *Config) { c.Postgres = Postgres{} }), []string{
			"postgres.connection", "postgres.schema", "postgres.connections", "postgres.connect_timeout", "postgres.timeout",
		}},
		{"bad schema", postgres(func(c *Config) { c.Postgres.Schema = `x"; DROP` }), []string{"postgres.schema"}},
		{"password in the URL", postgres(func(c *Config) { c.Postgres.Connection = "postgres://u:p@h/d" }), []string{"postgres.connection"}},
		{"password in the query", postgres(func(c *Config) { c.Postgres.Connection = "postgresql://h/d?user=u&password=p" }), []string{"postgres.connection"}},
		{"password among words", postgres(func(c *Config) { c.Postgres.Connection = "host=h Password = p" }), []string{"postgres.connection"}},
		{"no password", postgres(func(c *Config) { c.Postgres.Connection = "host=h user=password" }), nil},
	} {
		var got []string
		tt.config.Validate(func(key, problem string) {
			got = append(got, key)
			if problem == "" {
				t.Errorf("%s: %s without a problem", tt.name, key)
			}
		})
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestOpenFails has what Validate cannot see. Each error says at which key.
func TestOpenFails(t *testing.T) {
	file := secretFile(t, "x")
	none := filepath.Join(t.TempDir(), "none")
	redis := DefaultConfig()
	redis.Type, redis.Redis.Addresses, redis.Encryption = TypeRedis, []string{"127.0.0.1:1"}, EncryptionNone
	postgres := DefaultConfig()
	postgres.Type, postgres.Postgres.Connection, postgres.Encryption = TypePostgres, "host=127.0.0.1", EncryptionNone
	with := func(c Config, change func(*Config)) Config { change(&c); return c }
	for _, tt := range []struct {
		want   string
		config Config
	}{
		{"encryption_key_files: ", with(redis, func(c *Config) { c.Encryption = "" })},
		{"encryption_key_files[0]: ", with(redis, func(c *Config) { c.EncryptionKeyFiles = []string{file} })},
		{"redis.password_file: ", with(redis, func(c *Config) { c.Redis.PasswordFile = none })},
		{"redis.password_file: ", with(redis, func(c *Config) { c.Redis.PasswordFile = secretFile(t, "\n") })},
		{"redis.tls_ca: ", with(redis, func(c *Config) { c.Redis.TLS, c.Redis.TLSCA = true, file })},
		{"postgres.password_file: ", with(postgres, func(c *Config) { c.Postgres.PasswordFile = none })},
		{"postgres.connection: ", with(postgres, func(c *Config) { c.Postgres.Connection = "host=a sslmode=perhaps" })},
		{"type: ", Config{Type: "etcd", Encryption: EncryptionNone}},
	} {
		if _, err := Open(tt.config, t.TempDir(), nil); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	// There is no folder below a file, and one that is open is closed.
	if _, err := Open(DefaultConfig(), file, nil); err == nil {
		t.Error("opened below a file")
	}
	dir := t.TempDir()
	looking, err := Open(DefaultConfig(), dir, nil)
	must(t, err)
	if got, err := looking.List(t.Context(), "", true); len(got) != 0 || err != nil {
		t.Errorf("List of nothing: %q, %v", got, err)
	}
	if made, err := os.ReadDir(dir); len(made) != 0 || err != nil {
		t.Errorf("looking makes %v, %v", made, err)
	}
	must(t, looking.Probe(t.Context()))
	if info, err := os.Stat(filepath.Join(dir, "acme")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder that was made: %v, %v", info, err)
	}
	dir = t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "acme"), 0o755))
	s, err := Open(DefaultConfig(), dir, nil)
	must(t, err)
	must(t, s.Close())
	if info, err := os.Stat(filepath.Join(dir, "acme")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// TestOpenWhileDown starts without the storage in reach, and at once.
func TestOpenWhileDown(t *testing.T) {
	for _, c := range []Config{{Type: TypeRedis}, {Type: TypePostgres}} {
		d := DefaultConfig()
		d.Type, d.Encryption = c.Type, EncryptionNone
		if d.Type == TypeRedis {
			d.Redis.Addresses = []string{hole(t)}
		} else {
			d.Postgres.Connection = "host=127.0.0.1 port=1"
		}
		begun := time.Now()
		s, err := Open(d, t.TempDir(), nil)
		must(t, err)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("%s: Open took %v", c.Type, took)
		}
		must(t, s.Close())
	}
}
