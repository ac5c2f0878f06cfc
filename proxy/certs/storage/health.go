package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	probeEvery = 5 * time.Second
	probeTime  = 3 * time.Second
	// writeEvery is how often a write is tried where that costs more than a question, as long as all is well.
	writeEvery = time.Minute
	// downFor is how long after a failure copies are served without asking: until the next probe has surely ended.
	downFor = 2 * probeEvery
)

var upDesc = prometheus.NewDesc("popgate_certificate_storage_up",
	"Whether the certificate storage answers and takes writes (1) or not (0), by its type.", []string{"type"}, nil)

func newErrors() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "popgate_certificate_storage_errors_total",
		Help: "Requests to the certificate storage that failed, by operation.",
	}, []string{"operation"})
}

// A side of the storage: one that can be read may all the same take no writes, as a replica, a standby and a full disk do.
type side int

const (
	reading side = iota
	writing
)

// sideOf is what an operation that failed tells of.
func sideOf(operation string) side {
	switch operation {
	case "load", "stat", "list":
		return reading
	}
	return writing
}

// watch knows whether the storage is up, from what was last asked of it.
type watch struct {
	kind   string
	last   *atomic.Pointer[state]
	errors *prometheus.CounterVec
}

type state struct {
	sides [2]struct {
		err  error // of the last request; nil: it was served
		seen time.Time
	}
	since time.Time
}

// err is nil if the storage is up, on both sides.
func (s *state) err() error {
	if err := s.sides[reading].err; err != nil {
		return err
	}
	return s.sides[writing].err
}

func newWatch(kind string) watch {
	w := watch{kind: kind, last: new(atomic.Pointer[state]), errors: newErrors()}
	w.last.Store(&state{})
	return w
}

// saw notes an answer, and says whether the storage went down or came back with it.
func (w watch) saw(of side, err error) (before *state, changed bool) {
	now := time.Now()
	for {
		old := w.last.Load()
		next := *old
		next.sides[of].err, next.sides[of].seen = err, now
		changed := (old.err() == nil) != (next.err() == nil)
		if changed {
			next.since = now
		}
		if w.last.CompareAndSwap(old, &next) {
			return old, changed
		}
	}
}

// downNow says that it is no use to read. Where only writes fail, the storage knows better than a copy.
func (w watch) downNow() bool {
	s := w.last.Load().sides[reading]
	return s.err != nil && time.Since(s.seen) < downFor
}

// failure is an error of the storage. Whatever its cause is, it never means that a record is not there: a socket or a
// password file that is missing must not have certificates ordered anew.
type failure struct{ err error }

// Error is the cause's.
func (f failure) Error() string { return f.err.Error() }

// Is says what else the error is.
func (f failure) Is(target error) bool { return target != fs.ErrNotExist && errors.Is(f.err, target) }

// asked notes how a request to the backend ended, and gives its error. What says nothing about the storage is not counted: a record that
// is not there, a caller that would not wait. A success clears failures of its own kind only.
func (s *Store) asked(ctx context.Context, operation string, err error) error {
	switch {
	case err == nil, err == fs.ErrNotExist:
		s.served(operation)
		return err
	case ctx.Err() != nil, errors.Is(err, errLost), errors.Is(err, errNotHeld), errors.Is(err, ErrUnreadable):
	default:
		s.watch.errors.WithLabelValues(operation).Inc()
		s.note(sideOf(operation), err)
	}
	return failure{err}
}

func (s *Store) served(operation string) {
	switch operation {
	case "delete", "unlock": // what is full lets go all the same
	default:
		s.note(sideOf(operation), nil)
	}
}

func (s *Store) note(of side, err error) {
	before, changed := s.watch.saw(of, err)
	switch {
	case changed && err != nil:
		s.log.Error("certificate storage is down: certificates at hand are served on, none is obtained or renewed", "type", s.watch.kind, "error", err)
	case changed:
		s.log.Info("certificate storage is back", "type", s.watch.kind, "down", time.Since(before.since).Round(time.Second).String())
	}
}

// Health says at once what is known: nil if the storage is up, as far as was asked. Run asks every 5 seconds.
func (s *Store) Health() error {
	last := s.watch.last.Load()
	err := last.err()
	if err == nil {
		return nil
	}
	return fmt.Errorf("down since %s: %w", last.since.Format(time.RFC3339), err)
}

// Probe asks the storage whether it can be read and takes writes, for three seconds at most.
func (s *Store) Probe(ctx context.Context) error {
	probing, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	_, err := s.backend.load(probing, "probe")
	if err = s.asked(ctx, "load", err); err != nil && err != fs.ErrNotExist {
		return err
	}
	err = s.backend.health(probing)
	if w, ok := s.backend.(tryWriter); ok && err == nil && s.writeDue(time.Now()) {
		if err = w.tryWrite(probing); err == nil {
			s.wrote.Store(time.Now().UnixNano())
		}
	}
	return s.asked(ctx, "probe", err)
}

// A tryWriter is a backend whose health does not write, and which does so apart: rights, space and whoever has to confirm a write show in
// nothing else.
type tryWriter interface {
	tryWrite(ctx context.Context) error
}

// writeDue says whether a write should be tried: once in writeEvery, and each time while writes fail.
func (s *Store) writeDue(now time.Time) bool {
	return s.watch.last.Load().sides[writing].err != nil || now.Sub(time.Unix(0, s.wrote.Load())) >= writeEvery
}

// Run looks after the storage until ctx ends: it has copies kept from now on, asks every 5 seconds whether it is up, encrypts with the first key what is not, and deletes copies
// of what is no more.
func (s *Store) Run(ctx context.Context) error {
	s.copying.Store(true)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var tidied time.Time
	for {
		if s.Probe(ctx) == nil && time.Since(tidied) > 24*time.Hour && s.tidy(ctx) {
			tidied = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tidy does what is due once a day, and says whether it could.
func (s *Store) tidy(ctx context.Context) bool {
	if s.sealer.several() {
		n, left, err := s.Reseal(ctx)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				s.log.Warn("certificate storage: encrypt all with the first key", "done", n, "error", err)
			}
			return false
		case n > 0 && left == 0:
			s.log.Info("certificate storage: all is encrypted with the first of encryption_key_files now, the others and accept_plaintext are not needed "+
				"any more once all gateways have it first", "records", n)
		case left > 0:
			s.log.Warn("certificate storage: some records cannot be read", "records", left)
		}
	}
	if s.copies == nil {
		return true
	}
	if err := s.copies.prune(ctx, s.backend); err != nil {
		s.log.Warn("certificate storage: tidy the local copies", "error", err)
	}
	return true
}

// A sweeper is a backend whose locks do not go away by themselves.
type sweeper interface {
	// sweep deletes locks that ran out before a time, and says how many.
	sweep(ctx context.Context, before time.Time) (int, error)
}

// DropStaleLocks deletes locks that ran out that long ago, which killed gateways left behind, and says how many.
func (s *Store) DropStaleLocks(ctx context.Context, age time.Duration) (int, error) {
	w, ok := s.backend.(sweeper)
	if !ok {
		return 0, nil
	}
	n, err := w.sweep(ctx, time.Now().Add(-age))
	return n, wrap("clean", lockFolder, s.asked(ctx, "delete", err))
}

// Reseal encrypts with the first key all that is not. It says how many records it did, and how many it left because they cannot be read.
// What is written meanwhile is not touched.
func (s *Store) Reseal(ctx context.Context) (done, unreadable int, err error) {
	keys, err := s.backend.keys(ctx, "", true)
	if err != nil {
		return 0, 0, err
	}
	for _, key := range keys {
		record, err := s.backend.load(ctx, key)
		err = s.asked(ctx, "load", err)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && s.sealer.fresh(record):
			continue
		case err != nil:
			return done, unreadable, err
		}
		value, err := s.sealer.open(key, record)
		if err != nil {
			unreadable++
			s.log.Warn("certificate storage: record left as it is", "error", err)
			continue
		}
		replaced, err := s.backend.replace(ctx, key, record, s.sealer.seal(key, value))
		if err != nil {
			return done, unreadable, err
		}
		if replaced {
			done++
		}
	}
	return done, unreadable, nil
}

// Describe sends the descriptions of any Store's metrics, for collectors that outlive a Store.
func Describe(ch chan<- *prometheus.Desc) {
	ch <- upDesc
	newErrors().Describe(ch)
}

// Describe sends the descriptions of the storage's metrics (prometheus.Collector).
func (s *Store) Describe(ch chan<- *prometheus.Desc) { Describe(ch) }

// Collect sends the storage's metrics (prometheus.Collector).
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	up := 1.0
	if s.Health() != nil {
		up = 0
	}
	ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up, s.watch.kind)
	s.watch.errors.Collect(ch)
}
