package audit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// maxLines bounds in bytes the lines in Dovecot's shape that wait to be written: some 5,000 failed logins.
const maxLines = 1 << 20

var errLinesFull = errors.New("too many lines wait to be written")

// lines are those in Dovecot's shape that wait. They have a writer of their own: nobody waits for them, and where their file
// hangs or its disk is full the records go on.
type lines struct {
	mu      sync.Mutex
	pending []byte
	count   int
	spare   []byte        // what the writer had last, to be filled again
	wake    chan struct{} // holds one
	said    time.Time     // when the log last spoke of lost ones
}

// tell queues e's line in Dovecot's shape, where such lines are wanted.
func (l *Log) tell(v *View, e *Event) {
	if v == nil || v.dovecot == nil {
		return
	}
	d := &l.dovecot
	d.mu.Lock()
	before := len(d.pending)
	full := before >= maxLines
	if !full {
		d.pending = appendDovecotLine(d.pending, l.node, e)
	}
	added := len(d.pending) > before
	if added {
		d.count++
	}
	d.mu.Unlock()
	switch {
	case added:
		select {
		case d.wake <- struct{}{}:
		default:
		}
	case full && e.Name == LoginRefused && e.Reason.guess():
		l.lostLines(1, errLinesFull)
	}
}

// take empties the lines. What it returns is the writer's until it calls take again.
func (d *lines) take() (text []byte, count int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	text, count = d.pending, d.count
	d.pending, d.spare, d.count = d.spare[:0], text, 0
	return text, count
}

// runDovecot writes the lines until ctx ends, then those that are left, and closes their file.
func (l *Log) runDovecot(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-l.dovecot.wake:
			l.writeDovecot()
		case <-ctx.Done():
		}
	}
	l.writeDovecot()
	l.change.Lock()
	defer l.change.Unlock()
	if v := l.view.Load(); v != nil {
		v.dovecot.close()
	}
}

func (l *Log) writeDovecot() {
	text, count := l.dovecot.take()
	if len(text) == 0 {
		return
	}
	if _, err := l.append(text, func(v *View) *output { return v.dovecot }); err != nil {
		l.lostLines(count, err) // some of them may have been written
	}
}

// lostLines counts lines that are lost, and says so once a while.
func (l *Log) lostLines(count int, err error) {
	l.metrics.dovecot.Add(float64(count))
	l.dovecot.mu.Lock()
	say := time.Since(l.dovecot.said) >= sayEvery
	if say {
		l.dovecot.said = time.Now()
	}
	l.dovecot.mu.Unlock()
	if say {
		l.log.Error("failed logins not written for fail2ban; logins go on", "key", "audit.dovecot_log", slog.Any("error", err))
	}
}
