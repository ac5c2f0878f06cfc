package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/auth"
)

// Why a source was not asked, or has not answered.
var (
	errClosed = errors.New("the directory is closed")
	errTurn   = errors.New("too many lookups are under way")
)

// An asker asks one source: so many at a time, each within its time, and holds the answers to what they may say.
type asker struct {
	name    string
	source  Opened
	timeout time.Duration
	slots   chan struct{}
	checker checker
	health  health
	stats   *stats
	log     *slog.Logger

	base   context.Context // of all lookups; ended by close
	end    context.CancelFunc
	mu     sync.Mutex
	closed bool
	flying sync.WaitGroup // lookups under way
}

// newAsker makes what asks source as c says; c is valid.
func newAsker(c *Config, source Opened, s *stats, log *slog.Logger) *asker {
	a := &asker{name: c.Name, source: source, timeout: c.Timeout, slots: make(chan struct{}, c.Lookups), stats: s, log: log}
	a.base, a.end = context.WithCancel(context.Background())
	for _, text := range c.AllowedServers {
		if one, err := parseAllowed(text); err == nil { // Validate has reported the others
			a.checker.allowed = append(a.checker.allowed, one)
		}
	}
	return a
}

// deadline is the time of one lookup, which goes on when whoever wanted it has left.
func (a *asker) deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(a.base, a.timeout)
}

// begin counts a lookup that is about to be made, which ends with flying.Done. It is false once the source is closed.
func (a *asker) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.flying.Add(1)
	}
	return !a.closed
}

// close ends the lookups under way and closes the source when they have ended.
func (a *asker) close() error {
	a.mu.Lock()
	again := a.closed
	a.closed = true
	a.mu.Unlock()
	if again {
		return nil
	}
	a.end()
	a.flying.Wait()
	if err := a.source.Close(); err != nil {
		return fmt.Errorf("close directory %s: %w", a.name, err)
	}
	return nil
}

// down makes the error of a source that could not answer.
func (a *asker) down(cause error) error {
	return fmt.Errorf("%w: directory %s: %w", auth.ErrDirectoryDown, a.name, cause)
}

// late is the error of a source that neither answers in time nor ends.
func (a *asker) late(user string) error {
	err := a.down(fmt.Errorf("no answer within %s: %w", a.timeout, context.DeadlineExceeded))
	a.ill(err, user)
	return err
}

// well notes that the source answered; the log has it when it was down before.
func (a *asker) well() {
	if a.health.good() {
		a.log.Info("a directory answers again", "directory", a.name)
	}
}

// ill notes that the source failed; the log has it once, when it counts as down.
func (a *asker) ill(err error, user string) {
	if a.health.bad(err, user) {
		a.log.Error("a directory is down: users who are remembered go on, others are told to try later", "directory", a.name, "error", err)
	}
}

// ask waits for its turn and asks the source. Its error wraps auth.ErrUnknownUser, auth.ErrWrongPassword or
// auth.ErrDirectoryDown; beside auth.ErrWrongPassword the answer may have Wait.
func (a *asker) ask(ctx context.Context, q *auth.Query) (Answer, error) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		a.stats.asked(resultFailed, 0)
		return Answer{}, a.down(errTurn) // it may be well: it is not held against the source
	}
	return a.answer(ctx, q)
}

// answer asks the source without waiting.
func (a *asker) answer(ctx context.Context, q *auth.Query) (Answer, error) {
	began := time.Now()
	answer, err := a.call(ctx, q)
	took := time.Since(began)
	switch {
	case err == nil:
		a.well()
	case errors.Is(err, auth.ErrUnknownUser):
		a.well()
		a.stats.asked(resultUnknown, took)
		return Answer{}, err
	case errors.Is(err, auth.ErrWrongPassword):
		a.well()
		a.stats.asked(resultRefused, took)
		return Answer{Wait: answer.Wait}, err
	case errors.As(err, new(contentError)):
		a.well()
		a.stats.asked(resultBad, took)
		return Answer{}, a.down(err)
	default:
		err = a.down(err)
		if a.base.Err() == nil { // else it was ended by us
			a.ill(err, q.Name.Typed)
			a.stats.asked(resultFailed, took)
		}
		return Answer{}, err
	}
	if err := a.check(&answer, q); err != nil {
		a.stats.asked(resultBad, took)
		return Answer{}, err
	}
	a.stats.asked(resultFound, took)
	return answer, nil
}

// call asks the source. A slip in it costs one lookup.
func (a *asker) call(ctx context.Context, q *auth.Query) (answer Answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("a fault in popgate; please report it", "directory", a.name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			answer, err = Answer{}, fmt.Errorf("panic in the source: %v", p)
		}
	}()
	return a.source.Lookup(ctx, q)
}

// check holds an answer to what it may say.
func (a *asker) check(answer *Answer, q *auth.Query) error {
	if a.source.Vary&VarySecret == 0 {
		answer.Verified = false // who was not told the password cannot have checked it
	}
	if err := a.checker.check(answer); err != nil {
		return fmt.Errorf("%w: directory %s cannot be followed for user %q: %w", auth.ErrDirectoryDown, a.name, q.Name.Full(), err)
	}
	return nil
}

// A health is what is known of a source's being there. One that fails again and again, for different users, is asked once a
// moment only, so that nobody waits for what does not come.
type health struct {
	last atomic.Pointer[failure] // nil since the last answer
	next atomic.Int64            // when a broken source may be asked again, in Unix nanoseconds
}

// A failure is the last of those in a row, since the source last answered.
type failure struct {
	err    error
	user   string
	streak int // changes of users among them: one user alone can have a row that no source can read
}

// brokenAfter is how long a streak must be for a source to count as broken.
const brokenAfter = 5

// good notes that the source answered, and says that it was broken until then.
func (h *health) good() (back bool) {
	if h.last.Load() == nil {
		return false
	}
	f := h.last.Swap(nil)
	return f != nil && f.streak >= brokenAfter
}

// bad notes that the source failed, and says that it counts as broken from now on.
func (h *health) bad(err error, user string) (broken bool) {
	h.next.Store(time.Now().Add(retryEvery).UnixNano())
	for {
		earlier := h.last.Load()
		f := &failure{err: err, user: user, streak: 1}
		if earlier != nil {
			f.streak = earlier.streak
			if earlier.user != user {
				f.streak++
			}
		}
		if h.last.CompareAndSwap(earlier, f) {
			return f.streak == brokenAfter && (earlier == nil || earlier.streak < brokenAfter)
		}
	}
}

// failing says that the last lookup failed.
func (h *health) failing() bool { return h.last.Load() != nil }

// broken returns why there is no use in asking, nil where there is: so many lookups in a row failed.
func (h *health) broken() error {
	if f := h.last.Load(); f != nil && f.streak >= brokenAfter {
		return f.err
	}
	return nil
}

// probe says, once a moment, that it is time to see whether the source is back.
func (h *health) probe() bool {
	now := time.Now().UnixNano()
	next := h.next.Load()
	return now >= next && h.next.CompareAndSwap(next, now+int64(retryEvery))
}

// cause is why the last lookup failed; nil where it did not.
func (h *health) cause() error {
	if f := h.last.Load(); f != nil {
		return f.err
	}
	return nil
}
