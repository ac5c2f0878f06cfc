package backend

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/auth"
)

const (
	// maxGuests bounds the servers that directories have named and that are remembered.
	maxGuests = 4096
	// guestIdle is how long one is remembered that nobody logs in at.
	guestIdle = time.Hour
	// labelDirectory stands in metrics for all of them: a directory shall not be able to multiply series.
	labelDirectory = "directory"
)

var errNoServers = errors.New("the backend has no servers of its own, and no directory has named one for the user")

// guests are the servers that directories have named, of all backends. They are remembered across reloads, up to a bound:
// beyond it, the one goes that was not used for the longest time.
type guests struct {
	mu      sync.Mutex
	byID    map[guestID]*list.Element
	byUse   *list.List         // of *guest; the one used last comes first
	counts  map[string]*counts // by backend; all of a backend's are counted as one
	arrived chan *guest        // those that nobody watches yet
}

type guestID struct{ backend, address, mode string }

// A guest is one server that a directory has named.
type guest struct {
	id      guestID
	member  *member
	pool    *Pool // whose member it is
	used    time.Duration
	watched bool
	gone    atomic.Bool // it is not remembered any more
}

func newGuests() guests {
	return guests{
		byID:    map[guestID]*list.Element{},
		byUse:   list.New(),
		counts:  map[string]*counts{},
		arrived: make(chan *guest, 64),
	}
}

// named is the member for a server that a directory has named, which may be one of the configuration's.
func (p *Pool) named(s auth.Server) (*member, error) {
	mode := s.TLS
	switch mode {
	case "":
		mode = p.mode
	case TLSNone, TLSStart, TLSImplicit:
	default:
		return nil, fmt.Errorf("the directory's answer says that TLS is %q there; it must be none, starttls or implicit", mode)
	}
	a, err := parseAddress(s.Address, mode)
	if err != nil {
		return nil, fmt.Errorf("the server that the directory named %w", err)
	}
	if mode == p.mode {
		for _, m := range p.members {
			if m.address.text == a.text {
				return m, nil
			}
		}
	}
	return p.backends.guest(p, a, mode), nil
}

// guest finds a server that a directory has named, or begins to remember it.
func (b *Backends) guest(p *Pool, a address, mode string) *member {
	g := &b.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	id := guestID{p.config.Name, a.text, mode}
	at := g.byID[id]
	if at == nil {
		if len(g.byID) >= maxGuests {
			g.forgetOldest()
		}
		at = g.byUse.PushFront(&guest{id: id})
		g.byID[id] = at
	}
	g.byUse.MoveToFront(at)
	one := at.Value.(*guest)
	one.used = b.now()
	m := one.member
	if one.pool != p {
		m = one.as(p, a, g.countsOf(id.backend))
		if one.pool == nil || b.view.Load().pools[id.backend] == p { // not by a login from before a reload
			one.become(p, m)
		}
	}
	if !one.watched {
		select {
		case g.arrived <- one:
			one.watched = true
		default: // the next login asks again
		}
	}
	return m
}

// as makes a member of p that is g, with what is known of the server already.
func (g *guest) as(p *Pool, a address, shared *counts) *member {
	m := newMember(a, 1)
	if g.member != nil {
		m.server = g.member.server
	} else {
		m.server = newServer(g.id.backend, a.text)
		m.server.shared = shared
	}
	pl := newPlan(&p.config, g.id.mode)
	m.plan = &pl
	m.address.name = &m.server.name
	m.limit(&p.config, &ServerConfig{})
	if g.id.mode != TLSNone {
		m.tls = serverTLS(p.tls, &p.config, a.host)
	}
	return m
}

// become makes m, a member of p, what g is from now on.
func (g *guest) become(p *Pool, m *member) {
	g.member, g.pool = m, p
	m.server.pacer = m.pacer
	m.server.places.raise(m.maxSessions)
}

func (g *guests) countsOf(backend string) *counts {
	c := g.counts[backend]
	if c == nil {
		c = &counts{}
		g.counts[backend] = c
	}
	return c
}

// busy says that there is something about g that should not be forgotten: sessions, or that an operator has drained it.
func (g *guest) busy() bool {
	s := g.member.server
	return s.places.taken.Load() > 0 || s.drained.Load()
}

// forgetOldest forgets the guest that was not used for the longest time, and would not be missed if that can be.
func (g *guests) forgetOldest() {
	oldest := g.byUse.Back()
	for at, n := oldest, 0; at != nil && n < 64; at, n = at.Prev(), n+1 {
		if !at.Value.(*guest).busy() {
			oldest = at
			break
		}
	}
	g.forget(oldest)
}

func (g *guests) forget(at *list.Element) {
	one := at.Value.(*guest)
	one.gone.Store(true)
	one.member.server.suspect() // wakes who watches it
	one.member.server.name.again()
	g.byUse.Remove(at)
	delete(g.byID, one.id)
}

// idle forgets one where nobody has used it for long, and says so.
func (b *Backends) idle(one *guest) bool {
	g := &b.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.byID[one.id]
	if at == nil || at.Value != one {
		return true
	}
	if b.now()-one.used < guestIdle || one.busy() {
		return false
	}
	g.forget(at)
	return true
}

// adopt makes the guests ready for a view: those of its backends are to be watched anew, the others are forgotten.
func (b *Backends) adopt(v *View) []watched {
	g := &b.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.arrived) > 0 {
		<-g.arrived
	}
	var all []watched
	var next *list.Element
	for at := g.byUse.Front(); at != nil; at = next {
		next = at.Next()
		one := at.Value.(*guest)
		if p := g.settle(v, at); p != nil {
			one.watched = true
			all = append(all, watched{one, p, one.member})
		}
	}
	for name := range g.counts {
		if v.pools[name] == nil {
			delete(g.counts, name)
		}
	}
	return all
}

// A watched is a guest as a view has it. What a guest is may change under guests.mu at any time.
type watched struct {
	guest  *guest
	pool   *Pool
	member *member
}

// settle makes the guest at at what it is by v, and returns its pool. It is forgotten where v does not have its backend: a
// login from before a reload may have named it since.
func (g *guests) settle(v *View, at *list.Element) *Pool {
	one := at.Value.(*guest)
	p := v.pools[one.id.backend]
	switch {
	case p == nil:
		g.forget(at)
	case one.pool != p:
		one.become(p, one.as(p, one.member.address, g.countsOf(one.id.backend)))
	}
	return p
}

// welcome is the same for a guest that has arrived since v was adopted; ok is that it is to be watched.
func (b *Backends) welcome(v *View, one *guest) (w watched, ok bool) {
	g := &b.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.byID[one.id]
	if at == nil || at.Value != one {
		return w, false
	}
	p := g.settle(v, at)
	if p == nil {
		delete(g.counts, one.id.backend)
	}
	return watched{one, p, one.member}, p != nil
}

// of lists the members that a backend has by a directory's word, those used last first.
func (g *guests) of(backend string) []*member {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []*member
	for at := g.byUse.Front(); at != nil; at = at.Next() {
		if one := at.Value.(*guest); one.id.backend == backend {
			all = append(all, one.member)
		}
	}
	return all
}

// watchGuest checks a server that a directory has named, as others are, until it is forgotten or ctx ends.
func (b *Backends) watchGuest(ctx context.Context, w watched) {
	p, one, m := w.pool, w.guest, w.member
	if m.server.caps.Load() == nil {
		b.view.Load().refresh() // what it can do is not known yet
	}
	delay := rand.N(checkSpread)
	for wait(ctx, delay, m.server.poke) && !one.gone.Load() {
		if b.idle(one) {
			break
		}
		p.checkServer(ctx, m)
		if !wait(ctx, checkGap, nil) {
			return
		}
		delay = min(p.checkAgain(m), guestIdle/4)
	}
	if ctx.Err() == nil {
		b.view.Load().refresh()
	}
}
