package proxy

import (
	"bytes"
	"context"
	"sync"
	"time"
)

// braking is the part of a visit that says how long what has passed makes a session wait.
type braking interface {
	// Paced says which directions are slowed down at all.
	Paced() (download, commands bool)
	// Download and Commands tell of so many octets, or commands, that have passed.
	Download(ctx context.Context, n int) time.Duration
	Commands(ctx context.Context, n int) time.Duration
}

// A brake has a relay wait where more has passed than may pass now. It refuses nothing and writes nothing: what is not
// read meanwhile stays with the peer that sends it, and no buffer is held for it. A relay without limits has no brake.
type brake struct {
	gate               braking
	download, commands bool
	before             int           // commands of the login, which count too
	due                time.Duration // when the next command may pass, since the session began; the upload's
	over               chan struct{} // closed once nothing is to wait any more
	once               sync.Once
}

// Waits out of these bounds have the download read less at once, or more: as much as comes in about a quarter of a second, so
// that a slow session gets its mail in many small pieces and not in a few large ones.
const (
	shortWait = 100 * time.Millisecond
	longWait  = 500 * time.Millisecond
	firstRead = 16 << 10
	leastRead = 2 << 10
)

// newBrake makes the brake of a session after a login of so many commands, nil where there is nothing to slow down.
func newBrake(gate braking, commands int) *brake {
	b := &brake{gate: gate, before: commands}
	if b.download, b.commands = gate.Paced(); !b.download && !b.commands {
		return nil
	}
	b.over = make(chan struct{})
	return b
}

// slow puts a brake, which may be nil, into a relay that has not begun.
func (r *relay) slow(b *brake) {
	r.brake = b
	if b != nil && b.download {
		r.down.most = firstRead
	}
}

// release ends all waiting, for good. A nil brake has none.
func (b *brake) release() {
	if b != nil {
		b.once.Do(func() { close(b.over) })
	}
}

// released says that nothing waits any more.
func (b *brake) released() bool {
	select {
	case <-b.over:
		return true
	default:
		return false
	}
}

// delivered is told of octets that have gone to the client, and waits until the next may be read.
func (r *relay) delivered(ctx context.Context, n int) {
	if r.brake == nil || !r.brake.download || n == 0 || r.brake.released() {
		return
	}
	wait := r.brake.gate.Download(ctx, n)
	switch {
	case wait > longWait:
		r.down.most = max(r.down.most/2, leastRead)
	case wait < shortWait && n >= r.down.most:
		r.down.most = min(r.down.most*2, chunkSize)
	}
	if wait > 0 {
		r.s.gw.metrics.paced.download.Add(r.hold(&r.down, wait).Seconds())
	}
}

// send passes on what came from the client: line by line where commands are slowed down, each once it may pass. The wait is
// before a command and not behind the last, so that the end of a client who sends no more is seen at once.
func (r *relay) send(ctx context.Context, p []byte) error {
	b := r.brake
	if b == nil || !b.commands {
		return r.forward(p)
	}
	for kept := false; len(p) > 0; {
		if b.before > 0 {
			r.passed(ctx, b.before)
			b.before = 0
		}
		if wait := b.due - time.Since(r.s.began); wait > 0 && !b.released() {
			if !kept {
				p, kept = bytes.Clone(p), true
			}
			r.s.gw.metrics.paced.commands.Add(r.hold(&r.up, wait).Seconds())
		}
		line := p
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			line = p[:i+1]
		}
		p = p[len(line):]
		seen := r.seen.Commands
		if err := r.forward(line); err != nil {
			return err
		}
		if n := r.seen.Commands - seen; n > 0 {
			r.passed(ctx, n)
		}
	}
	return nil
}

// passed tells the gate of commands, and notes when the next may follow.
func (r *relay) passed(ctx context.Context, n int) {
	if !r.brake.released() {
		r.brake.due = r.brake.gate.Commands(ctx, n) + time.Since(r.s.began)
	}
}

// hold has a lane wait, and says how long it has. The session is no silent one meanwhile: it is we who keep it.
func (r *relay) hold(l *lane, wait time.Duration) time.Duration {
	began := time.Since(r.s.began)
	l.until.Store(int64(began + wait))
	l.park()
	timer := time.NewTimer(wait)
	select {
	case <-timer.C:
	case <-r.brake.over:
		timer.Stop()
	}
	l.until.Store(0)
	r.moved(l)
	return l.moved - began
}
