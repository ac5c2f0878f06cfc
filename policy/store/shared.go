package store

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/policy/cluster"
)

// Shared keeps counts that are one for all nodes of a cluster. Each node has its own in a Memory, which knows at once when its own
// use is too much; what that grants, Redis is asked for too, all of one decision in one call, and those of many decisions together.
//
// Nobody waits for Redis longer than the deadline. What it has not answered by then, and all while it is away, the node decides by its
// own counts. They are the truth about this node: when Redis is back, or has lost what it knew, they are written there anew.
//
// Run does what has to be done beside decisions; until it has begun, and once it has ended, the node decides alone.
type Shared struct {
	memory  *Memory
	client  *cluster.Client
	nodes   *cluster.Nodes
	config  cluster.ShareConfig
	log     *slog.Logger
	metrics *sharedMetrics
	health  health
	sender  sender

	// gate is held for reading while the memory is changed and Redis' part in it is settled, for writing when mode and term change:
	// so that each change is either in the counts that are written anew or sent after them, and never both.
	gate sync.RWMutex
	mode mode
	term uint64 // how often the counts were written anew

	queue queue
	owed  owed
	lumps lumps
}

// mode is how this node stands to Redis.
type mode int32

const (
	away     mode = iota // Redis is not asked; what changes is known when the counts are written anew
	merging              // they are being written; what changes meanwhile is remembered
	slow                 // Redis is told and nobody waits for it: it takes longer than the deadline
	together             // Redis is asked
)

// SharedOptions are what NewShared can do without.
type SharedOptions struct {
	Node    string // this node's name
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// part is what the counts are called among what is kept in Redis.
const part = "counts"

// NewShared returns a Shared that decides by m until Run has reached Redis by c. Nobody else may change m. The config is a valid one.
func NewShared(m *Memory, c *cluster.Client, config cluster.ShareConfig, o SharedOptions) *Shared {
	s := &Shared{memory: m, client: c, config: config, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.nodes = cluster.NewNodes(c, part, o.Node, config.Lease)
	s.queue.wake, s.queue.later = make(chan struct{}, 1), make(chan struct{}, 1)
	s.sender.init(c, config)
	s.owed.reset()
	s.lumps.reset()
	s.health.begin()
	s.metrics = newSharedMetrics(o.Metrics, s)
	return s
}

// Nodes tells who else is alive.
func (s *Shared) Nodes() *cluster.Nodes { return s.nodes }

// Trouble is nil while the nodes count together, else it says since when and why they do not.
func (s *Shared) Trouble() error { return s.health.trouble(s.config.Spread) }

// Take takes all that is asked for, from all nodes together, or nothing. It returns -1, or the index of one that refused. No two of asks
// have one key. It waits at most for the deadline or the end of ctx, whichever is first, and decides alone then.
func (s *Shared) Take(ctx context.Context, asks []Ask) (refused int) {
	s.gate.RLock()
	if s.mode != together || s.sender.stuck() {
		defer s.gate.RUnlock()
		s.metrics.alone.Inc()
		return s.takeAlone(asks)
	}
	// First here: what is taken here already cannot be taken twice while Redis is asked, and it is the truth should nobody answer.
	refused = s.memory.Take(ctx, asks)
	if refused >= 0 {
		s.gate.RUnlock()
		s.metrics.local.Inc()
		return refused
	}
	if !contested(asks) {
		s.queue.tell(asks, taken)
		s.gate.RUnlock()
		s.metrics.told.Inc()
		return -1
	}
	o, term := s.queue.ask(asks), s.term
	s.gate.RUnlock()
	if o == nil || !o.wait(ctx, s.config.Deadline) {
		s.metrics.alone.Inc()
		return s.divide(asks)
	}
	defer o.release()
	switch o.verdict {
	case granted:
		s.metrics.redis.Inc()
		o.price(asks, s.memory.now())
		return -1
	case alone:
		s.metrics.alone.Inc()
		return s.divide(asks)
	default:
		s.metrics.redis.Inc()
		s.undo(asks, term)
		return o.verdict
	}
}

// contested says that something of asks can be refused.
func contested(asks []Ask) bool {
	for i := range asks {
		if asks[i].Most > 0 {
			return true
		}
	}
	return false
}

// Give gives back what Take granted, and waits for nobody.
func (s *Shared) Give(asks []Ask) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	s.memory.Give(asks)
	s.settle(asks, given)
}

// settle lets Redis know, now or later, what has become of asks. The gate is held, and the memory has changed already: who writes what
// has changed may look there at once.
func (s *Shared) settle(asks []Ask, what change) {
	switch s.mode {
	case together, slow:
		s.queue.tell(asks, what.at(s.memory.now()))
	default:
		s.owed.add(asks, what.at(s.memory.now()), s.mode == merging)
	}
}

// undo takes back from the memory what Redis has refused. If the counts were written anew since, they were so with it.
func (s *Shared) undo(asks []Ask, term uint64) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	s.memory.Give(asks)
	if s.term != term {
		s.settle(asks, unplaced)
	}
}

// takeAlone decides by the memory alone. The gate is held.
func (s *Shared) takeAlone(asks []Ask) (refused int) {
	var room [8]Ask
	own := s.share(asks, room[:0])
	refused = s.memory.Take(context.Background(), own)
	if refused >= 0 {
		return refused
	}
	for i := range own {
		asks[i].Paid, asks[i].divided = own[i].Paid, own[i].divided
	}
	s.settle(asks, taken)
	return -1
}

// divide looks again at what this node decides alone after Redis was asked in vain: all of it was granted in the belief that Redis has
// the last word.
func (s *Shared) divide(asks []Ask) (refused int) {
	if s.shares() == 1 {
		return -1
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	var room [8]Ask
	own := s.share(asks, room[:0])
	s.memory.Give(asks)
	if refused = s.memory.Take(context.Background(), own); refused >= 0 {
		s.settle(asks, given)
		return refused
	}
	for i := range own {
		asks[i].Paid, asks[i].divided = own[i].Paid, own[i].divided
	}
	return -1
}

// shares is by how much a node divides the limits when it decides alone.
func (s *Shared) shares() int64 {
	if s.config.Spread != cluster.SpreadEven {
		return 1
	}
	return int64(s.nodes.Alive())
}

// share is what one node's part of asks is, appended to room where it differs.
func (s *Shared) share(asks, room []Ask) []Ask {
	n := s.shares()
	if n == 1 {
		return asks
	}
	room = append(room, asks...)
	for i := range room {
		a := &room[i]
		if a.Most > 0 && !a.Whole {
			a.Most = max(a.Most/n, 1)
			a.Turn, a.divided = span(a.Turn, n), int32(n) // n nodes at an n-th of the rate; a place stays one
		}
	}
	return room
}

// Spend pays n turns of each of asks, whatever is left on all nodes together, and says how long to wait before going on. It does not
// wait itself: what the nodes have to know of it is told in lumps.
func (s *Shared) Spend(ctx context.Context, asks []Ask, n int64) (wait time.Duration) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if s.mode != together && s.mode != slow {
		var room [8]Ask
		s.owed.spend(asks, n)
		return s.memory.Spend(ctx, s.share(asks, room[:0]), n)
	}
	// This node's own pace still counts: Redis' answers come late, and never let through what the node alone would not.
	wait = s.memory.Spend(ctx, asks, n)
	now := s.memory.now()
	for i := range asks {
		if a := &asks[i]; !a.Place() && a.Most > 0 {
			wait = max(wait, s.lumps.spend(&s.queue, a, n, now))
		}
	}
	return wait
}
