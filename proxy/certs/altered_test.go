package certs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/popgate/popgate/policy/cluster"
	"github.com/popgate/popgate/proxy/certs/internal/servers"
	"github.com/popgate/popgate/proxy/certs/storage"
)

// TestAlteredInStorage has encrypted records exchanged by hand: the certificate is obtained anew, and the name gets another.
// Without the key for them they stay.
func TestAlteredInStorage(t *testing.T) {
	for name, where := range map[string]func(*testing.T) storage.Config{
		"file": func(t *testing.T) storage.Config {
			c := storage.DefaultConfig()
			c.EncryptionKeyFiles = []string{filepath.Join(t.TempDir(), "key")}
			write(t, c.EncryptionKeyFiles[0], []byte(strings.Repeat("0123456789abcdef", 4)))
			return c
		},
		"redis": func(t *testing.T) storage.Config { return onServer(t, servers.NewRedis(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, dir := startPebble(t, pebbleOptions{}), t.TempDir()
			c := p.config("mail.example.org")
			c.ACME.Storage = where(t)
			r, v := startRig(t, dir, c, nil)
			first := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
			r.stop()

			foreign := c
			foreign.ACME.Storage.EncryptionKeyFiles = []string{filepath.Join(t.TempDir(), "key")}
			write(t, foreign.ACME.Storage.EncryptionKeyFiles[0], []byte(strings.Repeat("fedcba9876543210", 4)))
			var d *damaged
			if err := loadOffline(t, foreign, dir); !errors.Is(err, storage.ErrUnreadable) || errors.As(err, &d) {
				t.Errorf("with another key: got %v, want an error that has nothing removed", err)
			}
			exchange(t, c, dir)
			if err := loadOffline(t, c, dir); !errors.As(err, &d) || !errors.Is(err, storage.ErrAltered) {
				t.Errorf("altered: got %v, want it damaged", err)
			}
			_, v = startRig(t, dir, c, nil)
			again := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
			if again.SerialNumber.Cmp(first.SerialNumber) == 0 {
				t.Error("the altered one is served")
			}
		})
	}
}

// loadOffline reads the one site there is.
func loadOffline(t *testing.T, c Config, dir string) error {
	t.Helper()
	s := must(Offline(c, dir))
	defer func() { _ = s.Close() }()
	places := must(s.store.places(t.Context()))
	if len(places) != 1 {
		t.Fatalf("got %v, want one place", places)
	}
	_, err := s.store.load(t.Context(), places[0])
	return err
}

// exchange puts the record of the certificate in the place of its key's, as it is.
func exchange(t *testing.T, c Config, dir string) {
	t.Helper()
	s := must(Offline(c, dir))
	defer func() { _ = s.Close() }()
	p := must(s.store.places(t.Context()))[0]
	if c.ACME.Storage.Type == storage.TypeFile {
		at := func(key string) string { return filepath.Join(dir, "acme", key) }
		write(t, at(p.keyKey()), must(os.ReadFile(at(p.certKey()))))
		return
	}
	client := must(cluster.New(c.ACME.Storage.Redis))
	defer func() { _ = client.Close() }()
	at := func(key string) string { return client.Key("certs", "record:"+key) }
	record := must(client.Do(t.Context(), "HGET", at(p.certKey()), "v"))
	must(client.Do(t.Context(), "HSET", at(p.keyKey()), "v", record))
}
