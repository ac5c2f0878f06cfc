package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/store"
)

const (
	// patience is how long a handshake waits for a certificate that is on its way.
	patience = 8 * time.Second
	// maxPatient bounds the handshakes that wait: they hold places others need.
	maxPatient = 64
	// recheck is how soon a node sees what another has put into the storage.
	recheck = 10 * time.Minute
	// loaders, orderers and wishers are how many names are read, ordered, and asked about at once.
	loaders, orderers, wishers = 4, 4, 2
)

// origin is why a name is managed.
type origin int

const (
	demanded   origin = iota // a client asked for it
	listed                   // a listed domain's
	configured               // tls.acme.domains has it
)

// manager keeps the names whose certificates popgate obtains. It outlives reloads. Handshakes only look into maps; all that
// needs the storage or an issuer is done in the background, by run.
type manager struct {
	log     *slog.Logger
	metrics *orderMetrics
	start   time.Time
	backoff func(err error, failures int) time.Duration
	heed    time.Duration // how long an issuer may take to say when to renew
	every   time.Duration // how often names that are due are looked for
	wait    time.Duration // how long a handshake waits

	view atomic.Pointer[acmeView] // nil without tls.acme
	open atomic.Pointer[manner]   // which doors are shut

	depot atomic.Pointer[depot] // of the keeper's view; nil without a storage

	shelf   shelf
	budgets budgets
	patient chan struct{} // the handshakes that wait

	loads  *queue // for the storage to be read
	orders *queue // for an issuer to be asked for a certificate
	wishes *queue // for an issuer to be asked when it would have one renewed
	news   chan struct{}

	mu      sync.Mutex
	all     map[string]*managed
	held    int // demanded names that have certificates
	waiting int // demanded names that have none yet
	recall  *recall
	jots    map[string]trouble // what is to be written of names' last orders; see notary
	newJot  chan struct{}
	turns   turns
	left    []*depot        // of views before, for run to close
	rekeyed map[string]bool // names whose certificates were obtained in this view; see rekeys
}

// managed is one name.
type managed struct {
	name  string
	shown atomic.Pointer[shown] // nil as long as there is no certificate
	used  atomic.Int64          // when a handshake last had it, in seconds since the manager's start

	network store.Key // of the client that asked for it first

	// Guarded by the manager's lock.
	origin   origin
	due      time.Time // when to look after it next
	failures int
	lastErr  error
	lastAt   time.Time
	pending  *order
	revoked  []string           // serial numbers of certificates that their issuer has revoked; replaced, never changed
	setbacks map[string]setback // by the issuer's key; those that failed last
	jotted   bool               // that its last order failed stands in the storage
	deaf     time.Time          // its issuer is not asked before then when to renew
}

// shown is what clients get for a name. It is never changed.
type shown struct {
	certs []*tls.Certificate // the first one, then the RSA one where there is one
	sites []*site            // where each comes from
}

// order is one visit to a name: read it from the storage, and obtain it where need be.
type order struct {
	m     *managed
	force bool          // even where nothing is due: an operator said so
	ready chan struct{} // closed once clients can be served, or not by this order
	done  chan struct{} // closed at the end
	err   error         // readable once done
	once  sync.Once

	// Guarded by the manager's lock.
	asked  bool // a client waits for it
	looked time.Time
	queue  *queue // nil where it is at work, or ended
	rank   urgency
	since  time.Time
	index  int
	turn   bool // it has a turn, and nobody was asked yet
	paid   int64
}

func newOrder(m *managed, force bool) *order {
	return &order{m: m, force: force, ready: make(chan struct{}), done: make(chan struct{})}
}

func (o *order) show() { o.once.Do(func() { close(o.ready) }) }

func newManager(log *slog.Logger, m *orderMetrics) *manager {
	made := &manager{
		log: log, metrics: m, start: time.Now(), backoff: backoff, every: time.Second, wait: patience, heed: heedTime,
		budgets: newBudgets(), patient: make(chan struct{}, maxPatient), news: make(chan struct{}, 1),
		all: make(map[string]*managed), recall: newRecall(), jots: make(map[string]trouble), newJot: make(chan struct{}, 1),
	}
	made.loads, made.orders, made.wishes = newQueue(&made.mu), newQueue(&made.mu), newQueue(&made.mu)
	return made
}

func (m *manager) now() int64 { return int64(time.Since(m.start)) }

// find gives the certificates that are in memory for a name in lower case.
func (m *manager) find(name string) []*tls.Certificate {
	e := m.shelf.find(name)
	if e == nil {
		return nil
	}
	// Handshakes on all processors write here otherwise.
	if now := int64(time.Since(m.start) / time.Second); e.used.Load() != now {
		e.used.Store(now)
	}
	return e.shown.Load().certs
}

// use puts a view in force; nil ends all managing.
func (m *manager) use(v *acmeView) {
	m.mu.Lock()
	m.view.Store(v)
	m.rekeyed = make(map[string]bool)
	wanted := make(map[string]origin)
	if v != nil {
		wanted = v.wanted()
	}
	for name, e := range m.all {
		if _, still := wanted[name]; still {
			continue
		}
		// A name that is no more listed may still be one that clients get when they ask.
		if v != nil && e.shown.Load() != nil && v.knows(name) {
			m.reorigin(e, demanded)
			continue
		}
		m.forget(e)
	}
	for name, o := range wanted {
		e := m.all[name]
		if e == nil {
			e = &managed{name: name, origin: o}
			m.all[name] = e
		}
		m.reorigin(e, o)
		// Issuers and keys may be others now.
		e.due, e.setbacks = time.Time{}, nil
	}
	// At once, so that the first handshakes know that a certificate is on its way.
	m.schedule(time.Now())
	m.mu.Unlock()
	m.wake()
}

// reorigin changes why a name is managed. The lock is held.
func (m *manager) reorigin(e *managed, o origin) {
	m.count(e, -1)
	e.origin = o
	m.count(e, 1)
}

// count keeps how many demanded names there are. The lock is held.
func (m *manager) count(e *managed, by int) {
	if e.origin != demanded {
		return
	}
	if e.shown.Load() != nil {
		m.held += by
	} else {
		m.waiting += by
	}
}

// forget ends the managing of a name. The lock is held.
func (m *manager) forget(e *managed) {
	m.count(e, -1)
	delete(m.all, e.name)
	m.shelf.drop(e)
}

// wake has run look at once for what is due.
func (m *manager) wake() {
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// run looks after the names until ctx ends.
func (m *manager) run(ctx context.Context) {
	var work sync.WaitGroup
	doors, depots := newDoors(m), &depots{m: m}
	defer depots.close()
	defer doors.close()
	defer work.Wait()
	// Before any order: certmagic opens the ports for a moment where nobody has them.
	doors.follow(ctx)
	depots.follow(ctx)
	for range loaders {
		work.Go(func() { m.loads.each(ctx, 0, m.loads.pop, m.load) })
	}
	for range orderers {
		work.Go(func() { m.orders.each(ctx, m.every, m.nextOrder, m.obtain) })
	}
	work.Go(func() { m.orders.each(ctx, 0, m.nextForced, m.obtain) })
	for range wishers {
		work.Go(func() { m.wishes.each(ctx, 0, m.wishes.pop, m.wish) })
	}
	work.Go(func() { m.notary(ctx) })
	work.Go(func() { m.cleaner(ctx) })
	relisted := time.Now()
	for {
		var tick <-chan time.Time
		if m.view.Load() != nil || depots.leaving() {
			tick = time.After(m.every)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.news:
		case <-tick:
		}
		doors.follow(ctx)
		depots.follow(ctx)
		if now := time.Now(); now.Sub(relisted) > time.Minute {
			relisted = now
			m.relist()
		}
		m.mu.Lock()
		m.schedule(time.Now())
		m.mu.Unlock()
	}
}

// schedule queues what is due. The lock is held.
func (m *manager) schedule(now time.Time) {
	for _, e := range m.all {
		if e.pending == nil && !e.due.After(now) {
			e.pending = newOrder(e, false)
			m.loads.push(e.pending)
		}
	}
	m.metrics.waiting.Set(float64(m.orders.line.Len()))
}

// relist takes up listed domains that came since the view came into force. Those that went are kept until the next reload: a
// directory that is down for a while lists nothing.
func (m *manager) relist() {
	v := m.view.Load()
	if v == nil {
		return
	}
	names := v.listed()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if m.all[name] == nil {
			m.all[name] = &managed{name: name, origin: listed}
		}
	}
}

// renew queues a visit of a name that orders anew whatever its age.
func (m *manager) renew(name string) (*order, bool) {
	v := m.view.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.all[name]
	if e == nil && v != nil && v.knows(name) {
		// It may lie in the storage, pushed out of memory.
		e = &managed{name: name}
		m.all[name] = e
		m.count(e, 1)
	}
	if e == nil {
		return nil, false
	}
	// One that is at work already may be past the point where it would look at force; it is not waited for: the lock in the
	// storage keeps the two apart.
	o := newOrder(e, true)
	e.pending = o
	m.loads.push(o)
	return o, true
}

// finish ends a visit that went well, or whose certificate was not due.
func (m *manager) finish(o *order, sites []*site) {
	m.mu.Lock()
	e := o.m
	e.failures, e.lastErr, e.lastAt = 0, nil, time.Time{}
	if len(sites) > 0 && time.Now().Before(sites[0].renewal()) {
		delete(e.setbacks, sites[0].issuer) // perhaps by another node
	}
	e.due = nextLook(sites, m.silence(e, sites))
	m.jot(e)
	m.end(o)
	m.mu.Unlock()
}

// fail ends a visit that did not.
func (m *manager) fail(o *order, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := o.m
	// popgate stops: that is nobody's failure.
	if errors.Is(err, context.Canceled) {
		o.err = err
		m.end(o)
		return
	}
	if !fleeting(err) && !isAway(err) {
		e.failures++
	}
	e.lastErr, e.lastAt = err, time.Now()
	wait := m.pause(e, err)
	e.due = time.Now().Add(wait)
	o.err = err
	m.jot(e)
	// What strangers asked for takes no place once it has failed, but for a note.
	if e.origin == demanded && e.shown.Load() == nil && m.all[e.name] == e {
		m.remember(e, err)
		m.forget(e)
	}
	m.end(o)
	// What anybody can bring about must not fill the log.
	level := slog.LevelWarn
	if e.origin == demanded {
		level = slog.LevelInfo
	}
	m.log.Log(context.Background(), level, "no certificate for now", "name", e.name, "error", err, "again_in", wait.Round(time.Second).String())
}

// end is the end of every visit. The lock is held.
func (m *manager) end(o *order) {
	if o.m.pending == o {
		o.m.pending = nil
	}
	m.refund(o)
	o.show()
	close(o.done)
}

// post records an event where somebody wants it.
func (m *manager) post(e *audit.Event) {
	if v := m.view.Load(); v != nil && v.deps.Post != nil {
		v.deps.Post(e)
	}
}
