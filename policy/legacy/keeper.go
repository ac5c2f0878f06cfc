package legacy

import (
	"container/list"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a Keeper remembers at most: some 40 MB when all of it is full.
const (
	maxUsers   = 50_000
	maxPerUser = 8
	// keepFor is how long ago a last time still matters.
	keepFor = 180 * 24 * time.Hour
)

const (
	saveEvery  = 5 * time.Minute
	shareEvery = time.Minute
)

// Options are what a Keeper is given besides its folder. All may be left out.
type Options struct {
	// Log is where the Keeper says what it could not save; nil is nowhere.
	Log *slog.Logger
	// Registerer is where its metrics go; nil is nowhere.
	Registerer prometheus.Registerer
	// Cluster is what is shared with the Keepers of other nodes; nil is nothing.
	Cluster *Cluster
}

// A Keeper remembers who uses the legacy lane. It is made once; many may use it at once.
type Keeper struct {
	path    string // "" saves nothing
	log     *slog.Logger
	cluster *Cluster // nil shares nothing

	mu      sync.Mutex
	users   map[string]*list.Element // of *user
	recent  *list.List               // the latest first
	news    map[string][]Use         // not shared yet, by user
	changed bool
}

// A user is somebody and his uses, the latest first.
type user struct {
	name string
	uses []Use
}

// New returns a Keeper that knows nobody and keeps its file in dir; "" keeps none. It opens nothing: see Load and Run.
func New(dir string, o Options) *Keeper {
	k := &Keeper{path: statePath(dir), log: o.Log, users: map[string]*list.Element{}, recent: list.New(), news: map[string][]Use{}}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "popgate_legacy_users", Help: "Users remembered to have come by the legacy lane in the last 180 days.",
		}, func() float64 { return float64(k.count(time.Now())) }))
	}
	if o.Cluster != nil {
		k.join(o.Cluster)
	}
	return k
}

// Mark notes a login that succeeded.
func (k *Keeper) Mark(m Mark) {
	if m.Version == "" {
		m.Version = NoTLS
	}
	u := Use{User: m.User, Tenant: m.Tenant, Network: m.Network, Version: m.Version, Listener: m.Listener, First: m.When, Last: m.When, Count: 1, Until: m.Until}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.add(u)
	if k.cluster == nil {
		return
	}
	if _, ok := k.news[u.User]; ok || len(k.news) < maxUsers {
		k.news[u.User] = put(k.news[u.User], u)
	}
}

// add adds u. The caller holds the lock.
func (k *Keeper) add(u Use) {
	k.changed = true
	e := k.users[u.User]
	if e == nil {
		if k.recent.Len() >= maxUsers {
			k.drop(k.recent.Back())
		}
		e = k.recent.PushFront(&user{name: u.User})
		k.users[u.User] = e
	}
	one := e.Value.(*user)
	one.uses = put(one.uses, u)
	k.settle(e)
}

// settle moves e to where its last time puts it: to the front, nearly always.
func (k *Keeper) settle(e *list.Element) {
	last := e.Value.(*user).uses[0].Last
	at := k.recent.Front()
	for at != nil && (at == e || at.Value.(*user).uses[0].Last.After(last)) {
		at = at.Next()
	}
	if at == nil {
		k.recent.MoveToBack(e)
		return
	}
	k.recent.MoveBefore(e, at)
}

func (k *Keeper) drop(e *list.Element) {
	delete(k.users, e.Value.(*user).name)
	k.recent.Remove(e)
}

// put adds u to the uses of its user, the latest first.
func put(uses []Use, u Use) []Use {
	if i := slices.IndexFunc(uses, func(o Use) bool { return o.same(&u) }); i >= 0 {
		uses[i].add(&u)
	} else {
		uses = append(uses, u)
	}
	slices.SortStableFunc(uses, func(a, b Use) int { return b.Last.Compare(a.Last) })
	return uses[:min(len(uses), maxPerUser)]
}

// List is all uses of the last 180 days, the latest first.
func (k *Keeper) List() []Use {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all(time.Now())
}

// all is what List gives; the caller holds the lock. What is too old is dropped on the way.
func (k *Keeper) all(now time.Time) []Use {
	all := []Use{}
	var next *list.Element
	for e := k.recent.Front(); e != nil; e = next {
		next = e.Next()
		one := e.Value.(*user)
		one.uses = slices.DeleteFunc(one.uses, func(u Use) bool { return now.Sub(u.Last) > keepFor })
		if len(one.uses) == 0 {
			k.drop(e)
			continue
		}
		all = append(all, one.uses...)
	}
	order(all)
	return all
}

func (k *Keeper) count(now time.Time) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	for e := k.recent.Back(); e != nil && now.Sub(e.Value.(*user).uses[0].Last) > keepFor; e = k.recent.Back() {
		k.drop(e)
	}
	return k.recent.Len()
}

// Run shares and saves until ctx ends; then it does so once more. It returns nil: what cannot be saved is logged.
func (k *Keeper) Run(ctx context.Context) error {
	share, save := time.NewTicker(shareEvery), time.NewTicker(saveEvery)
	defer share.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			k.tell()
			k.saveChanged()
			return nil
		case <-share.C:
			k.tell()
		case <-save.C:
			k.saveChanged()
		}
	}
}
