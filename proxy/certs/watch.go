package certs

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settleTime is waited after the first event, so that certificate and key are both in place. It is not put off by further
	// events: a busy directory must not put it off for ever. What comes later makes another round.
	settleTime = 500 * time.Millisecond
	// recheckEvery catches what events do not show: network file systems, a renamed directory above, lost events.
	recheckEvery = 5 * time.Minute
)

// Run follows the files of the view in force, renews what the local CA issued and changes the ticket keys every 24 hours.
// It ends with ctx, without an error. It must run once beside the listeners.
func (k *Keeper) Run(ctx context.Context) error {
	w := &watcher{log: k.log, events: make(chan fsnotify.Event), errors: make(chan error)}
	if notify, err := fsnotify.NewWatcher(); err != nil {
		k.log.Warn("cannot watch certificate files, changes are seen within minutes or on reload "+
			"(raise fs.inotify.max_user_instances)",
			"error", err, "every", recheckEvery.String())
	} else {
		defer func() { _ = notify.Close() }()
		w.notify, w.events, w.errors = notify, notify.Events, notify.Errors
	}
	k.loop(ctx, w)
	return nil
}

func (k *Keeper) loop(ctx context.Context, w *watcher) {
	recheck := time.NewTicker(recheckEvery)
	defer recheck.Stop()
	daily := time.NewTicker(ticketLife)
	defer daily.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.events:
			if settled == nil {
				settled = time.After(settleTime)
			}
			continue
		case err := <-w.errors:
			// Mostly events lost to a full queue; the check below makes up for them.
			k.log.Warn("watch certificate files", "error", err)
		case <-settled:
			settled = nil
		case <-recheck.C:
		case <-k.used:
		case <-daily.C:
			k.rotateTickets()
			k.warnInfos(k.view.Load())
		}
		// Watch first: what changes while the files are read is then an event.
		w.follow(k.view.Load())
		k.check()
		// A link may have been turned between the two, to a directory not watched yet.
		w.follow(k.view.Load())
	}
}

// watcher watches directories, never files: a file that is replaced takes its watch with it.
type watcher struct {
	log    *slog.Logger
	notify *fsnotify.Watcher // nil where the system has no watch left
	events <-chan fsnotify.Event
	errors <-chan error
	warned bool
}

// follow watches the directories that the files of v depend on now, and no others.
func (w *watcher) follow(v *View) {
	if w.notify == nil || v == nil {
		return
	}
	want := make(map[string]bool)
	for _, p := range v.pairs {
		addDirs(want, p.files.Cert)
		addDirs(want, p.files.Key)
	}
	for _, dir := range w.notify.WatchList() {
		if !want[dir] {
			// It may be gone already, and its watch with it.
			_ = w.notify.Remove(dir)
		}
	}
	for dir := range want {
		// Adding a directory again renews a watch that was lost with an earlier directory of that name.
		if err := w.notify.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !w.warned {
			w.warned = true
			w.log.Warn("cannot watch a certificate directory, changes there are seen within minutes or on reload "+
				"(raise fs.inotify.max_user_watches)",
				"directory", dir, "error", err, "every", recheckEvery.String())
		}
	}
}

// maxLinks is where the kernel gives up following symlinks too.
const maxLinks = 40

// addDirs adds the directory of path and of each symlink on the way to the file: a link is swapped in its own directory
// (Kubernetes' ..data, certbot's live/).
func addDirs(dirs map[string]bool, path string) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return
	}
	links := 0
	done, todo := string(filepath.Separator), strings.TrimPrefix(abs, string(filepath.Separator))
	for todo != "" {
		// Done never holds a link, so Join may resolve a ".." by its letters.
		part, rest, more := strings.Cut(todo, string(filepath.Separator))
		here := filepath.Join(done, part)
		todo = rest
		if !more {
			dirs[done] = true
		}
		target, err := os.Readlink(here)
		if err != nil {
			done = here
			continue
		}
		dirs[done] = true
		if links++; links > maxLinks {
			return
		}
		if filepath.IsAbs(target) {
			done = string(filepath.Separator)
		}
		todo = strings.Trim(target+string(filepath.Separator)+rest, string(filepath.Separator))
	}
}
