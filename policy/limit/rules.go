package limit

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/store"
)

// Rules are limits, resolved. They do not change; many may use them at once.
type Rules struct {
	bounds    [tags]bound       // outside overrides
	overrides [tags]*exceptions // nil where none sets the limit
	asks      [moments][]What   // what may be on
	exempt    []netip.Prefix
	bits4     int
	bits6     int
	delay     time.Duration
}

// NewRules makes Rules of a Config that has passed Validate.
func NewRules(c Config) *Rules {
	r := &Rules{exempt: slices.Clone(c.Exempt), bits4: c.Network.IPv4Prefix, bits6: c.Network.IPv6Prefix}
	for s, section := range c.sections() {
		for q, v := range section {
			if v != nil && !v.Inherited() {
				r.bounds[What{Scope(s), Quantity(q)}.tag()] = v.bound()
			}
		}
	}
	for i := range c.Overrides {
		r.override(i, &c.Overrides[i])
	}
	for m, whats := range asked {
		for _, w := range whats {
			if !r.bounds[w.tag()].off() || r.overrides[w.tag()] != nil {
				r.asks[m] = append(r.asks[m], w)
			}
		}
	}
	r.delay = time.Duration(r.bounds[What{User, LoginDelay}.tag()].turn)
	if o := r.overrides[What{User, LoginDelay}.tag()]; o != nil {
		r.delay = max(r.delay, time.Duration(o.longest))
	}
	return r
}

// Any says whether anything may be asked for at the moment. Where it is false for all clients, nothing needs to be done.
func (r *Rules) Any(m Moment) bool { return len(r.asks[m]) > 0 }

// MaxLoginDelay is the longest login_delay of any user, for CAPA before the login; 0 where there is none.
func (r *Rules) MaxLoginDelay() time.Duration { return r.delay }

// Places is how many asks there can be at Admission, of which those for places are held until the session ends.
func (r *Rules) Places() int { return len(r.asks[Admission]) }

// Exempt says that addr is in a network that nothing refuses and nothing paces.
func (r *Rules) Exempt(addr netip.Addr) bool { return within(r.exempt, addr.Unmap().WithZone("")) }

func within(networks []netip.Prefix, addr netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// A Subject is whose limits are asked for.
type Subject struct {
	Client *auth.Client
	// Route is where the login goes; nil, or without an account, where nobody knows yet.
	Route *auth.Route
	// Exempt is what Rules.Exempt says of the client.
	Exempt bool
}

// Ask appends what the subject has to ask for at the moment, the narrowest limit first. While it has no route, that is
// nothing of a user's or tenant's. The Tag of each says which limit it is, see Of. The keys are h's.
func (r *Rules) Ask(to []store.Ask, m Moment, h *store.Hasher, s *Subject) []store.Ask {
	paced := m == Downloading || m == Commanding
	if len(r.asks[m]) == 0 || paced && s.Exempt { // what an exempt client owed, others would have to wait for
		return to
	}
	w := who{rules: r, hasher: h, addr: s.Client.Addr.Addr().Unmap().WithZone(""), client: s.Client, exempt: s.Exempt}
	if s.Route != nil {
		w.route, w.account, w.tenant = s.Route, s.Route.Account, s.Route.Tenant
	}
	for _, what := range r.asks[m] {
		if !w.counts(what) {
			continue
		}
		tag := what.tag()
		b := r.bound(tag, &w)
		if b.off() {
			continue
		}
		key := w.key(what.Scope)
		if paced {
			// What is owed to a slower rate, or to a larger burst, before a reload must not outlast it: each has a count of its own.
			key += store.Key(b.turn)*0x9e3779b97f4a7c15 + store.Key(b.most)*0xd1b54a32d192ed03
		}
		if s.Exempt {
			b.most = 0
		}
		to = append(to, store.Ask{Key: key.Of(class[what.Scope], tag), Turn: b.turn, Most: b.most, Tag: tag, Whole: what.Quantity == LoginDelay})
	}
	return to
}

// who is a Subject, taken apart for one call.
type who struct {
	rules   *Rules
	hasher  *store.Hasher
	addr    netip.Addr
	client  *auth.Client
	route   *auth.Route
	account string // "" where nobody knows yet
	tenant  string
	exempt  bool
	known   [scopes]bool // which keys are
	keys    [scopes]store.Key
}

// key is what a scope's counts are kept under.
func (w *who) key(s Scope) store.Key {
	if !w.known[s] {
		w.known[s], w.keys[s] = true, w.hash(s)
	}
	return w.keys[s]
}

func (w *who) hash(s Scope) store.Key {
	switch s {
	case Listener:
		return w.hasher.Text(w.client.Listener)
	case IP:
		return w.hasher.Network(auth.Network(w.addr))
	case Network:
		bits := w.rules.bits4
		if w.addr.Is6() {
			bits = w.rules.bits6
		}
		p, _ := w.addr.Prefix(bits) // the zero Prefix for the zero Addr
		return w.hasher.Network(p)
	case User:
		return w.hasher.Pair(w.route.Backend, w.account)
	case Tenant:
		return w.hasher.Text(w.tenant)
	}
	return w.hasher.Text("")
}

// class says who can make keys of a scope.
var class = [scopes]store.Class{
	All: store.Fixed, Listener: store.Fixed, IP: store.Strangers, Network: store.Strangers, User: store.Users, Tenant: store.Users,
}

// counts says whether the limit is counted for the subject.
func (w *who) counts(what What) bool {
	switch what.Scope {
	case Tenant:
		return w.tenant != ""
	case User:
		// A webmail that logs in all the time must not use up the logins that its users have elsewhere.
		return w.account != "" && (!w.exempt || what.Quantity == Sessions)
	}
	return true
}

// exceptions are the overrides that set one limit, each list in order. One that is for users is found by those, one that is
// for tenants by them, and one for networks alone is looked at for each client.
type exceptions struct {
	users, tenants map[string][]exception
	rest           []exception
	longest        int64 // turn
}

// An exception is what one override says of one limit.
type exception struct {
	bound
	order    int
	networks []netip.Prefix
	tenants  []string
}

// override enters what o sets.
func (r *Rules) override(order int, o *Override) {
	for s, section := range o.sections() {
		for q, v := range section {
			if v == nil || v.Inherited() {
				continue
			}
			tag := What{Scope(s), Quantity(q)}.tag()
			if r.overrides[tag] == nil {
				r.overrides[tag] = &exceptions{users: map[string][]exception{}, tenants: map[string][]exception{}}
			}
			r.overrides[tag].add(o, exception{bound: v.bound(), order: order, networks: o.Networks, tenants: o.Tenants})
		}
	}
}

func (x *exceptions) add(o *Override, e exception) {
	x.longest = max(x.longest, e.turn)
	switch {
	case len(o.Users) > 0:
		for _, text := range o.Users {
			if a, err := auth.ParseAccounts(text); err == nil {
				x.users[a] = append(x.users[a], e)
			}
		}
	case len(o.Tenants) > 0:
		for _, t := range o.Tenants {
			x.tenants[t] = append(x.tenants[t], e)
		}
	default:
		x.rest = append(x.rest, e)
	}
}

// bound is what holds for the subject.
func (r *Rules) bound(tag uint8, w *who) bound {
	x := r.overrides[tag]
	if x == nil {
		return r.bounds[tag]
	}
	first := w.first(x.rest, nil)
	if w.account != "" {
		first = w.first(x.users[w.account], first)
		if at := strings.LastIndexByte(w.account, '@'); at >= 0 {
			first = w.first(x.users[w.account[at:]], first)
		}
	}
	if w.tenant != "" {
		first = w.first(x.tenants[w.tenant], first)
	}
	if first == nil {
		return r.bounds[tag]
	}
	return first.bound
}

// first is the first of list that fits, if that comes before the one found already.
func (w *who) first(list []exception, found *exception) *exception {
	for i := range list {
		e := &list[i]
		if found != nil && e.order > found.order {
			return found
		}
		if (len(e.networks) == 0 || within(e.networks, w.addr)) && (len(e.tenants) == 0 || slices.Contains(e.tenants, w.tenant)) {
			return e
		}
	}
	return found
}
