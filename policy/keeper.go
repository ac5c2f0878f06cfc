package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/legacy"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/policy/store"
	"github.com/popgate/popgate/policy/wforce"
)

// maxRates is how many keys of limits have the times of their turns kept: 16 MiB when all are.
const maxRates = 1 << 20

// Parts are the sections of the configuration that the policy is made of.
type Parts struct {
	Limits     Config
	Lockout    lockout.Config
	Access     access.Config
	Weakforced wforce.Config
}

// Options are what a Keeper is given. All may be left out.
type Options struct {
	// Dir is where lockouts and known-good users are kept over a restart; "" keeps them in memory alone.
	Dir string
	// Events is called for each lockout and spray, by whoever made it happen: it must be quick.
	Events func(lockout.Event)
	// Log is where what goes wrong is said; nil is nowhere.
	Log *slog.Logger
	// Registerer is where metrics go; nil is nowhere.
	Registerer prometheus.Registerer
	// Cluster is what is shared with other nodes; nil is nothing.
	Cluster *Cluster
}

// A State keeps what limits count. Many may use it at once.
type State interface {
	// Take takes all of asks, or none of them. It is -1, or the index of one that refused.
	Take(ctx context.Context, asks []store.Ask) (refused int)
	// Give gives back what Take granted, and waits for nobody.
	Give(asks []store.Ask)
	// Spend pays n turns of each, whatever is left, and says how long to wait before going on.
	Spend(ctx context.Context, asks []store.Ask, n int64) time.Duration
}

// A Keeper keeps what is counted and remembered. It is made once and outlives every Gate; many may use it at once.
type Keeper struct {
	log     *slog.Logger
	cluster *Cluster // nil where this node is the only one
	state   State
	hasher  store.Hasher
	lockout *lockout.Keeper
	access  *access.Keeper
	wforce  *wforce.Keeper
	legacy  *legacy.Keeper
	server  *wforce.Server
	metrics *metrics
	current atomic.Pointer[Gate] // in force
}

// New returns a Keeper that has counted nothing. It opens nothing and starts nothing: see Load and Run.
func New(o Options) *Keeper {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{
		log:     o.Log,
		cluster: o.Cluster,
		lockout: lockout.New(o.Dir, lockout.Options{Events: o.Events, Log: o.Log, Registerer: o.Registerer, Cluster: o.Cluster.lockout()}),
		access:  access.New(o.Log, o.Registerer),
		wforce:  wforce.New(o.Log, o.Registerer),
		legacy:  legacy.New(o.Dir, legacy.Options{Log: o.Log, Registerer: o.Registerer, Cluster: o.Cluster.lane()}),
		metrics: newMetrics(o.Registerer),
	}
	k.state, k.hasher = o.Cluster.counts(o)
	k.server = wforce.NewServer(service{k}, o.Log, o.Registerer)
	return k
}

// Load reads what an earlier Keeper has saved. It comes before anything else.
func (k *Keeper) Load() {
	k.lockout.Load()
	if err := k.legacy.Load(); err != nil {
		k.log.Warn("who used the legacy lane before the start is not known", "error", err)
	}
}

// Lockouts are the lockouts in force, for operators.
func (k *Keeper) Lockouts() *lockout.Keeper { return k.lockout }

// Legacy is who still uses the legacy lane, for operators.
func (k *Keeper) Legacy() *legacy.Keeper { return k.legacy }

// Server answers other servers that ask popgate as they would ask weakforced.
func (k *Keeper) Server() *wforce.Server { return k.server }

// Prepare makes a Gate of parts that have passed Validate. It shares what is counted with all Gates before. The error is auth.Faults,
// all there are, by the keys of the configuration.
func (k *Keeper) Prepare(p Parts) (*Gate, error) {
	g := &Gate{keeper: k, limits: limit.NewRules(p.Limits.Limits()), locks: p.Lockout.Enabled}
	var err [4]error
	g.lockout, err[0] = k.lockout.Prepare(p.Lockout)
	g.access, err[1] = k.access.Prepare(p.Access)
	g.wforce, err[2] = k.wforce.Prepare(p.Weakforced)
	err[2] = within("weakforced", err[2])
	if p.Weakforced.Serve.Address != "" {
		g.server, err[3] = k.server.Prepare(p.Weakforced.Serve)
		err[3] = within("weakforced.serve", err[3])
	}
	if err := errors.Join(err[:]...); err != nil {
		return nil, err
	}
	return g, nil
}

// within makes a fault of an error that begins with its key.
func within(section string, err error) error {
	if err == nil {
		return nil
	}
	key, problem, ok := strings.Cut(err.Error(), ": ")
	if !ok {
		return fmt.Errorf("%s: %w", section, err)
	}
	return auth.Faults{{Key: section + "." + key, Err: errors.New(problem)}}
}

// Use says which Gate is in force, for what the Keeper does in the background.
func (k *Keeper) Use(g *Gate) {
	k.current.Store(g)
	k.lockout.Use(g.lockout)
	k.access.Use(g.access)
	k.wforce.Use(g.wforce)
	k.server.Use(g.server)
}

// Run does what goes on beside the sessions, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	parts := append(k.cluster.parts(), k.lockout.Run, k.access.Run, k.wforce.Run, k.legacy.Run)
	if s, ok := k.state.(*store.Shared); ok {
		parts = append(parts, s.Run)
	}
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() { errs[i] = part(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Nodes are the names of the nodes that count together, and why this one does not now; none where it is no cluster's.
func (k *Keeper) Nodes() (names []string, trouble error) {
	s, ok := k.state.(*store.Shared)
	if !ok {
		return nil, nil
	}
	return s.Nodes().Names(), s.Trouble()
}

// Trouble says what is not as it should be, a line each; nil when nothing is. Clients are served all the same.
func (k *Keeper) Trouble() error {
	err := errors.Join(k.access.Trouble(), k.wforce.Trouble())
	if s, ok := k.state.(*store.Shared); ok && s.Trouble() != nil {
		return errors.Join(s.Trouble(), err) // once is enough: what else is in Redis is out of reach too
	}
	return errors.Join(k.cluster.trouble(), err)
}
