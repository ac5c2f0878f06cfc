package legacy

import (
	"container/heap"
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
	users   map[string]*user
	oldest  byLast           // all of users
	news    map[string][]Use // not shared yet, by user
	changed bool
}

// A user is somebody and his uses, the latest first.
type user struct {
	name string
	uses []Use
	at   int // in byLast
}

// byLast is a heap of users: who has not come for longest is the first.
type byLast []*user

// Len is the number of users.
func (b byLast) Len() int { return len(b) }

// Less says whether the user at i has not come for longer than that at j.
func (b byLast) Less(i, j int) bool { return b[i].uses[0].Last.Before(b[j].uses[0].Last) }

// Swap exchanges two.
func (b byLast) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].at, b[j].at = i, j
}

// Push appends x, a *user.
func (b *byLast) Push(x any) {
	one := x.(*user)
	one.at = len(*b)
	*b = append(*b, one)
}

// Pop takes the last off.
func (b *byLast) Pop() any {
	last := len(*b) - 1
	one := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	return one
}

// New returns a Keeper that knows nobody and keeps its file in dir; "" keeps none. It opens nothing: see Load and Run.
func New(dir string, o Options) *Keeper {
	k := &Keeper{path: statePath(dir), log: o.Log, users: map[string]*user{}, news: map[string][]Use{}}
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
	if one := k.users[u.User]; one != nil {
		one.uses = put(one.uses, u)
		heap.Fix(&k.oldest, one.at)
		return
	}
	if len(k.oldest) >= maxUsers {
		k.drop(k.oldest[0])
	}
	one := &user{name: u.User, uses: []Use{u}}
	k.users[u.User] = one
	heap.Push(&k.oldest, one)
}

func (k *Keeper) drop(one *user) {
	delete(k.users, one.name)
	heap.Remove(&k.oldest, one.at)
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
	all := k.all(time.Now())
	order(all)
	return all
}

// all is what List gives, in no order: who logs in meanwhile must not wait for that.
func (k *Keeper) all(now time.Time) []Use {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget(now)
	all := make([]Use, 0, len(k.oldest))
	for _, one := range k.oldest {
		one.uses = slices.DeleteFunc(one.uses, func(u Use) bool { return now.Sub(u.Last) > keepFor })
		all = append(all, one.uses...)
	}
	return all
}

// forget drops who has not come for too long. The caller holds the lock.
func (k *Keeper) forget(now time.Time) {
	for len(k.oldest) > 0 && now.Sub(k.oldest[0].uses[0].Last) > keepFor {
		k.drop(k.oldest[0])
	}
}

func (k *Keeper) count(now time.Time) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget(now)
	return len(k.oldest)
}

// Run shares and saves until ctx ends; then it does so once more. It returns nil: what cannot be saved is logged.
func (k *Keeper) Run(ctx context.Context) error {
	share, save := time.NewTicker(shareEvery), time.NewTicker(saveEvery)
	defer share.Stop()
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			k.tell(ctx)
			k.saveChanged()
			return nil
		case <-share.C:
			k.tell(ctx)
		case <-save.C:
			k.saveChanged()
		}
	}
}
