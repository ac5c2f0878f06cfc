package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// patience is the longest that Record waits for its line to be written.
	patience = 5 * time.Second
	// maxQueue bounds what waits to be written: some 16 MiB of lines.
	maxQueue = 1 << 15
	// maxPosted leaves the other half of the queue to logins, which wait for their records.
	maxPosted = maxQueue / 2
	// sayEvery is how often lost records are said to be lost.
	sayEvery = 10 * time.Second
)

// A Log writes records. It is made once and outlives every configuration; all its methods may be called at once.
// Until the first Use it records nothing, and lets everything pass.
type Log struct {
	node    string
	log     *slog.Logger
	metrics *metrics

	stdout  *output
	change  sync.Mutex // held while view changes
	view    atomic.Pointer[View]
	queue   queue
	entries sync.Pool
	refused refusals
	dovecot lines
	batch   []byte // the writer's

	start   time.Time             // the zero of the times below
	writing atomic.Int64          // when the write under way began; 0 is none
	said    atomic.Int64          // when lost records were last said to be lost
	lost    atomic.Int64          // how many were since
	broken  atomic.Pointer[error] // why the last write failed; nil if it did not
}

// New returns a Log for the gateway called node. A nil log logs nothing, a nil reg registers nothing.
// It writes once Run runs.
func New(node string, log *slog.Logger, reg prometheus.Registerer) *Log {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Log{node: node, log: log, start: time.Now().Add(-sayEvery)}
	l.stdout = &output{w: unclosed{os.Stdout}, looked: true}
	l.queue.wake = make(chan struct{}, 1)
	l.dovecot.wake = make(chan struct{}, 1)
	l.entries.New = newEntry
	l.metrics = newMetrics(reg, l.queue.len)
	return l
}

// A View is the audit as one configuration wants it. Use takes it, once; the file of a View that is never used is
// closed when the View is collected.
type View struct {
	config  Config
	out     *output // nil writes nothing
	dovecot *output // and so here
}

// Prepare opens what c names, which has passed Validate, and changes nothing of what runs.
func (l *Log) Prepare(c Config) (*View, error) {
	v := &View{config: c}
	var err, err2 error
	switch c.Path {
	case "":
	case Standard:
		v.out = l.stdout
	default:
		v.out, err = openOutput("audit.path", c.Path)
	}
	if c.DovecotLog != "" {
		v.dovecot, err2 = openOutput("audit.dovecot_log", c.DovecotLog)
	}
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	return v, nil
}

// Use puts v in force: what is written from now on goes where v says. What was open before is closed.
func (l *Log) Use(v *View) {
	l.change.Lock()
	defer l.change.Unlock()
	old := l.view.Swap(v)
	if old == nil {
		return
	}
	// A write under way ends first, or fails and is done again in the new file.
	old.out.close()
	old.dovecot.close()
}

// Reopen opens the files by their names again, for whoever renamed them, and only then closes those open until now.
// One for which that fails stays in use. There is nothing to do for standard output.
func (l *Log) Reopen() error {
	l.change.Lock()
	defer l.change.Unlock()
	v := l.view.Load()
	if v == nil {
		return nil
	}
	n := *v
	var problems []error
	again := func(key string, o **output) {
		if *o == nil || *o == l.stdout {
			return
		}
		opened, err := openOutput(key, (*o).path)
		if err != nil {
			problems = append(problems, fmt.Errorf("%w; the file open until now stays in use", err))
			return
		}
		*o = opened
	}
	again("audit.path", &n.out)
	again("audit.dovecot_log", &n.dovecot)
	l.view.Store(&n)
	if n.out != v.out {
		v.out.close()
	}
	if n.dovecot != v.dovecot {
		v.dovecot.close()
	}
	return errors.Join(problems...)
}

// Record writes e and returns when it is written. When it cannot be written, or not within 5 seconds or ctx's
// deadline, it is taken back from the queue and on_failure decides: an error for refuse, nil for drop. That ctx was
// cancelled loses no record: a session that is being ended is what an audit is for.
func (l *Log) Record(ctx context.Context, e *Event) error {
	v := l.view.Load()
	l.tell(v, e)
	if v.skips(e) {
		return nil
	}
	err := l.record(ctx, e)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("write audit record %s: %w", e.Name, err)
	l.fail(err)
	if v.config.OnFailure == Drop {
		return nil
	}
	return err
}

// Post queues e and never waits. A record that finds the queue full, or cannot be written, is lost and counted.
func (l *Log) Post(e *Event) {
	v := l.view.Load()
	l.tell(v, e)
	if v.skips(e) {
		return
	}
	if err := l.push(l.entries.Get().(*entry), e, false); err != nil {
		l.fail(fmt.Errorf("write audit record %s: %w", e.Name, err))
	}
}

// Refused counts a connection turned away into the next connections.refused of its kind.
func (l *Log) Refused(r Refusal) {
	if v := l.view.Load(); v != nil && v.out != nil {
		l.refused.add(r)
	}
}

// skips says that e is not wanted.
func (v *View) skips(e *Event) bool {
	return v == nil || v.out == nil || e.Name == SessionOpened && !v.config.SessionOpened
}

// Trouble says why records cannot be written now: the last write failed, or hangs. It is nil while all is well.
func (l *Log) Trouble() error {
	if l.hangs() {
		return errHangs
	}
	if err := l.broken.Load(); err != nil {
		return *err
	}
	return nil
}

func (l *Log) hangs() bool {
	since := l.writing.Load()
	return since != 0 && l.now()-since > int64(patience)
}

func (l *Log) record(ctx context.Context, ev *Event) error {
	if l.hangs() {
		return errHangs // or every login of a hung disk would wait in turn
	}
	e := l.entries.Get().(*entry)
	if err := l.push(e, ev, true); err != nil {
		return err
	}
	wait := patience
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	e.timer.Reset(wait)
	select {
	case err := <-e.done:
		e.timer.Stop()
		l.entries.Put(e)
		return err
	case <-e.timer.C:
	}
	if !e.state.CompareAndSwap(queued, withdrawn) {
		// It is being written, and may yet end up in the file.
		select {
		case err := <-e.done:
			return err
		default:
		}
	}
	return errSlow // the writer may still hold e: it is not used again
}

// push encodes ev into e and queues it, or puts e back.
func (l *Log) push(e *entry, ev *Event, wait bool) error {
	most := maxPosted
	if wait {
		most = maxQueue
	}
	err := e.encode(l.node, ev)
	if err == nil {
		e.wait = wait
		e.state.Store(queued)
		err = l.queue.push(e, most)
	}
	if err != nil {
		l.entries.Put(e)
	}
	return err
}

// fail counts a record that is lost, and says so once a while.
func (l *Log) fail(err error) {
	l.metrics.failures.Inc()
	l.lost.Add(1)
	now, said := l.now(), l.said.Load()
	if now-said < int64(sayEvery) || !l.said.CompareAndSwap(said, now) {
		return
	}
	l.log.Error("audit records lost", slog.Any("error", err), slog.Int64("records", l.lost.Swap(0)))
}

// now is never 0: start lies back in time.
func (l *Log) now() int64 { return int64(time.Since(l.start)) }
