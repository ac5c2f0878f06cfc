package storage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/policy/cluster"
	"github.com/popgate/popgate/proxy/certs/internal/servers"
)

const (
	siteKey  = "certificates/issuer/mail.example.org/mail.example.org.key"
	siteCert = "certificates/issuer/mail.example.org/mail.example.org.crt"
)

// TestOutage stops the real server under a gateway that works, and starts it again.
func TestOutage(t *testing.T) {
	key := newKeyFile(t)
	for name, start := range map[string]func(*testing.T, *Config) *servers.Server{
		TypeRedis: func(t *testing.T, c *Config) *servers.Server {
			r := servers.NewRedis(t)
			c.Redis = r.Redis
			return r
		},
		TypePostgres: func(t *testing.T, c *Config) *servers.Server {
			p := servers.NewPostgres(t)
			c.Postgres = postgresAt(p)
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := DefaultConfig()
			c.Type, c.EncryptionKeyFiles = name, []string{key}
			server, dir := start(t, &c), t.TempDir()
			var log bytes.Buffer
			s, err := open(c, dir, slog.New(slog.NewTextHandler(&log, nil)), testLease)
			must(t, err)
			defer func() { must(t, s.Close()) }()
			s.copying.Store(true)
			ctx := t.Context()
			must(t, s.Store(ctx, siteKey, []byte("the key")))
			must(t, s.Store(ctx, "acme/account.json", []byte("account")))
			must(t, s.Lock(ctx, "work"))
			if up := gauge(t, s); up != 1 || s.Health() != nil {
				t.Errorf("up is %v", up)
			}

			server.Down(t)
			testAway(t, s)
			// A gateway that starts now has what it last had.
			restarted := openTest(t, c, dir)
			testAway(t, restarted)
			testAway(t, restarted) // at once this time, as it knows
			fresh := openTest(t, c, t.TempDir())
			if _, err := fresh.Load(ctx, siteKey); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a gateway that never had it: got %v, want the storage's error", err)
			}

			server.Up(t)
			servers.Eventually(t, "the storage is back", func() error { return s.Probe(ctx) })
			must(t, s.Health())
			for _, from := range []*Store{s, fresh} {
				if got, err := from.Load(ctx, siteKey); string(got) != "the key" || err != nil {
					t.Errorf("after the restart: %q, %v", got, err)
				}
			}
			// Its lease has either outlasted this or was taken up again.
			servers.Eventually(t, "the lock is held again", func() error { return s.RenewLockLease(ctx, "work", time.Minute) })
			if ok, err := fresh.TryLock(ctx, "work"); ok || err != nil {
				t.Errorf("the lock is gone: %v, %v", ok, err)
			}
			must(t, s.Unlock(ctx, "work"))
			for _, want := range []string{"storage is down", "storage is back"} {
				if n := strings.Count(log.String(), want); n != 1 {
					t.Errorf("the log says %q %d times:\n%s", want, n, &log)
				}
			}
		})
	}
}

// gauge is popgate_certificate_storage_up.
func gauge(t *testing.T, s *Store) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s)
	families, err := reg.Gather()
	must(t, err)
	for _, f := range families {
		if f.GetName() == "popgate_certificate_storage_up" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("there is no gauge")
	return 0
}

// testAway looks at a store whose storage is down and which has a copy of siteKey.
func testAway(t *testing.T, s *Store) {
	t.Helper()
	const soon = 2 * time.Second // a socket that nobody listens on answers at once, a machine with two cores may be busy
	err := within(t, soon, func(ctx context.Context) error {
		got, err := s.Load(ctx, siteKey)
		if string(got) != "the key" {
			t.Errorf("the copy gives %q", got)
		}
		return err
	})
	must(t, err)
	if got, err := s.List(t.Context(), "certificates", true); err != nil || !slices.Contains(got, siteKey) {
		t.Errorf("List of the copies: %q, %v", got, err)
	}
	for name, ask := range map[string]func(context.Context) error{
		"account":    func(ctx context.Context) error { _, err := s.Load(ctx, "acme/account.json"); return err },
		"unknown":    func(ctx context.Context) error { _, err := s.Load(ctx, "certificates/issuer/new/new.crt"); return err },
		"store":      func(ctx context.Context) error { return s.Store(ctx, siteKey, []byte("new")) },
		"delete":     func(ctx context.Context) error { return s.Delete(ctx, siteKey) },
		"stat":       func(ctx context.Context) error { _, err := s.Stat(ctx, siteKey); return err },
		"lock":       func(ctx context.Context) error { return s.Lock(ctx, "other") },
		"list":       func(ctx context.Context) error { _, err := s.List(ctx, "acme", false); return err },
		"probe":      s.Probe,
		"try a lock": func(ctx context.Context) error { _, err := s.TryLock(ctx, "other"); return err },
	} {
		if err := within(t, soon, ask); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want the storage's error", name, err)
		}
	}
	// What another issuer never gave is not there, as long as one gave something.
	other := strings.Replace(siteKey, "/issuer/", "/second/", 1)
	if _, err := s.Load(t.Context(), other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another issuer's: got %v, want fs.ErrNotExist", err)
	}
	if s.Exists(t.Context(), siteKey) {
		t.Error("what cannot be asked exists")
	}
	if s.Health() == nil || gauge(t, s) != 0 {
		t.Errorf("health is %v, the gauge %v", s.Health(), gauge(t, s))
	}
}

// TestSilentServer has a server that takes connections and never answers: no call outlasts its timeout.
func TestSilentServer(t *testing.T) {
	address := hole(t)
	redis, postgres := DefaultConfig(), DefaultConfig()
	redis.Type, redis.Redis.Addresses, redis.Redis.Timeout = TypeRedis, []string{address}, 200*time.Millisecond
	postgres.Type, postgres.Postgres.Timeout = TypePostgres, 200*time.Millisecond
	host, port, _ := strings.Cut(address, ":")
	postgres.Postgres.Connection = "host=" + host + " port=" + port + " user=x dbname=x sslmode=disable"
	for _, c := range []Config{redis, postgres} {
		t.Run(c.Type, func(t *testing.T) {
			t.Parallel()
			c.Encryption = EncryptionNone
			s := openTest(t, c, t.TempDir())
			err := within(t, 2*time.Second, func(ctx context.Context) error {
				_, err := s.Load(ctx, siteKey)
				return err
			})
			if err == nil || s.Health() == nil {
				t.Errorf("got %v, healthy %v", err, s.Health())
			}
			err = within(t, 2*time.Second, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				return s.Lock(ctx, "x")
			})
			if err == nil {
				t.Error("locked")
			}
		})
	}
}

// TestCopies follows the local copies through what happens to a certificate.
func TestCopies(t *testing.T) {
	s := newShared(t, 1)[0]
	dir := t.TempDir()
	var err error
	s.copies, err = openCopies(filepath.Join(dir, "copies"))
	must(t, err)
	ctx := t.Context()
	must(t, s.Store(ctx, siteKey, []byte("one")))
	if _, err := os.Stat(filepath.Join(dir, "copies")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a copy without Run: %v", err)
	}
	s.copying.Store(true)
	has := func(key string) bool {
		_, err := s.copies.load(ctx, key)
		return err == nil
	}
	must(t, s.Store(ctx, siteKey, []byte("one")))
	must(t, s.Store(ctx, "acme/account.key", []byte("account")))
	must(t, s.Store(ctx, "certificates-rsa/i/n/n.key", []byte("rsa")))
	if !has(siteKey) || !has("certificates-rsa/i/n/n.key") || has("acme/account.key") {
		t.Error("certificates are copied, and nothing else")
	}
	if record, _ := s.copies.load(ctx, siteKey); bytes.Contains(record, []byte("one")) {
		t.Error("the copy is not encrypted")
	}
	if info, err := os.Stat(filepath.Join(dir, "copies")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", info.Mode(), err)
	}
	// Another node renews: the next Load brings it here.
	must(t, s.backend.store(ctx, siteKey, s.sealer.seal(siteKey, []byte("two"))))
	if got, err := s.Load(ctx, siteKey); string(got) != "two" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	record, err := s.copies.load(ctx, siteKey)
	must(t, err)
	if got, _ := s.sealer.open(siteKey, record); string(got) != "two" {
		t.Errorf("the copy is %q", got)
	}
	// What somebody spoilt in the storage does not spoil the copy.
	must(t, s.backend.store(ctx, siteKey, []byte("spoilt")))
	if _, err := s.Load(ctx, siteKey); !errors.Is(err, ErrUnreadable) {
		t.Errorf("got %v, want ErrUnreadable", err)
	}
	if again, _ := s.copies.load(ctx, siteKey); !bytes.Equal(again, record) {
		t.Error("the copy was overwritten with what cannot be read")
	}
	// A copy that somebody spoilt says nothing of the storage's record.
	must(t, s.Store(ctx, siteKey, []byte("two")))
	must(t, s.copies.store(ctx, siteKey, s.sealer.seal("elsewhere", []byte("x"))))
	away := &shaky{backend: s.backend, err: errors.New("away")}
	s.backend = away
	for range 2 { // found out now, known already
		if _, err := s.Load(ctx, siteKey); err == nil || errors.Is(err, ErrUnreadable) || !s.watch.downNow() {
			t.Errorf("got %v, want the storage's error", err)
		}
	}
	s.backend = away.backend
	if got, err := s.Load(ctx, siteKey); string(got) != "two" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	// Another node deletes: a Load or the daily round removes the copies.
	must(t, s.Store(ctx, siteCert, []byte("cert")))
	must(t, s.backend.remove(ctx, siteKey))
	if _, err := s.Load(ctx, siteKey); !errors.Is(err, fs.ErrNotExist) || has(siteKey) {
		t.Errorf("got %v, copy there: %v", err, has(siteKey))
	}
	must(t, s.backend.remove(ctx, siteCert))
	if !s.tidy(ctx) || has(siteCert) || !has("certificates-rsa/i/n/n.key") {
		t.Error("the round removes what is no more, and nothing else")
	}
	must(t, s.Delete(ctx, "certificates-rsa"))
	if has("certificates-rsa/i/n/n.key") {
		t.Error("Delete leaves the copy")
	}
}

func TestReseal(t *testing.T) {
	s := newShared(t, 1)[0]
	ctx := t.Context()
	before, after := newKeyFile(t), newKeyFile(t)
	old := newTestSealer(t, false, before)
	must(t, s.backend.store(ctx, "a/old", old.seal("a/old", []byte("old"))))
	must(t, s.backend.store(ctx, "a/plain", []byte("plain")))
	must(t, s.backend.store(ctx, "a/foreign", s.sealer.seal("a/foreign", []byte("x"))))
	var log bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	s.sealer = newTestSealer(t, true, after, before)
	must(t, s.Store(ctx, "a/new", []byte("new")))
	done, unreadable, err := s.Reseal(ctx)
	if done != 2 || unreadable != 1 || err != nil {
		t.Errorf("got %d done, %d unreadable, %v", done, unreadable, err)
	}
	s.sealer = newTestSealer(t, false, after)
	for _, name := range []string{"old", "plain", "new"} {
		if got, err := s.Load(ctx, "a/"+name); string(got) != name || err != nil {
			t.Errorf("%s with the new key alone: %q, %v", name, got, err)
		}
	}
	if done, _, err := s.Reseal(ctx); done != 0 || err != nil {
		t.Errorf("the second time: %d, %v", done, err)
	}
	must(t, s.Delete(ctx, "a/foreign"))
	must(t, s.backend.store(ctx, "a/plain", []byte("plain")))
	s.sealer = newTestSealer(t, true, after)
	if !s.tidy(ctx) || !strings.Contains(log.String(), "not needed any more") {
		t.Errorf("the log:\n%s", &log)
	}
}

// TestCorrupt has a record in a real storage changed by hand.
func TestCorrupt(t *testing.T) {
	c := DefaultConfig()
	c.Type, c.Redis, c.EncryptionKeyFiles = TypeRedis, servers.NewRedis(t).Redis, []string{newKeyFile(t)}
	s := openTest(t, c, t.TempDir())
	ctx := t.Context()
	must(t, s.Store(ctx, siteKey, []byte("the key")))
	must(t, s.Store(ctx, siteCert, []byte("the certificate")))
	redis, err := cluster.New(c.Redis)
	must(t, err)
	defer func() { must(t, redis.Close()) }()
	r := s.backend.(*inRedis)
	cert, err := r.load(ctx, siteCert)
	must(t, err)
	for name, change := range map[string][]any{
		"swapped":         {"HSET", r.record(siteKey), "v", cert},
		"cut":             {"HSET", r.record(siteKey), "v", cert[:20]},
		"plain":           {"HSET", r.record(siteKey), "v", "-----BEGIN PRIVATE KEY-----"},
		"of another type": {"SET", r.record(siteKey), "x"},
	} {
		_, err := redis.Do(ctx, change...)
		must(t, err)
		_, err = s.Load(ctx, siteKey)
		if !errors.Is(err, ErrUnreadable) || errors.Is(err, ErrAltered) != (name == "swapped" || name == "cut") || s.Health() != nil {
			t.Errorf("%s: got %v", name, err)
		}
		// It can be deleted and made anew.
		must(t, s.Delete(ctx, siteKey))
		must(t, s.Store(ctx, siteKey, []byte("the key")))
		if got, err := s.Load(ctx, siteKey); string(got) != "the key" || err != nil {
			t.Errorf("%s, made anew: %q, %v", name, got, err)
		}
	}
}

// TestPostgresTables starts many gateways on an empty database at once, and then one whose user may make nothing.
func TestPostgresTables(t *testing.T) {
	server := servers.NewPostgres(t)
	c := DefaultConfig()
	c.Type, c.Postgres, c.Encryption = TypePostgres, postgresAt(server), EncryptionNone
	done := make(chan error)
	const nodes = 6
	for range nodes {
		s := openTest(t, c, t.TempDir())
		go func() { done <- s.Store(t.Context(), "a", []byte("x")) }()
	}
	for range nodes {
		must(t, <-done)
	}
	s := openTest(t, c, t.TempDir())
	admin := s.backend.(*inPostgres)
	for _, statement := range []string{
		`CREATE ROLE small LOGIN PASSWORD 'open sesame'`, `GRANT USAGE ON SCHEMA popgate TO small`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA popgate TO small`,
	} {
		_, err := admin.exec(t.Context(), statement)
		must(t, err)
	}
	c.Postgres.Connection = strings.Replace(c.Postgres.Connection, "user=popgate", "user=small", 1)
	small := openTest(t, c, t.TempDir())
	must(t, small.Store(t.Context(), "b", []byte("y")))
	c.Postgres.Schema = "elsewhere"
	err := openTest(t, c, t.TempDir()).Store(t.Context(), "b", []byte("y"))
	if err == nil || !strings.Contains(err.Error(), "make popgate's tables") {
		t.Errorf("without the right to make tables: %v", err)
	}
	// Tables that somebody dropped come back.
	_, err = admin.exec(t.Context(), `DROP SCHEMA popgate CASCADE`)
	must(t, err)
	if s.Store(t.Context(), "a", []byte("x")) == nil {
		t.Error("stored in no table")
	}
	must(t, s.Store(t.Context(), "a", []byte("x")))
}
