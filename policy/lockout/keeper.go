package lockout

import (
	"context"
	"log/slog"
	"math"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/policy/store"
)

// What a Keeper remembers at most: about 130 MiB when all of it is full, which takes a million known-good pairs and an
// attacker who fills the rest.
const (
	maxKnown    = 1 << 20 // known-good pairs
	maxPairs    = 1 << 19 // pairs that failed or are about to
	maxNetworks = 1 << 18 // networks that failed
	maxSecrets  = 1 << 17 // wrong secrets, looked at for spraying
	maxLockouts = 1 << 16
	maxSeen     = 1 << 18 // what was seen already, of each kind

	wideBits       = 48 // of the wider network that IPv6 clients are counted by too
	maxNewNetworks = 50 // in a day, that one user becomes known in
)

// How often the Keeper looks after its lockouts, and how soon it saves what has changed: with little to write soon, with full tables
// late, so that it writes no more than some 50 KB a second.
const (
	tendEvery  = time.Second
	saveSoon   = 30 * time.Second
	saveLate   = 5 * time.Minute
	saveEvenly = saveLate / maxKnown // for each known-good pair, and what takes as much
)

// Options are what a Keeper is given besides its folder. All may be left out.
type Options struct {
	// Events is called for each event, by whoever made it happen, many at once: it must be quick, and must not call
	// the Keeper.
	Events func(Event)
	// Log is where the Keeper says what it could not load or save; nil is nowhere.
	Log *slog.Logger
	// Registerer is where its metrics go; nil is nowhere.
	Registerer prometheus.Registerer
	// Cluster is what this Keeper shares with those of other nodes; nil is nothing.
	Cluster *Cluster
}

// A Keeper remembers failures, known-good pairs and lockouts. It is made once and outlives every View; after Load many
// may use it at once.
type Keeper struct {
	start   time.Time // its monotonic reading is what time goes by
	hasher  hasher
	dir     string
	events  func(Event)
	log     *slog.Logger
	metrics *metrics
	cluster *Cluster
	heard   allowances
	current atomic.Pointer[View]
	changed atomic.Bool  // something to save
	active  atomic.Int64 // lockouts whose end nobody was told of; 0 spares looking
	nextEnd atomic.Int64 // no such lockout ends before
	saving  sync.Mutex

	known    *table[known]
	pairs    *table[tally]
	networks *table[netTally]
	secrets  *table[spray]
	lockouts *table[record]

	newcomers *table[tally] // by user: networks it became known in, today

	pairsSeen *store.Times // wrong secrets of pairs
	knownSeen *store.Times // wrong secrets of known-good pairs, apart: strangers cannot fill it
	spraySeen *store.Times // (network, user), (secret, user) and (network, secret) that were counted
}

// New returns a Keeper that knows nothing and keeps its files in dir; "" keeps none. It opens nothing and starts nothing:
// see Load and Run.
func New(dir string, o Options) *Keeper {
	return newKeeper(dir, o, sizes{maxKnown, maxPairs, maxNetworks, maxSecrets, maxLockouts, maxSeen})
}

type sizes struct{ known, pairs, networks, secrets, lockouts, seen int }

func newKeeper(dir string, o Options, s sizes) *Keeper {
	if o.Events == nil {
		o.Events = func(Event) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{
		start: time.Now(), hasher: newHasher(), dir: dir, events: o.Events, log: o.Log,
		known:     newTable[known](s.known),
		pairs:     newTable[tally](s.pairs),
		networks:  newTable[netTally](s.networks),
		secrets:   newTable[spray](s.secrets),
		lockouts:  newTable[record](s.lockouts),
		newcomers: newTable[tally](s.lockouts),
		pairsSeen: store.NewTimes(s.seen),
		knownSeen: store.NewTimes(s.seen),
		spraySeen: store.NewTimes(s.seen),
	}
	k.nextEnd.Store(math.MaxInt64)
	k.metrics = newMetrics(o.Registerer, k)
	if o.Cluster != nil {
		k.join(o.Cluster)
	}
	return k
}

// Prepare makes a View of c, which has passed Validate. It shares what the Keeper remembers with all Views before.
func (k *Keeper) Prepare(c Config) (*View, error) { return &View{keeper: k, config: c}, nil }

// Use says which View is in force, for what the Keeper does in the background and for Add.
func (k *Keeper) Use(v *View) { k.current.Store(v) }

// config is what is in force; the defaults before any Use.
func (k *Keeper) config() Config {
	if v := k.current.Load(); v != nil {
		return v.config
	}
	return DefaultConfig()
}

// User is the key of a user's name as it is counted (auth.Name.Key).
func (k *Keeper) User(name string) Key { return k.hasher.ofUser(name) }

// Secret is the digest of a secret. It holds until the process ends, is never written, and keeps no copy.
func (k *Keeper) Secret(secret []byte) Key { return k.hasher.secret.digest(secret) }

// Network is a client network with its key, made once for each session.
func (k *Keeper) Network(p netip.Prefix) Network {
	n := Network{Prefix: p, key: k.hasher.ofNetwork(p)}
	if w := wide(p); w.IsValid() {
		n.wide = k.hasher.ofNetwork(w)
	}
	return n
}

// A Network is a client network as it is counted (auth.Client.Network).
type Network struct {
	Prefix    netip.Prefix
	key, wide Key // wide is the /48's of an IPv6 network, else 0
}

// wide is the /48 that an IPv6 network is part of, not valid for any other.
func wide(p netip.Prefix) netip.Prefix {
	if !p.Addr().Is6() || p.Bits() <= wideBits {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(p.Addr(), wideBits).Masked()
}

// now is the time in nanoseconds since 1970, on a clock that goes on where it was when the Keeper was made, whatever
// happens to the wall's.
func (k *Keeper) now() int64 { return k.start.UnixNano() + int64(time.Since(k.start)) }

// Run ends lockouts whose time has come, and saves, until ctx ends; then it saves once more. It returns nil: what cannot
// be saved is logged, and does not end the gateway.
func (k *Keeper) Run(ctx context.Context) error {
	tend, save := time.NewTicker(tendEvery), time.NewTicker(saveSoon)
	defer tend.Stop()
	defer save.Stop()
	saved := k.now()
	for {
		select {
		case <-ctx.Done():
			k.saveChanged()
			return nil
		case <-tend.C:
			k.tend()
		case <-save.C:
			if now := k.now(); k.changed.Load() && now-saved >= k.rest() {
				k.saveChanged()
				saved = now
			}
		}
	}
}

// rest is how long after a time of saving, in nanoseconds, the next may come.
func (k *Keeper) rest() int64 {
	pairs := k.known.len() + k.lockouts.len()*(recordSize/knownSize)
	return int64(min(saveEvenly*time.Duration(pairs), saveLate))
}

func (k *Keeper) saveChanged() {
	if k.dir == "" || !k.changed.Swap(false) {
		return
	}
	if err := k.Save(); err != nil {
		k.changed.Store(true)
		k.log.Warn("lockouts and known-good users could not be saved: they would be lost at a restart", "error", err)
	}
}

func (k *Keeper) path(name string) string { return filepath.Join(k.dir, name) }

// touch marks key as seen until now+most, and says whether it was already.
func touch(t *store.Times, key Key, now int64, most time.Duration) (seen bool) {
	t.Update(store.Key(key), now, func(until int64) int64 {
		seen = until > now
		return now + int64(most)
	})
	return seen
}
