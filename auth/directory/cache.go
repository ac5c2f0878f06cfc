package directory

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/popgate/popgate/auth"
)

// How says where an answer came from.
type How string

// Where answers come from.
const (
	Fresh  How = "fresh"  // the source was asked for it
	Cached How = "cached" // it was remembered, and its time is not over
	Stale  How = "stale"  // it was remembered, its time is over, and the source could not be asked
)

const (
	// refreshEvery is how often a refused password can have one user's answer fetched anew.
	refreshEvery = 10 * time.Second
	// retryEvery is how often an answer whose time is over is tried again while the source does not give it.
	retryEvery = time.Second
	// minUnknown is how many unknown users even a small cache remembers.
	minUnknown = 1000
)

// A key is what an answer depends on. Sources see a name in three forms, of which any can make a difference.
type key struct {
	typed, local, domain string
	rest                 string // what else the answer depends on, the password as keyed digest; "" for nothing
}

// An entry is a remembered answer. Only its two times and its mark change.
type entry struct {
	answer *Answer
	at     int64        // when the source gave it
	tried  atomic.Int64 // when the source was last asked for it
	failed atomic.Bool  // and did not give it
	marked atomic.Bool  // ask again at the next login
}

// A cache stands before one source. Any goroutine may use it.
type cache struct {
	config CacheConfig
	vary   Vary
	asker  *asker
	stats  *stats
	epoch  time.Time
	digest [32]byte // the key that passwords are digested under

	known   *otter.Cache[key, *entry] // nil remembers nothing
	unknown *otter.Cache[key, int64]  // until when; apart, so that made-up names push no known user out

	mu      sync.Mutex
	flights map[key]*flight
}

// newCache makes the cache before what a asks.
func newCache(c CacheConfig, vary Vary, a *asker, s *stats) *cache {
	m := &cache{config: c, vary: vary, asker: a, stats: s, epoch: time.Now(), flights: map[key]*flight{}}
	_, _ = rand.Read(m.digest[:]) // it never fails
	if c.Size > 0 && (vary&VarySecret == 0 || c.Secrets) {
		m.known = otter.Must(&otter.Options[key, *entry]{MaximumSize: c.Size})
		m.unknown = otter.Must(&otter.Options[key, int64]{MaximumSize: max(c.Size/10, minUnknown)})
	}
	return m
}

// now is a clock that never goes back, in nanoseconds.
func (m *cache) now() int64 { return int64(time.Since(m.epoch)) }

// key makes the key of q. Where the answer depends on the name alone, it allocates nothing.
func (m *cache) key(q *auth.Query) key {
	k := key{typed: q.Name.Typed, local: q.Name.Local, domain: q.Name.Domain}
	if m.vary&^VaryUser == 0 {
		return k
	}
	var b []byte
	text := func(s string) { b = fmt.Appendf(b, "%d:%s", len(s), s) }
	if m.vary&VaryClient != 0 {
		text(q.Client.Addr.Addr().String())
		subject, fingerprint := "", ""
		if t := q.Client.TLS; t != nil { // a service is told the certificate: who has none must not share the answer of who has one
			subject, fingerprint = t.Subject, t.Fingerprint
		}
		text(subject)
		text(fingerprint)
	}
	if m.vary&VarySNI != 0 {
		text(q.Client.ServerName())
	}
	if m.vary&VaryListener != 0 {
		text(q.Client.Listener)
	}
	if m.vary&VarySecret != 0 {
		d := q.Secret.Digest(m.digest[:])
		b = append(b, d[:]...)
	}
	k.rest = string(b)
	return k
}

// A found is what the cache says of a user: an answer, or why there is none. Of a refused password the answer may hold Wait.
type found struct {
	answer *Answer
	how    How
	at     int64 // when the source gave it
	err    error // wraps auth.ErrUnknownUser, auth.ErrWrongPassword, or auth.ErrDirectoryDown
}

// lookup returns what is known of q's user, asking the source if need be. It returns ctx's error when that ends first.
func (m *cache) lookup(ctx context.Context, q *auth.Query) found {
	k := m.key(q)
	now := m.now()
	e, f, ok := m.remembered(k, now)
	if ok {
		return f
	}
	if e != nil && m.hopeless(e, now) {
		if m.asker.health.probe() {
			m.fly(k, q, e) // nobody waits for it
		}
		return m.stale(e)
	}
	if err := m.asker.health.broken(); err != nil && e == nil && !m.asker.health.probe() {
		m.stats.add(cacheMiss)
		return found{how: Fresh, at: now, err: err}
	}
	fl, first := m.fly(k, q, e)
	if first {
		m.stats.add(cacheMiss)
	} else {
		m.stats.add(cacheShared)
	}
	f = fl.wait(ctx)
	if f.err != nil && !answered(f.err) && m.usable(e, m.now()) {
		return m.stale(e)
	}
	return f
}

// remembered looks for an answer whose time is not over. It returns the entry in any case, if it can still be used.
func (m *cache) remembered(k key, now int64) (*entry, found, bool) {
	if m.known == nil {
		return nil, found{}, false
	}
	if e, ok := m.known.GetIfPresent(k); ok {
		if now-e.at < int64(m.config.TTL) && !m.due(e, now) {
			m.stats.add(cacheHit)
			return e, found{answer: e.answer, how: Cached, at: e.at}, true
		}
		if m.usable(e, now) {
			return e, found{}, false
		}
		return nil, found{}, false
	}
	if until, ok := m.unknown.GetIfPresent(k); ok && now < until {
		m.stats.add(cacheNegative)
		return nil, found{how: Cached, at: until - int64(m.config.NegativeTTL), err: auth.ErrUnknownUser}, true
	}
	return nil, found{}, false
}

// due says that a refused password has cast doubt on an answer, and that the source was not asked a moment ago.
func (m *cache) due(e *entry, now int64) bool {
	return e.marked.Load() && now-e.tried.Load() >= int64(refreshEvery)
}

// usable says that an answer may be used while the source cannot give another.
func (m *cache) usable(e *entry, now int64) bool {
	return e != nil && now-e.at < int64(m.config.TTL)+int64(m.config.StaleFor)
}

// hopeless says that to wait for the source would most likely only cost time.
func (m *cache) hopeless(e *entry, now int64) bool {
	return m.asker.health.failing() || e.failed.Load() && now-e.tried.Load() < int64(retryEvery)
}

func (m *cache) stale(e *entry) found {
	m.stats.add(cacheStale)
	return found{answer: e.answer, how: Stale, at: e.at}
}

// answered says that the source has said something about the user: err is its answer.
func answered(err error) bool {
	return err == nil || errors.Is(err, auth.ErrUnknownUser) || errors.Is(err, auth.ErrWrongPassword)
}

// A flight is one question to the source, for all who have the same.
type flight struct {
	done  chan struct{} // closed when found is there
	over  bool          // under the cache's mu: found is there
	found found
	by    context.Context // ends when the source must have answered
	late  func()          // ends the flight when it has not
}

// wait returns what the flight finds. Whoever stops waiting leaves the flight to the others.
func (f *flight) wait(ctx context.Context) found {
	select {
	case <-f.done:
	case <-ctx.Done():
		return found{how: Fresh, err: ctx.Err()}
	case <-f.by.Done():
		return f.overdue(ctx)
	}
	return f.found
}

// landing is the time that a flight has to say by itself why it comes to nothing, when its own is over: that it never had its turn,
// which is not held against the source, or what the source made of its deadline.
const landing = 50 * time.Millisecond

// overdue ends a flight whose source does not look at its context: it holds up nobody.
func (f *flight) overdue(ctx context.Context) found {
	t := time.NewTimer(landing)
	defer t.Stop()
	select {
	case <-f.done:
	case <-ctx.Done():
		return found{how: Fresh, err: ctx.Err()}
	case <-t.C:
		f.late()
	}
	return f.found
}

// fly asks the source, or joins who does already. e is the entry that the answer replaces, nil for none.
func (m *cache) fly(k key, q *auth.Query, e *entry) (f *flight, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f = m.flights[k]; f != nil {
		return f, false
	}
	own := *q // the caller may leave before the source has answered
	own.Secret = nil
	if m.vary&VarySecret != 0 {
		own.Secret = q.Secret.Clone()
	}
	ctx, cancel := m.asker.deadline()
	f = &flight{done: make(chan struct{}), by: ctx}
	f.late = func() { // it stays under way: nobody asks the same as long as it hangs
		m.mu.Lock()
		defer m.mu.Unlock()
		if !f.over { // else its time has ended with it
			m.land(f, k, e, &Answer{}, m.asker.late(k.typed))
		}
	}
	if !m.asker.begin() {
		cancel()
		m.land(f, k, nil, &Answer{}, m.asker.down(errClosed))
		return f, true
	}
	m.flights[k] = f
	if e != nil {
		e.tried.Store(m.now())
	}
	go func() {
		defer m.asker.flying.Done()
		defer cancel()
		answer, err := m.asker.ask(ctx, &own)
		own.Secret.Wipe()
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.flights, k) // who comes now finds the answer, or asks again
		m.land(f, k, e, &answer, err)
	}()
	return f, true
}

// land makes the end of a flight known, once. The caller holds mu, so that no later answer is overtaken by an earlier one.
func (m *cache) land(f *flight, k key, e *entry, answer *Answer, err error) {
	if f.over {
		return
	}
	f.over = true
	f.found = found{answer: answer, how: Fresh, at: m.now(), err: err}
	if m.known != nil {
		m.remember(k, e, f.found)
	}
	close(f.done)
}

// remember takes over what the source said. Only its own word takes an answer away.
func (m *cache) remember(k key, e *entry, f found) {
	switch {
	case f.err == nil:
		fresh := &entry{answer: f.answer, at: f.at}
		fresh.tried.Store(f.at)
		m.known.Set(k, fresh)
		m.unknown.Invalidate(k)
	case errors.Is(f.err, auth.ErrUnknownUser):
		if m.config.NegativeTTL > 0 {
			m.unknown.Set(k, f.at+int64(m.config.NegativeTTL))
		}
		m.known.Invalidate(k)
	case errors.Is(f.err, auth.ErrWrongPassword):
		// A refusal is not remembered: the source may count them, and the user may have this password next.
		m.known.Invalidate(k) // the key has the password in it, so this is nobody else's answer
	case e != nil:
		e.failed.Store(true) // and its mark stays
	}
}

// refresh has a later login ask the source for q's user: the next one, or the first when refreshEvery is over since it was asked
// last. The answer that is known stays until there is another.
func (m *cache) refresh(q *auth.Query) {
	if m.known == nil {
		return
	}
	if e, ok := m.known.GetIfPresent(m.key(q)); ok {
		e.marked.Store(true)
	}
}
