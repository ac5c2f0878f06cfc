package access

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// watchEvery is how often a file is looked at. Watches on its directory would see nothing on network file systems, and lose the
// file when a symlink on the way to it is turned.
const watchEvery = 5 * time.Second

// maxFile bounds a file: all of a list is in it once, and the largest databases of countries have 20 MB.
const maxFile = 512 << 20

// contents is what is made of a file.
type contents interface {
	// size counts what the file holds.
	size() int
}

// A parser makes contents of an open file.
type parser[T contents] func(r io.Reader) (T, error)

// A source is a file that can be looked at anew.
type source interface {
	// look takes the file up if it has changed. Unless that is to be at once, it must have been the same at two looks in a row:
	// somebody may be writing it.
	look(atOnce bool)
	// failure says why the file as it is now is not in force; nil where it is.
	failure() error
	// entries counts what is in force.
	entries() int
}

// A file holds what was made of a file last. Any number of goroutines may use it.
type file[T contents] struct {
	path  string
	parse parser[T]
	log   *slog.Logger

	now     atomic.Pointer[T]
	trouble atomic.Pointer[error]

	mu     sync.Mutex  // of one look at the file
	tried  os.FileInfo // as it was when it was read last, with success or not
	seen   os.FileInfo // at the last look
	unread bool        // it could not be read, which may heal without a sign from outside
}

// open reads the file for the first time. Its error says what is wrong with it.
func open[T contents](path string, parse parser[T], log *slog.Logger) (*file[T], error) {
	f := &file[T]{path: path, parse: parse, log: log}
	t, info, _, err := f.read()
	if err != nil {
		return nil, err
	}
	f.tried, f.seen = info, info // where it has changed meanwhile, one of the next looks takes it up
	f.now.Store(&t)
	return f, nil
}

func (f *file[T]) current() T { return *f.now.Load() }

func (f *file[T]) entries() int { return f.current().size() }

func (f *file[T]) failure() error {
	if err := f.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

func (f *file[T]) look(atOnce bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := stat(f.path)
	settled := atOnce || same(now, f.seen)
	f.seen = now
	if settled && (f.unread || !same(now, f.tried)) {
		f.take()
	}
}

// take reads the file and puts it in force if it is good. The caller holds the lock.
func (f *file[T]) take() {
	t, info, changed, err := f.read()
	if changed {
		return // half a file may be good or bad, and neither means anything
	}
	if err == nil && info.Size() == 0 && f.entries() > 0 {
		err = fmt.Errorf("%s has become empty, and so looks cut off: leave a line with a comment in it if it is to be empty", f.path)
	}
	f.tried = info
	_, f.unread = errors.AsType[*fs.PathError](err)
	if err != nil {
		said := f.failure()
		f.trouble.Store(&err)
		if said == nil || said.Error() != err.Error() {
			f.log.Error("changed access file not taken, the one before stays in force", "path", f.path, "error", err)
		}
		return
	}
	f.now.Store(&t)
	f.trouble.Store(nil)
	f.log.Info("access file reloaded", "path", f.path, "entries", t.size())
}

// read makes of the file what can be made. It says what the file was like before, and whether it has changed since.
func (f *file[T]) read() (t T, info os.FileInfo, changed bool, err error) {
	// Opening a FIFO would wait for a writer, and a device may never end.
	if info, err = os.Stat(f.path); err != nil {
		return t, nil, false, unreadable(err)
	}
	if !info.Mode().IsRegular() {
		return t, info, false, fmt.Errorf("%s is no ordinary file: write the path of one", f.path)
	}
	opened, err := os.Open(f.path)
	if err != nil {
		return t, info, false, unreadable(err)
	}
	defer func() { _ = opened.Close() }()
	if info, err = opened.Stat(); err != nil {
		return t, info, false, unreadable(err)
	}
	if info.Size() > maxFile {
		return t, info, false, fmt.Errorf("%s has %d bytes, and more than %d are not taken", f.path, info.Size(), maxFile)
	}
	t, err = f.parse(io.LimitReader(opened, maxFile))
	if err != nil {
		err = fmt.Errorf("read %s: %w", f.path, err)
	}
	return t, info, !same(info, stat(f.path)), err
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
