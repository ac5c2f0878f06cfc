package audit

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

const (
	// maxBatch is how many bytes are gathered for one write, a line more or less.
	maxBatch = 64 << 10
	// summaryEvery is how often connections.refused are written.
	summaryEvery = 10 * time.Second
)

// Run writes what is recorded, until ctx ends; then it writes what is queued, closes the file and returns nil.
// Whatever is recorded after that fails. It is called once.
func (l *Log) Run(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.runDovecot(ctx)
	}()
	defer func() {
		select {
		case <-ended:
		case <-time.After(patience): // a file that hangs must not hold up the end
		}
	}()
	tick := time.NewTicker(summaryEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.queue.wake:
			l.write(l.queue.take())
		case <-tick.C:
			l.summarize()
			l.write(l.queue.take())
		case <-ctx.Done():
			l.summarize()
			l.write(l.queue.close())
			l.change.Lock()
			defer l.change.Unlock()
			if v := l.view.Load(); v != nil && v.out != nil {
				return v.out.w.Close()
			}
			return nil
		}
	}
}

// write writes entries, as many at once as have come together, and tells those who wait.
func (l *Log) write(entries []*entry) {
	for rest := entries; len(rest) > 0; {
		var some []*entry
		l.batch, some, rest = gather(l.batch[:0], rest)
		if len(some) == 0 {
			continue // all were withdrawn
		}
		n, err := l.commit(l.batch)
		if err == nil {
			l.broken.Store(nil)
		} else {
			l.broken.Store(&err)
		}
		for _, e := range some {
			l.settle(e, n, err)
		}
	}
	clear(entries) // or the queue's two lists would keep a burst's entries for ever
}

// gather puts the lines of entries into batch, up to maxBatch. Those that were not withdrawn come back in some.
func gather(batch []byte, entries []*entry) (_ []byte, some, rest []*entry) {
	some = entries[:0]
	for i, e := range entries {
		if len(batch) >= maxBatch {
			return batch, some, entries[i:]
		}
		if e.state.CompareAndSwap(queued, taken) {
			batch = append(batch, e.text.Bytes()...)
			e.end = len(batch)
			some = append(some, e)
		}
	}
	return batch, some, nil
}

// commit writes lines and says how many bytes of them are written.
func (l *Log) commit(lines []byte) (int, error) {
	l.writing.Store(l.now())
	defer l.writing.Store(0)
	return l.append(lines, func(v *View) *output { return v.out })
}

// append appends lines to one of the files in use and says how many bytes of them are written.
func (l *Log) append(lines []byte, file func(*View) *output) (int, error) {
	for n := 0; ; {
		v := l.view.Load()
		if v == nil || file(v) == nil {
			return len(lines), nil // turned off since they were queued
		}
		m, err := file(v).write(lines[n:])
		n += m
		if err == nil || l.view.Load() == v {
			return n, err
		}
		// The file was replaced and closed under the write: go on in the new one, with the line that was cut.
		n = bytes.LastIndexByte(lines[:n], '\n') + 1
	}
}

// settle ends e's way: it was written if its line ends within the n bytes that were. That only the line end is
// missing does not matter, for the next write begins with one.
func (l *Log) settle(e *entry, n int, err error) {
	if e.end-1 <= n {
		l.metrics.record(e.name)
		err = nil
	}
	if e.wait {
		e.done <- err
		return // whoever waits owns it from here
	}
	if err != nil {
		l.fail(fmt.Errorf("write audit record %s: %w", e.name, err))
	}
	l.entries.Put(e)
}

// summarize queues what Refused has counted.
func (l *Log) summarize() {
	for _, row := range l.refused.take() {
		l.Post(&Event{Name: ConnectionsRefused, Reason: row.Reason, Limit: row.Limit, Rule: row.Rule, Network: row.Network, Count: row.count})
	}
}
