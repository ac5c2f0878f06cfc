package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"
)

var (
	// errLost is what the holder of a lock hears when somebody else has it.
	errLost    = errors.New("the lock was lost: the storage was away for longer than a lock lasts, and somebody else took it")
	errNotHeld = errors.New("it is not held here")
)

const (
	leaseTime = 30 * time.Second
	lookAgain = 200 * time.Millisecond
)

// A leaser is what locks need of a storage. hold takes the lease of name for ttl if it is free, has run out, or is the
// token's already, and says whether the token has it now. release gives it up and says whether the token had it.
type leaser interface {
	hold(ctx context.Context, name, token string, ttl time.Duration) (bool, error)
	release(ctx context.Context, name, token string) (bool, error)
}

// locks makes locks of leases. Each lock held has a goroutine that renews its lease; Unlock or close ends it.
type locks struct {
	leaser leaser
	ttl    time.Duration
	log    *slog.Logger

	mu    sync.Mutex
	gates map[string]chan struct{} // by name, those that somebody here has or asks for; closed when that ends
	held  map[string]*lease
}

type lease struct {
	token string
	stop  context.CancelFunc
	done  chan struct{} // closed when nothing renews it any more
}

func newLocks(l leaser, ttl time.Duration, log *slog.Logger) *locks {
	return &locks{leaser: l, ttl: ttl, log: log, gates: make(map[string]chan struct{}), held: make(map[string]*lease)}
}

// enter lets one caller at a time ask for name: of a thousand handshakes that want the same certificate, one asks the storage.
func (ls *locks) enter(ctx context.Context, name string, wait bool) (bool, error) {
	for {
		ls.mu.Lock()
		gate := ls.gates[name]
		if gate == nil {
			ls.gates[name] = make(chan struct{})
			ls.mu.Unlock()
			return true, nil
		}
		ls.mu.Unlock()
		if !wait {
			return false, nil
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

func (ls *locks) leave(name string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	close(ls.gates[name])
	delete(ls.gates, name)
}

// lock takes the lock, or says that it did not, which without an error happens only where it is not to wait.
func (ls *locks) lock(ctx context.Context, name string, wait bool) (ok bool, err error) {
	if ok, err := ls.enter(ctx, name, wait); !ok {
		return false, err
	}
	defer func() {
		if !ok {
			ls.leave(name)
		}
	}()
	token := rand.Text()
	for {
		ok, err := ls.leaser.hold(ctx, name, token, ls.ttl)
		if err != nil {
			// It may be ours all the same, if only the answer was lost.
			ls.giveUp(ctx, name, token)
			if over := ended(ctx); over != nil {
				err = over
			}
			return false, err
		}
		if ok {
			ls.keep(name, token)
			return true, nil
		}
		if !wait {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(lookAgain + mathrand.N(lookAgain/2)): // apart from the other nodes
		}
	}
}

// ended is the error of a context that has ended. A connection has the same deadline and may notice it first, in words of its own.
func ended(ctx context.Context) error {
	if until, ok := ctx.Deadline(); ok && !time.Now().Before(until) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

func (ls *locks) giveUp(ctx context.Context, name, token string) {
	if _, err := ls.leaser.release(context.WithoutCancel(ctx), name, token); err != nil {
		ls.log.Debug("release a lock that was perhaps never taken", "lock", name, "error", err)
	}
}

func (ls *locks) keep(name, token string) {
	// Not the caller's context: certmagic unlocks after its own has ended.
	ctx, stop := context.WithCancel(context.Background())
	l := &lease{token: token, stop: stop, done: make(chan struct{})}
	ls.mu.Lock()
	ls.held[name] = l
	ls.mu.Unlock()
	go func() {
		defer close(l.done)
		ls.renew(ctx, name, token)
	}()
}

// renew keeps the lease alive until ctx ends or somebody else has it.
func (ls *locks) renew(ctx context.Context, name, token string) {
	tick := time.NewTicker(ls.ttl / 5) // so that a few may fail
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		ok, err := ls.leaser.hold(ctx, name, token, ls.ttl)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			ls.log.Debug("renew a lock", "lock", name, "error", err)
		case !ok:
			ls.log.Warn("certificate storage: a lock was lost to another node while this one was at work; it may be done twice", "lock", name)
			return
		}
	}
}

// check renews the lock now and fails if somebody else has it.
func (ls *locks) check(ctx context.Context, name string) error {
	ls.mu.Lock()
	l := ls.held[name]
	ls.mu.Unlock()
	if l == nil {
		return errNotHeld
	}
	ok, err := ls.leaser.hold(ctx, name, l.token, ls.ttl)
	if err == nil && !ok {
		err = errLost
	}
	return err
}

// unlock gives the lock up here in any case; an error means that others may have to wait until its lease has run out.
func (ls *locks) unlock(ctx context.Context, name string) error {
	ls.mu.Lock()
	l := ls.held[name]
	delete(ls.held, name)
	ls.mu.Unlock()
	if l == nil {
		return errNotHeld
	}
	l.stop()
	<-l.done
	defer ls.leave(name)
	had, err := ls.leaser.release(ctx, name, l.token)
	if err == nil && !had {
		err = errLost
	}
	return err
}

// close stops renewing. What is held runs out by itself.
func (ls *locks) close() {
	ls.mu.Lock()
	held := ls.held
	ls.held = make(map[string]*lease)
	for name := range held {
		close(ls.gates[name])
		delete(ls.gates, name)
	}
	ls.mu.Unlock()
	for _, l := range held {
		l.stop()
		<-l.done
	}
}
