package directory

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A Reloader is a source that looks for news when told to, as at SIGHUP, and not only when its own time has come.
type Reloader interface {
	// Reload looks at once. Its error is what Trouble says afterwards; what was in force before stays so.
	Reload() error
}

// A Troubled is a source that can say what is wrong with it while it goes on answering.
type Troubled interface {
	// Trouble is nil while all is well.
	Trouble() error
}

// A DomainLister is a source that can list the domains it has users in, so that certificates can be issued ahead.
type DomainLister interface {
	// Domains lists them in order, each as auth.Domain writes it.
	Domains() []string
}

// watchEvery is how often a file is looked at. Watches on its directory would see nothing on network file systems, and lose the
// file when a symlink on the way to it is turned.
const watchEvery = 5 * time.Second

// maxFile bounds a file; offsets into what is made of one have 32 bits.
const maxFile = 1 << 31

// contents is what is made of a file.
type contents interface {
	// entries counts what the file lists.
	entries() int
}

// watched holds what was made of a file last, and makes it anew when the file changes. Any number of goroutines may use it.
type watched[T contents] struct {
	name, path string
	parse      func(f *os.File, size int64) (T, error)
	log        *slog.Logger
	every      time.Duration

	now     atomic.Pointer[T]
	trouble atomic.Pointer[error]

	mu     sync.Mutex  // of one look at the file
	tried  os.FileInfo // when it was read last, with success or not
	seen   os.FileInfo // at the last look
	unread bool        // the file could not be read, which may heal without a sign from outside
}

// watch reads the file for the first time. Its error says what is wrong with the file.
func watch[T contents](name, path string, log *slog.Logger, parse func(f *os.File, size int64) (T, error)) (*watched[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	w := &watched[T]{name: name, path: path, parse: parse, log: log, every: watchEvery}
	// A file that is good and has changed since is taken up at one of the next looks.
	t, info, _, err := w.read()
	if err != nil {
		return nil, err
	}
	w.tried, w.seen = info, info
	w.now.Store(&t)
	if t.entries() == 0 {
		log.Warn("the file of a directory lists nobody", "path", path)
	}
	return w, nil
}

// current is what is in force.
func (w *watched[T]) current() *T { return w.now.Load() }

// Run looks at the file every few seconds until ctx ends.
func (w *watched[T]) Run(ctx context.Context) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.look()
		}
	}
}

// Reload takes up the file as it is now, unless it is as it was when it was read last.
func (w *watched[T]) Reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := stat(w.path)
	w.seen = now
	if w.unread || !same(now, w.tried) {
		w.take()
	}
	return w.Trouble()
}

// Trouble says why the file as it is now is not in force.
func (w *watched[T]) Trouble() error {
	if err := w.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Close does nothing: no file stays open.
func (w *watched[T]) Close() error { return nil }

// look takes up a file that has changed since it was read last, once it has been the same at two looks: somebody may be writing it.
func (w *watched[T]) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := stat(w.path)
	settled := same(now, w.seen)
	w.seen = now
	if settled && (w.unread || !same(now, w.tried)) {
		w.take()
	}
}

// take reads the file and puts it in force if it is good. The caller holds the lock.
func (w *watched[T]) take() {
	t, info, changed, err := w.read()
	if changed {
		return // half a file may be good or bad, and neither means anything
	}
	if err == nil && t.entries() == 0 && (*w.now.Load()).entries() > 0 {
		err = fmt.Errorf("%s lists nobody, and so looks like a file cut off: the users listed before are kept; for a directory without users, restart popgate", w.path)
	}
	w.tried = info
	_, w.unread = errors.AsType[*fs.PathError](err)
	if err != nil {
		said := w.Trouble()
		w.trouble.Store(&err)
		if said == nil || said.Error() != err.Error() {
			w.log.Error("changed file of a directory not taken, the one before stays in force", "path", w.path, "error", err)
		}
		return
	}
	w.now.Store(&t)
	w.trouble.Store(nil)
	w.log.Info("file of a directory reloaded", "path", w.path, "entries", t.entries())
}

// read makes of the file what can be made. It says what the file was like before, and whether it has changed since.
func (w *watched[T]) read() (t T, info os.FileInfo, changed bool, err error) {
	// Opening a FIFO would wait for a writer, and a device may never end.
	if info, err = os.Stat(w.path); err != nil {
		return t, nil, false, unreadable(err)
	}
	if !info.Mode().IsRegular() {
		return t, info, false, fmt.Errorf("%s is no ordinary file: write the path of one", w.path)
	}
	f, err := os.Open(w.path)
	if err != nil {
		return t, info, false, unreadable(err)
	}
	defer func() { _ = f.Close() }()
	if info, err = f.Stat(); err != nil {
		return t, info, false, unreadable(err)
	}
	if info.Size() > maxFile {
		return t, info, false, fmt.Errorf("%s has %d bytes, and more than %d are not taken: keep so many users in a database",
			w.path, info.Size(), maxFile)
	}
	t, err = w.parse(f, info.Size())
	return t, info, !same(info, stat(w.path)), err
}

// stat goes through symlinks, so a link that was turned to another file shows as another file. It is nil for what cannot be looked at.
func stat(path string) os.FileInfo {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	return info
}

// same says that a file looks the same from outside.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// unreadable says what to do about a file that cannot be read; err names it.
func unreadable(err error) error {
	advice := "see that it can be read"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		advice = "correct the path, or put the file there"
	case errors.Is(err, fs.ErrPermission):
		advice = fmt.Sprintf("let the user popgate runs as (uid %d) read it and enter its directory", os.Getuid())
	}
	return fmt.Errorf("%w: %s", err, advice)
}
