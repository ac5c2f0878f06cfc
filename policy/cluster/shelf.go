package cluster

import (
	"context"
	"crypto/cipher"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// How a shelf goes about it.
const (
	beat       = 2 * time.Second       // how often Redis is looked after, with nothing to do
	settle     = 20 * time.Millisecond // for which facts are gathered
	batchSize  = 200                   // facts in one script
	pageSize   = 500                   // facts read at once
	breath     = 10 * time.Millisecond // between batches and pages where there are many, or Redis would have no time for logins
	maxPending = 32 << 10              // facts that wait to be written
	reloadOnce = 10 * time.Second      // in which all is read again once at most
	reloadRest = 10                    // how many times as long as reading took it is not done again, should Redis come and go all the time
)

// ShelfOptions are what a Shelf is given besides its client and name.
type ShelfOptions struct {
	Key        [32]byte // the cluster's for facts: who does not have it is not believed
	Most       int      // how many facts there may be; those that end soonest go first
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// A Shelf keeps facts of one part in Redis, sealed, so that they outlive the nodes. Each node has all of them in its own memory
// as well, from where they are put back after Redis lost them. Nobody waits for it. Its methods may be called at once; Own belongs
// before Run.
type Shelf struct {
	client  *Client
	bus     *Bus
	part    string
	keys    []string
	put     *Script
	seal    cipher.AEAD
	o       ShelfOptions
	take    func(Fact)
	all     iter.Seq[Fact]
	metrics *shelfMetrics
	wake    chan struct{}
	trouble atomic.Pointer[error]

	mu      sync.Mutex
	pending map[uint64]Fact
	behind  bool // not everything that is known has been put
	stale   bool // there may be what is not known
}

// NewShelf makes the shelf of a part. Its nodes tell each other over bus when they were away from Redis. It starts nothing: see Run.
func NewShelf(c *Client, bus *Bus, part string, o ShelfOptions) *Shelf {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Shelf{
		client: c, bus: bus, part: part, o: o, seal: newSeal(o.Key, nil, "popgate shelf 1"), put: c.Script(putLua),
		keys:    []string{c.Key(part, "expiry"), c.Key(part, "values"), c.Key(part, "marker")},
		take:    func(Fact) {},
		all:     func(func(Fact) bool) {},
		metrics: newShelfMetrics(part, o.Registerer), wake: make(chan struct{}, 1), pending: make(map[uint64]Fact),
	}
	bus.Missed(s.Refresh)
	return s
}

// Own says who knows the facts: take is called with each that is on the shelf, again whenever the node may have missed some; all
// gives those that are known, to be put back. It must hold no lock while it yields.
func (s *Shelf) Own(take func(Fact), all iter.Seq[Fact]) { s.take, s.all = take, all }

// Put puts a fact on the shelf, in the place of an earlier one of its key. It returns at once. The value is kept until it is written.
func (s *Shelf) Put(f Fact) {
	s.mu.Lock()
	if _, ok := s.pending[f.Key]; ok || len(s.pending) < maxPending {
		s.pending[f.Key] = f
	} else {
		s.behind = true // it is put with all the others
		s.metrics.late.Inc()
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Refresh has the shelf read again soon: something may have been put there that this node was not told of.
func (s *Shelf) Refresh() {
	s.mu.Lock()
	s.stale = true
	s.mu.Unlock()
}

// Trouble is why facts are not kept, nil while they are.
func (s *Shelf) Trouble() error {
	if err := s.trouble.Load(); err != nil {
		return fmt.Errorf("what nodes remember (%s): %w", s.part, *err)
	}
	return nil
}

// Run keeps the shelf until ctx ends. It returns nil: Redis may come and go.
func (s *Shelf) Run(ctx context.Context) error {
	r := shelving{Shelf: s}
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		err := r.turn(ctx)
		if ctx.Err() != nil {
			return r.end(ctx)
		}
		s.note(err)
		wake := s.wake
		if err != nil {
			wake = nil // not before the next beat
		}
		select {
		case <-wake:
			pause(ctx, settle)
		case <-ticker.C:
		case <-ctx.Done():
			return r.end(ctx)
		}
	}
}

// note keeps what went wrong, and logs where that changes.
func (s *Shelf) note(err error) {
	var now *error
	if err != nil {
		now = &err
	}
	was := s.trouble.Swap(now)
	switch {
	case err != nil && was == nil:
		s.client.outage.begin(s.o.Log, "facts of "+s.part, err)
	case err == nil && was != nil:
		s.client.outage.end(s.o.Log, "facts of "+s.part)
		s.bus.Again() // others were not told of what could not be put until now
		s.Refresh()
	}
}

// shelfMetrics are what a Shelf tells of itself.
type shelfMetrics struct {
	put, late, taken, refused prometheus.Counter
}

func newShelfMetrics(part string, reg prometheus.Registerer) *shelfMetrics {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "popgate_cluster_facts_total", Help: "Facts that nodes keep in Redis, by what became of them.", ConstLabels: prometheus.Labels{"part": part},
	}, []string{"result"})
	if reg != nil {
		reg.MustRegister(v)
	}
	of := v.WithLabelValues
	return &shelfMetrics{put: of("written"), late: of("late"), taken: of("read"), refused: of("refused")}
}
