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
	mu  sync.Mutex
	err error
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
