package storage

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// shaky is a backend whose health a test decides on.
type shaky struct {
	backend
	mu       sync.Mutex
	err      error
	readOnly bool // err is of writes alone
}

func (s *shaky) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *shaky) health(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *shaky) load(ctx context.Context, key string) ([]byte, error) {
	if err := s.health(ctx); err != nil && !s.readOnly {
		return nil, err
	}
	return s.backend.load(ctx, key)
}

func (s *shaky) store(ctx context.Context, key string, record []byte) error {
	if err := s.health(ctx); err != nil {
		return err
	}
	return s.backend.store(ctx, key, record)
}

// TestReadOnly has a storage that takes no writes: no read, and nothing that writes nothing, makes it pass for one that is up.
func TestReadOnly(t *testing.T) {
	s, ctx := newShared(t, 1)[0], t.Context()
	b := &shaky{backend: s.backend, readOnly: true}
	s.backend = b
	var log bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&log, nil))
	must(t, s.Store(ctx, siteKey, []byte("x")))
	for _, fail := range []func() error{
		func() error { return s.Probe(ctx) },
		func() error { return s.Store(ctx, siteKey, []byte("y")) },
	} {
		b.set(errors.New("read-only replica"))
		if fail() == nil {
			t.Fatal("written")
		}
		for range 2 {
			_, err := s.Load(ctx, siteKey)
			must(t, err)
			_, err = s.Stat(ctx, siteKey)
			must(t, err)
			_, err = s.List(ctx, "certificates", true)
			must(t, err)
			must(t, s.Delete(ctx, "acme/none"))
			if s.Probe(ctx) == nil || s.Health() == nil || gauge(t, s) != 0 {
				t.Errorf("up: %v", s.Health())
			}
			if s.watch.downNow() {
				t.Error("it is not read any more")
			}
		}
		b.set(nil)
		must(t, s.Store(ctx, siteKey, []byte("x")))
		must(t, s.Health())
	}
	for _, want := range []string{"is down", "is back"} {
		if n := strings.Count(log.String(), want); n != 2 {
			t.Errorf("%q stands %d times in the log, want twice:\n%s", want, n, &log)
		}
	}
}

// TestReadFailure: a read clears what a read found.
func TestReadFailure(t *testing.T) {
	s, ctx := newShared(t, 1)[0], t.Context()
	b := &shaky{backend: s.backend}
	s.backend = b
	must(t, s.Store(ctx, siteKey, []byte("x")))
	b.set(errors.New("away"))
	if _, err := s.Load(ctx, siteKey); err == nil || s.Health() == nil || !s.watch.downNow() {
		t.Errorf("got %v, health %v", err, s.Health())
	}
	b.set(nil)
	_, err := s.Load(ctx, siteKey)
	must(t, err)
	must(t, s.Health())
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShared(t, 1)[0]
		b := &shaky{backend: s.backend}
		s.backend = b
		var log bytes.Buffer
		s.log = slog.New(slog.NewTextHandler(&log, nil))
		plain := "certificates/i/n/n.key"
		must(t, b.store(t.Context(), plain, []byte("plain")))
		s.sealer = newTestSealer(t, true, newKeyFile(t))
		b.set(errors.New("away"))

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		if err := s.Health(); err == nil || !strings.Contains(err.Error(), "away") {
			t.Errorf("Health: %v", err)
		}
		if !s.watch.downNow() {
			t.Error("not down now")
		}
		<-time.After(time.Minute)
		if !s.watch.downNow() {
			t.Error("not down any more, without anything having changed")
		}
		b.set(nil)
		<-time.After(2 * probeEvery)
		synctest.Wait()
		if err := s.Health(); err != nil {
			t.Errorf("Health: %v", err)
		}
		// The daily round came as soon as it could.
		if record, err := b.load(t.Context(), plain); err != nil || !s.sealer.fresh(record) {
			t.Errorf("not encrypted: %q, %v", record, err)
		}
		cancel()
		must(t, <-ended)
		for _, want := range []string{"is down", "is back", "down=1m"} {
			if n := strings.Count(log.String(), want); n != 1 {
				t.Errorf("%q stands %d times in the log:\n%s", want, n, &log)
			}
		}
	})
}
