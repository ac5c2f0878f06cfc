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
	counts    [scopes]bool      // whether anything of the scope is on
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
				r.counts[w.Scope] = true
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

// Client tells who comes, as far as it is known before the login. The keys of what is counted are the hasher's.
func (r *Rules) Client(h store.Hasher, c *auth.Client) Client {
	addr := c.Addr.Addr().Unmap().WithZone("")
	who := Client{rules: r, addr: addr, exempt: within(r.exempt, addr)}
	if r.counts[All] {
		who.keys[All] = h.Text("")
	}
	if r.counts[Listener] {
		who.keys[Listener] = h.Text(c.Listener)
	}
	if r.counts[IP] {
		who.keys[IP] = h.Network(auth.Network(addr))
	}
	if r.counts[Network] {
		who.keys[Network] = h.Network(r.network(addr))
	}
	return who
}

// network is the wider network that addr is counted under; the zero Prefix where addr is the zero Addr.
func (r *Rules) network(addr netip.Addr) netip.Prefix {
	bits := r.bits4
	if addr.Is6() {
		bits = r.bits6
	}
	p, _ := addr.Prefix(bits)
	return p
}

func within(networks []netip.Prefix, addr netip.Addr) bool {
	for _, p := range networks {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// A Client is whose limits are asked for: a client, and after Enter the user that it logs in as.
type Client struct {
	rules   *Rules
	addr    netip.Addr
	exempt  bool
	entered bool
	account string
	tenant  string
	keys    [scopes]store.Key
}

// Exempt says that the client is from a network that nothing refuses and nothing paces.
func (c *Client) Exempt() bool { return c.exempt }

// Enter tells where the login goes. It may be called again, for another login.
func (c *Client) Enter(h store.Hasher, to *auth.Route) {
	c.entered, c.account, c.tenant = true, to.Account, to.Tenant
	if c.rules.counts[User] {
		c.keys[User] = h.Pair(to.Backend, to.Account)
	}
	if c.rules.counts[Tenant] {
		c.keys[Tenant] = h.Text(to.Tenant)
	}
}

// Asks appends what the client has to ask for at the moment, the narrowest limit first. Before Enter, it is nothing of a
// user's or tenant's. The Tag of each says which limit it is, see Of.
func (c *Client) Asks(m Moment, to []store.Ask) []store.Ask {
	paced := m == Downloading || m == Commanding
	if paced && c.exempt {
		return to // what it owed, others would have to wait for
	}
	for _, w := range c.rules.asks[m] {
		if !c.counts(w) {
			continue
		}
		tag := w.tag()
		b := c.rules.bound(tag, c)
		if b.off() {
			continue
		}
		key := c.keys[w.Scope]
		if paced {
			// What is owed to a slower rate, before a reload, must not outlast it: each rate has a count of its own.
			key += store.Key(b.turn) * 0x9e3779b97f4a7c15
		}
		if c.exempt {
			b.most = 0
		}
		to = append(to, store.Ask{Key: key.Of(class[w.Scope], tag), Turn: b.turn, Most: b.most, Tag: tag})
	}
	return to
}

// class says who can make keys of a scope.
var class = [scopes]store.Class{
	All: store.Fixed, Listener: store.Fixed, IP: store.Strangers, Network: store.Strangers, User: store.Users, Tenant: store.Users,
}

// counts says whether the limit is counted for the client.
func (c *Client) counts(w What) bool {
	switch w.Scope {
	case Tenant:
		return c.entered && c.tenant != ""
	case User:
		// A webmail that logs in all the time must not use up the logins that its users have elsewhere.
		return c.entered && (!c.exempt || w.Quantity == Sessions)
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
			if a, err := account(text); err == nil {
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

// bound is what holds for the client.
func (r *Rules) bound(tag uint8, c *Client) bound {
	x := r.overrides[tag]
	if x == nil {
		return r.bounds[tag]
	}
	first := c.first(x.rest, nil)
	if c.entered {
		first = c.first(x.users[c.account], first)
		if at := strings.LastIndexByte(c.account, '@'); at >= 0 {
			first = c.first(x.users[c.account[at:]], first)
		}
		first = c.first(x.tenants[c.tenant], first)
	}
	if first == nil {
		return r.bounds[tag]
	}
	return first.bound
}

// first is the first of list that fits the client, if that comes before the one found already.
func (c *Client) first(list []exception, found *exception) *exception {
	for i := range list {
		e := &list[i]
		if found != nil && e.order > found.order {
			return found
		}
		if (len(e.networks) == 0 || within(e.networks, c.addr)) && (len(e.tenants) == 0 || slices.Contains(e.tenants, c.tenant)) {
			return e
		}
	}
	return found
}
