package wforce

import (
	"context"
	"iter"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// A scribe is a Service that answers what it is told to and writes down what it is asked.
type scribe struct {
	status    atomic.Int64
	fails     atomic.Pointer[error]
	questions chan Question
	reports   chan reported
	resets    chan forgotten
}

type reported struct {
	q Question
	o Outcome
}

type forgotten struct {
	addr  netip.Addr
	login string
}

func newScribe() *scribe {
	return &scribe{questions: make(chan Question, 1000), reports: make(chan reported, 10000), resets: make(chan forgotten, 100)}
}

func (s *scribe) err() error {
	if e := s.fails.Load(); e != nil {
		return *e
	}
	return nil
}

func (s *scribe) Allow(_ context.Context, q *Question) (int, error) {
	s.questions <- *q
	return int(s.status.Load()), s.err()
}

func (s *scribe) Report(_ context.Context, q *Question, o Outcome) error {
	s.reports <- reported{*q, o}
	return s.err()
}

func (s *scribe) Reset(_ context.Context, addr netip.Addr, login string) error {
	s.resets <- forgotten{addr, login}
	return s.err()
}

// asked gives what was asked for one login: before the password is checked, and after it where that was right.
func (s *scribe) asked(t *testing.T, twice bool) iter.Seq[Question] {
	return func(yield func(Question) bool) {
		times := 1
		if twice {
			times = 2
		}
		for range times {
			if !yield(next(t, s.questions)) {
				return
			}
		}
	}
}

func (s *scribe) reported(t *testing.T) reported { return next(t, s.reports) }

func next[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("it was not asked")
		panic("unreachable")
	}
}

// secretFile is a file with a line.
func secretFile(t testing.TB, line string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// newTestServer serves s to who says s3cret or k3y.
func newTestServer(t testing.TB, s Service) http.Handler {
	t.Helper()
	srv := NewServer(s, nil, nil)
	c := DefaultServerConfig()
	c.PasswordFile, c.APIKeyFile = secretFile(t, "s3cret"), secretFile(t, "k3y")
	v, err := srv.Prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	srv.Use(v)
	return srv
}
