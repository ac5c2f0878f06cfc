package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/proxy/certs/internal/servers"
)

// tried is a backend whose writes are tried apart.
type tried struct {
	backend
	n   int
	err error
}

func (b *tried) health(context.Context) error { return nil }

func (b *tried) tryWrite(context.Context) error {
	b.n++
	return b.err
}

// TestWritesAreTriedSeldom: once a minute is enough where all is well, and where it is not each probe looks whether it is again.
func TestWritesAreTriedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ctx := newShared(t, 1)[0], t.Context()
		b := &tried{backend: s.backend}
		s.backend = b
		probes := func(n int) {
			for range n {
				_ = s.Probe(ctx)
				<-time.After(probeEvery)
			}
		}
		probes(24) // two minutes
		if b.n != 2 || s.Health() != nil {
			t.Errorf("%d writes in two minutes, health %v", b.n, s.Health())
		}
		<-time.After(writeEvery)
		b.err = errors.New("the disk is full")
		probes(6)
		if b.n != 8 || s.Health() == nil {
			t.Errorf("%d writes, want one more each time; health %v", b.n, s.Health())
		}
		b.err = nil
		probes(6)
		if b.n != 9 || s.Health() != nil {
			t.Errorf("%d writes, want one that went well and no more; health %v", b.n, s.Health())
		}
		// What a certificate found out in between is looked into at once.
		s.note(writing, errors.New("the disk is full"))
		probes(1)
		if b.n != 10 || s.Health() != nil {
			t.Errorf("%d writes, health %v", b.n, s.Health())
		}
	})
}

// TestPostgresRights: a database that is read-write and lets us write nothing is down, and leaves nothing behind where it lets us.
func TestPostgresRights(t *testing.T) {
	c := DefaultConfig()
	c.Type, c.Postgres, c.Encryption = TypePostgres, postgresAt(servers.NewPostgres(t)), EncryptionNone
	owner := openTest(t, c, t.TempDir())
	must(t, owner.Store(t.Context(), "a", []byte("x")))
	sql := func(statement string) {
		t.Helper()
		_, err := owner.backend.(*inPostgres).exec(t.Context(), statement)
		must(t, err)
	}
	sql(`CREATE ROLE small LOGIN PASSWORD 'open sesame'`)
	sql(`GRANT USAGE ON SCHEMA popgate TO small`)
	sql(`GRANT SELECT ON ALL TABLES IN SCHEMA popgate TO small`)
	c.Postgres.Connection = strings.Replace(c.Postgres.Connection, "user=popgate", "user=small", 1)
	s := openTest(t, c, t.TempDir())
	for _, grant := range []string{
		`GRANT INSERT, UPDATE ON popgate.certificates TO small`,
		`GRANT DELETE ON popgate.certificates TO small`,
		`GRANT INSERT, UPDATE, DELETE ON popgate.locks TO small`,
	} {
		err := s.Probe(t.Context())
		if err == nil || !strings.Contains(err.Error(), "permission denied") || s.Health() == nil {
			t.Errorf("before %s: got %v", grant, err)
		}
		sql(grant)
	}
	must(t, s.Probe(t.Context()))
	must(t, s.Health())
	keys, err := owner.List(t.Context(), "", true)
	must(t, err)
	if len(keys) != 1 {
		t.Errorf("got %q, want nothing but what was stored", keys)
	}
	if ok, err := s.TryLock(t.Context(), "probe"); !ok || err != nil {
		t.Errorf("a lock: %v, %v", ok, err)
	}
}

// TestStaleLocks: what killed gateways left goes, and nothing that somebody holds or has just lost.
func TestStaleLocks(t *testing.T) {
	server := servers.NewPostgres(t)
	for name, where := range map[string]func(*Config){
		TypeFile:     func(*Config) {},
		TypePostgres: func(c *Config) { c.Type, c.Postgres = TypePostgres, postgresAt(server) },
	} {
		t.Run(name, func(t *testing.T) {
			c := DefaultConfig()
			c.Encryption = EncryptionNone
			where(&c)
			s, ctx := openTest(t, c, t.TempDir()), t.Context()
			for _, name := range []string{"held", "past"} {
				if ok, err := s.TryLock(ctx, name); !ok || err != nil {
					t.Fatal(ok, err)
				}
			}
			// As if it had not been renewed for two days.
			switch b := s.backend.(type) {
			case *files:
				long := time.Now().Add(-48 * time.Hour)
				file := filepath.Join(b.Path, lockFolder, "left.lock")
				must(t, os.WriteFile(file, []byte("{}"), 0o600))
				must(t, os.Chtimes(file, long, long))
			case *inPostgres:
				_, err := b.exec(ctx, `INSERT INTO {schema}.locks VALUES ('left', '', clock_timestamp() - interval '2 days')`)
				must(t, err)
			}
			must(t, s.Unlock(ctx, "past"))
			for _, want := range []int{1, 0} {
				if n, err := s.DropStaleLocks(ctx, 24*time.Hour); n != want || err != nil {
					t.Errorf("dropped %d, %v; want %d", n, err, want)
				}
			}
			if ok, err := s.TryLock(ctx, "held"); ok || err != nil {
				t.Errorf("the lock that is held: %v, %v", ok, err)
			}
		})
	}
}
