package access

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Keeper keeps the files and what blocklists have answered over reloads. It is made once. Its methods may be called at once,
// except that reloads (Prepare, then Use) come one after another.
type Keeper struct {
	log     *slog.Logger
	metrics *metrics
	rules   atomic.Pointer[Rules] // in use; nil before the first Use
	wake    chan struct{}         // has Run look at the files at once

	mu     sync.Mutex
	ended  bool
	base   context.Context // of questions to blocklists
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// New makes a Keeper without rules. A nil log discards, a nil reg registers no metrics.
func New(log *slog.Logger, reg prometheus.Registerer) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{log: log, wake: make(chan struct{}, 1)}
	k.base, k.cancel = context.WithCancel(context.Background())
	k.metrics = newMetrics(k, reg)
	return k
}

// Prepare makes the rules of c, which has passed Validate, and reads the files that are not in use already. The error is
// auth.Faults, all there are, with keys that begin with "access.". It asks no blocklist.
func (k *Keeper) Prepare(c Config) (*Rules, error) {
	p := &preparation{keeper: k, config: c, earlier: k.rules.Load(), rules: &Rules{
		keeper:     k,
		blocklists: map[string]*blocklist{},
		files:      map[string]source{},
		disabled:   accounts{},
		timeout:    c.DNS.Timeout,
	}}
	return p.run()
}

// Use makes r the rules whose files Run looks at, which it does at once, and which metrics and Trouble show.
func (k *Keeper) Use(r *Rules) {
	earlier := k.rules.Swap(r)
	select {
	case k.wake <- struct{}{}:
	default: // it is to look anyway
	}
	if earlier == nil {
		return
	}
	for name := range earlier.blocklists {
		if r.blocklists[name] == nil {
			k.metrics.lookups.DeletePartialMatch(prometheus.Labels{"blocklist": name})
		}
	}
	for i := range earlier.rules {
		name := earlier.rules[i].config.Name
		if !r.has(name) {
			k.metrics.verdicts.DeletePartialMatch(prometheus.Labels{"rule": name})
		}
	}
}

// has says whether there is a rule of that name.
func (r *Rules) has(name string) bool {
	for i := range r.rules {
		if r.rules[i].config.Name == name {
			return true
		}
	}
	return false
}

// Run looks at the files every few seconds until ctx ends. Then it waits for the questions to blocklists that are on their way, and
// none is asked any more. It is called once.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			k.mu.Lock()
			k.ended = true
			k.mu.Unlock()
			k.cancel()
			k.work.Wait()
			return nil
		case <-tick.C:
			k.look(false)
		case <-k.wake:
			k.look(true)
		}
	}
}

// look looks at the files in use.
func (k *Keeper) look(atOnce bool) {
	if r := k.rules.Load(); r != nil {
		for _, f := range r.files {
			f.look(atOnce)
		}
	}
}

// begin starts a question to a blocklist, unless the keeper has ended.
func (k *Keeper) begin(work func(ctx context.Context)) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		return false
	}
	k.work.Go(func() { work(k.base) })
	return true
}

// Trouble says what is wrong with files and blocklists in use, a line each; nil when nothing is. All of them have their say: what was
// taken last stays in force, and blocklists that are down refuse nobody.
func (k *Keeper) Trouble() error {
	r := k.rules.Load()
	if r == nil {
		return nil
	}
	var all []error
	for _, f := range r.files {
		all = append(all, f.failure()) // Join leaves out the nils
	}
	for _, b := range r.blocklists {
		all = append(all, b.failure())
	}
	return errors.Join(all...)
}

func (k *Keeper) counted(v Verdict) Verdict {
	if v.Action != Allow {
		k.metrics.verdicts.WithLabelValues(v.Rule, v.Action.String(), string(v.Reason)).Inc()
	}
	return v
}
