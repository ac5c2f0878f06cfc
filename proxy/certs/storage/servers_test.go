package storage

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/certs/internal/servers"
)

func postgresAt(s *servers.Server) Postgres {
	p := DefaultConfig().Postgres
	p.Connection, p.PasswordFile = s.Connection, s.PasswordFile
	return p
}

func secretFile(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// newKeyFile is what the documentation has the operator make.
func newKeyFile(t testing.TB) string {
	t.Helper()
	material := make([]byte, 32)
	rand.Read(material)
	return secretFile(t, base64.StdEncoding.EncodeToString(material)+"\n")
}

// hole is an address that takes connections and never answers.
func hole(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// within fails the test where f takes longer than d.
func within(t testing.TB, d time.Duration, f func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*d, errors.New("far too late"))
	defer cancel()
	begun := time.Now()
	err := f(ctx)
	if took := time.Since(begun); took > d {
		t.Errorf("took %v, want %v at most (%v)", took, d, err)
	}
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// variant is one way to store.
type variant struct {
	name   string
	config Config
}

// variants are all kinds of storage, with and without encryption. Each has a server of its own, which all of its tests share.
func variants(t testing.TB) []variant {
	t.Helper()
	keys := []string{newKeyFile(t)}
	files, redis, postgres := DefaultConfig(), DefaultConfig(), DefaultConfig()
	redis.Type, redis.Redis = TypeRedis, servers.NewRedis(t).Redis
	postgres.Type, postgres.Postgres = TypePostgres, postgresAt(servers.NewPostgres(t))
	var all []variant
	for _, c := range []Config{files, redis, postgres} {
		sealed := c
		sealed.EncryptionKeyFiles = keys
		c.Encryption = EncryptionNone
		c.Redis.Prefix, sealed.Redis.Prefix = "plain", "sealed"
		c.Postgres.Schema, sealed.Postgres.Schema = "plain", "sealed"
		all = append(all, variant{c.Type + "/plain", c}, variant{c.Type + "/sealed", sealed})
	}
	return all
}

// openTest opens a store whose leases are short, and closes it with the test.
func openTest(t testing.TB, c Config, stateDir string) *Store {
	t.Helper()
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	s, err := open(c, stateDir, nil, testLease)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	s.copying.Store(true) // as with Run, which is tested by itself
	return s
}

const testLease = 2 * time.Second

// helperEnv has the test's program hold a lock for another process: see TestLockOfKilledHolder.
const helperEnv = "POPGATE_STORAGE_TEST_HOLDS"

func TestMain(m *testing.M) {
	if text := os.Getenv(helperEnv); text != "" {
		if err := holdForever(text); err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}
