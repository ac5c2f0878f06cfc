package audit

import (
	"context"
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
	l.entries.New = newEntry
	l.metrics = newMetrics(reg, l.queue.len)
	return l
}

// A View is the audit as one configuration wants it. Use takes it, once; the file of a View that is never used is
// closed when the View is collected.
type View struct {
	config Config
	out    *output // nil writes nothing
}

// Prepare opens what c names, which has passed Validate, and changes nothing of what runs.
func (l *Log) Prepare(c Config) (*View, error) {
	v := &View{config: c}
	switch c.Path {
	case "":
	case Standard:
		v.out = l.stdout
	default:
		var err error
		if v.out, err = openOutput(c.Path); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Use puts v in force: what is written from now on goes where v says. What was open before is closed.
func (l *Log) Use(v *View) {
	l.change.Lock()
	defer l.change.Unlock()
	if old := l.view.Swap(v); old != nil && old.out != nil {
		// A write under way ends first, or fails and is done again in the new file.
		_ = old.out.w.Close()
	}
}

// Reopen opens the file by its name again, for whoever renamed it, and only then closes the one open until now.
// If that fails the one open until now stays in use. There is nothing to do for standard output.
func (l *Log) Reopen() error {
	l.change.Lock()
	defer l.change.Unlock()
	v := l.view.Load()
	if v == nil || v.out == nil || v.out == l.stdout {
		return nil
	}
	out, err := openOutput(v.config.Path)
	if err != nil {
		return fmt.Errorf("%w; the file open until now stays in use", err)
	}
	l.view.Store(&View{config: v.config, out: out})
	_ = v.out.w.Close()
	return nil
}

// Record writes e and returns when it is written. When it cannot be written, or not within 5 seconds or ctx's
// deadline, it is taken back from the queue and on_failure decides: an error for refuse, nil for drop. That ctx was
// cancelled loses no record: a session that is being ended is what an audit is for.
func (l *Log) Record(ctx context.Context, e *Event) error {
	v := l.view.Load()
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
	if l.view.Load().skips(e) {
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
