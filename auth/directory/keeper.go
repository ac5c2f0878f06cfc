package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/passwd"
)

// A Keeper keeps the directories over reloads. It is made once. Its methods may be called at once, except that reloads (Prepare,
// then Use) come one after another.
type Keeper struct {
	log       *slog.Logger
	passwords *passwd.Checker
	seconds   *prometheus.HistogramVec
	view      atomic.Pointer[View] // nil before the first Use

	mu      sync.Mutex
	open    map[*core]bool  // those whose source is not closed; true once its Run was started
	running context.Context // Run's, nil while it does not run
	work    sync.WaitGroup  // the sources' own work, and their closing
}

// New makes a Keeper without directories. passwords checks the hashes that directories give. A nil log discards, a nil reg
// registers no metrics.
func New(passwords *passwd.Checker, log *slog.Logger, reg prometheus.Registerer) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{log: log, passwords: passwords, seconds: newSeconds(), open: map[*core]bool{}}
	if reg != nil {
		reg.MustRegister(collector{k}, k.seconds)
	}
	return k
}

// A View is the directories of one configuration. It does not change.
type View struct {
	list []*Directory
}

// Directory returns the directory called name, nil where there is none.
func (v *View) Directory(name string) *Directory {
	for _, d := range v.list {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// Prepare opens the directories of configs, and asks none of them. One whose config is that of a directory in use is that
// directory, with all it remembers. The error is auth.Faults, all there are. What is not used after all is closed when its
// view is forgotten.
func (k *Keeper) Prepare(configs []Config) (*View, error) {
	v := &View{}
	var faults auth.Faults
	for i := range configs {
		d := k.inUse(&configs[i])
		if d == nil {
			var err error
			if d, err = k.openDirectory(configs[i]); err != nil {
				key := fmt.Sprintf("directories[%d].%s", i, configs[i].Type)
				faults = append(faults, &auth.Fault{Key: key, Err: fmt.Errorf("directory %s: %w", configs[i].Name, err)})
				continue
			}
		}
		v.list = append(v.list, d)
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return v, nil
}

// inUse returns the directory in use that has this very config.
func (k *Keeper) inUse(c *Config) *Directory {
	v := k.view.Load()
	if v == nil {
		return nil
	}
	d := v.Directory(c.Name)
	if d == nil || !reflect.DeepEqual(d.config, *c) {
		return nil
	}
	return d
}

func (k *Keeper) openDirectory(c Config) (*Directory, error) {
	kind, ok := c.kind()
	if !ok {
		return nil, fmt.Errorf("there is no type %q", c.Type)
	}
	source, err := kind.open(&c, k.log.With("directory", c.Name))
	if err != nil {
		return nil, err
	}
	return k.newDirectory(c, source), nil
}

// newDirectory makes a directory of a source. The source closes when nobody holds the directory any more: a session may have
// begun before a reload and log in long after it.
func (k *Keeper) newDirectory(c Config, source Opened) *Directory {
	stats := &stats{seconds: k.seconds.WithLabelValues(c.Name)}
	co := &core{config: c, stats: stats, passwords: k.passwords, asker: newAsker(&c, source, stats, k.log)}
	co.domains = newDomains(co.asker)
	if !source.Memory {
		co.cache = newCache(c.Cache, source.Vary, co.asker, stats)
	}
	k.mu.Lock()
	k.open[co] = false
	k.mu.Unlock()
	d := &Directory{Name: c.Name, core: co}
	runtime.AddCleanup(d, k.forgotten, co)
	return d
}

// forgotten closes a directory that nobody can use any more.
func (k *Keeper) forgotten(co *core) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, open := k.open[co]; !open {
		return
	}
	delete(k.open, co)
	k.work.Go(func() { k.close(co) }) // not here: it may wait for lookups to end
}

func (k *Keeper) close(co *core) {
	if err := co.asker.close(); err != nil {
		k.log.Error("close a directory", "error", err)
	}
}

// Use makes v the directories whose work Run does, and which metrics and Trouble show. A directory that was in use before looks
// for news at once, if it is of the kind that does. Those of earlier views go on answering the sessions that hold them.
func (k *Keeper) Use(v *View) {
	earlier := k.view.Swap(v)
	k.mu.Lock()
	defer k.mu.Unlock()
	if earlier != nil {
		for _, d := range earlier.list {
			switch v.Directory(d.Name) {
			case nil:
				k.seconds.DeleteLabelValues(d.Name)
			case d:
				k.reload(d.core)
			}
		}
	}
	k.start(v)
}

// reload has the source of a directory that stays look for news at once. It says by itself what it finds. The caller holds mu.
func (k *Keeper) reload(co *core) {
	reloader, ok := co.asker.source.Source.(Reloader)
	if !ok || k.running == nil || !co.asker.begin() {
		return
	}
	k.work.Go(func() { // not here: to read a large file takes its time
		defer co.asker.flying.Done()
		_ = reloader.Reload() // Trouble says so from now on
	})
}

// start starts the work of the sources that have some. The caller holds mu.
func (k *Keeper) start(v *View) {
	if k.running == nil || v == nil {
		return
	}
	for _, d := range v.list {
		co := d.core // its work must not hold the directory itself
		runner, ok := co.asker.source.Source.(Runner)
		if started, open := k.open[co]; ok && open && !started && co.asker.begin() {
			k.open[co] = true
			k.work.Go(func() { k.runSource(co.asker, runner) })
		}
	}
}

// runSource does a source's own work until the source is closed or the keeper ends.
func (k *Keeper) runSource(a *asker, r Runner) {
	defer a.flying.Done()
	ctx, cancel := context.WithCancel(a.base)
	defer cancel()
	defer context.AfterFunc(k.running, cancel)()
	if err := r.Run(ctx); err != nil && ctx.Err() == nil {
		k.log.Error("background work of a directory ended", "directory", a.name, "error", err)
	}
}

// Run does the work that sources have beside lookups until ctx ends. Then it closes all sources, those of earlier views too:
// nobody is to look anything up any more. It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	k.mu.Lock()
	k.running = ctx
	k.start(k.view.Load())
	k.mu.Unlock()
	<-ctx.Done()
	k.mu.Lock()
	for co := range k.open {
		delete(k.open, co)
		k.work.Go(func() { k.close(co) })
	}
	k.mu.Unlock()
	k.work.Wait()
	return nil
}

// Trouble says what is wrong with which of the directories in use, a line each; nil when nothing is.
func (k *Keeper) Trouble() error {
	v := k.view.Load()
	if v == nil {
		return nil
	}
	var all []error
	for _, d := range v.list {
		all = append(all, d.Trouble()) // Join leaves out the nils
	}
	return errors.Join(all...)
}
