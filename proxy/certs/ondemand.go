package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
	"github.com/popgate/popgate/proxy/certs/dns"
)

// refusal is a reason of our own not to order.
type refusal struct {
	reason   string
	fleeting bool // it says nothing about the name
}

func (r *refusal) Error() string { return r.reason }

func fleeting(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.fleeting
}

// away says that the storage could not be asked. That is over once it is back, however long it has lasted.
type away struct{ error }

func (a *away) Unwrap() error { return a.error }

func isAway(err error) bool {
	_, ok := errors.AsType[*away](err)
	return ok
}

// servedPause is the least time until a name that clients are served with is tried again after a fleeting refusal.
const servedPause = 5 * time.Minute

// pause is how long a name waits after err. The lock is held.
func (m *manager) pause(e *managed, err error) time.Duration {
	if isAway(err) {
		return m.backoff(err, 1)
	}
	wait := m.backoff(err, e.failures)
	// The short wait is for clients without a certificate; nobody is in a hurry here.
	if fleeting(err) && e.shown.Load() != nil {
		wait = max(wait, servedPause)
	}
	return wait
}

// remember notes that a name got no certificate, for all clients. The lock is held.
func (m *manager) remember(e *managed, err error) {
	// Or whoever has used up his own budget could keep a name from everybody else.
	if !fleeting(err) {
		m.recall.put(e.name, note{until: e.due, failures: e.failures})
	}
}

// knows says whether a name is one that clients may have a certificate ordered for: it fits a template, and its domain is known. This
// alone decides; neither a client nor DNS can say yes.
func (v *acmeView) knows(name string) bool {
	if v.deps.Knows == nil || !auth.Hostname(name) {
		return false
	}
	for _, t := range v.templates {
		if d := t.domain(name); d != "" && v.deps.Knows(d) {
			return true
		}
	}
	return false
}

// listed are the names of the domains that can be listed.
func (v *acmeView) listed() []string {
	if v.deps.Domains == nil || len(v.templates) == 0 {
		return nil
	}
	var names []string
	for _, d := range v.deps.Domains() {
		for _, t := range v.templates {
			if n, err := normal(t.name(d)); err == nil && !strings.HasPrefix(n, "*.") {
				names = append(names, n)
			}
		}
	}
	return names
}

// clientConn is how the gateway's connections say whose they are: behind a load balancer the address of the connection is
// the balancer's.
type clientConn interface{ Client() *auth.Client }

// networkOf is the client's network, and the address it came to.
func networkOf(hello *tls.ClientHelloInfo) (network netip.Prefix, local netip.Addr) {
	if c, ok := hello.Conn.(clientConn); ok {
		client := c.Client()
		return client.Network(), client.Local.Addr()
	}
	var c auth.Client
	if hello.Conn != nil {
		c.Addr, c.Local = addrPort(hello.Conn.RemoteAddr()), addrPort(hello.Conn.LocalAddr())
	}
	if !c.Addr.IsValid() {
		return netip.Prefix{}, c.Local.Addr()
	}
	return c.Network(), c.Local.Addr()
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// await gives the certificates of a name that has none in memory, if it is to have one and that comes soon enough. ours says that it is
// to have one.
func (m *manager) await(hello *tls.ClientHelloInfo, name string) (certs []*tls.Certificate, ours bool) {
	o, ours := m.expected(hello, name)
	if o == nil {
		return nil, ours
	}
	select {
	case m.patient <- struct{}{}:
		defer func() { <-m.patient }()
	default:
		m.metrics.impatient.Inc()
		return nil, true
	}
	late := time.NewTimer(m.wait)
	defer late.Stop()
	select {
	case <-o.ready:
	case <-late.C:
	case <-hello.Context().Done():
	}
	return m.find(name), true
}

// expected gives the order that is at work for a name, and starts one where a client may.
func (m *manager) expected(hello *tls.ClientHelloInfo, name string) (o *order, ours bool) {
	v := m.view.Load()
	// Before any lock: most of what strangers make up ends here.
	if !v.covers(name) && !v.knows(name) {
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.managedFor(name); e != nil {
		m.hurry(e.pending)
		return e.pending, true
	}
	if v.covers(name) {
		return nil, true // a reload is at work
	}
	if time.Now().Before(m.recall.get(name).until) {
		return nil, true
	}
	if m.waiting >= v.section.OnDemand.MaxWaiting {
		m.metrics.refused.WithLabelValues("queue").Inc()
		return nil, true
	}
	network, _ := networkOf(hello)
	key := m.budgets.hasher.Network(network)
	// Before the name has a place: others would wait there for an order that this client cannot have.
	if !m.budgets.left(key, v.section.OnDemand.PerNetwork, m.now()) {
		m.metrics.refused.WithLabelValues("network").Inc()
		return nil, true
	}
	e := &managed{name: name, network: key, failures: m.recall.get(name).failures}
	m.all[name] = e
	m.count(e, 1)
	e.pending = newOrder(e, false)
	m.loads.push(e.pending)
	return e.pending, true
}

// left says whether a network may still have a name ordered. It takes nothing: the name may lie in the storage.
func (b *budgets) left(network store.Key, rate limit.Rate, now int64) bool {
	paid, ok := b.networks.Take(network, rate, now)
	if ok && !rate.Off() {
		b.networks.Give(network, rate, paid, now)
	}
	return ok
}

// managedFor is the managed name that covers a name. The lock is held.
func (m *manager) managedFor(name string) *managed {
	if e := m.all[name]; e != nil {
		return e
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		return m.all["*."+parent]
	}
	return nil
}

// allowed says whether an order may be placed. Names from the configuration are the operator's own word; others must lead here and be
// allowed by CAA, and those that clients bring up must not come in too great numbers. What has a certificate is renewed at nobody's expense.
func (m *manager) allowed(ctx context.Context, v *acmeView, o *order) error {
	m.mu.Lock()
	own := o.m.origin == configured || o.force
	asked := o.m.origin == demanded
	m.mu.Unlock()
	if own {
		return nil
	}
	name, first := o.m.name, o.m.shown.Load() == nil
	if asked && !v.knows(name) {
		return m.refuse("unknown", &refusal{reason: "no route knows the domain of " + name + " any more"})
	}
	if asked && first {
		// First of all, so that a scan does not even make us ask DNS.
		if _, ok := m.budgets.networks.Take(o.m.network, v.section.OnDemand.PerNetwork, m.now()); !ok {
			return m.refuse("network", &refusal{fleeting: true, reason: fmt.Sprintf(
				"its client's network has asked for %s other names (tls.acme.on_demand.per_network)", v.section.OnDemand.PerNetwork)})
		}
	}
	if err := v.leadsHere(ctx, name); err != nil {
		return m.refuse("address", err)
	}
	if err := v.caaAllows(ctx, name); err != nil {
		return m.refuse("caa", err)
	}
	// Of listed domains the operator knows how many names they have; their orders have tls.acme.orders.
	if !first || !asked {
		return nil
	}
	parent, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		parent = name
	}
	if _, ok := m.budgets.parents.Take(m.budgets.hasher.Pair("parent", parent), v.section.OnDemand.PerDomain, m.now()); !ok {
		return m.refuse("domain", &refusal{reason: fmt.Sprintf("%s of the names below %s have been ordered (tls.acme.on_demand.per_domain)",
			v.section.OnDemand.PerDomain, parent)})
	}
	return nil
}

// refuse counts err where it is a refusal and not trouble on the way.
func (m *manager) refuse(kind string, err error) error {
	if _, ok := errors.AsType[*refusal](err); ok {
		m.metrics.refused.WithLabelValues(kind).Inc()
	}
	return err
}

// leadsHere says whether a name resolves to us alone: an issuer may connect to any of its addresses.
func (v *acmeView) leadsHere(ctx context.Context, name string) error {
	here, err := v.here()
	if err != nil {
		return err
	}
	addrs, err := v.resolver.Addrs(ctx, name)
	if errors.Is(err, dns.ErrNoRecord) {
		return &refusal{reason: name + " does not resolve: let it lead to this host"}
	}
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if !slices.Contains(here, a.Unmap()) {
			return &refusal{reason: fmt.Sprintf("%s resolves to %s, which is not one of ours: correct its DNS, or list the address under "+
				"tls.acme.on_demand.addresses", name, a)}
		}
	}
	return nil
}

// here are our addresses: what is configured, or else what the interfaces say.
func (v *acmeView) here() ([]netip.Addr, error) {
	if list := v.section.OnDemand.Addresses; len(list) > 0 {
		return list, nil
	}
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("find this host's addresses: %w", err)
	}
	var all []netip.Addr
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return reachable(all), nil
}

// reachable are those of this host's addresses that an issuer may connect to: the public ones. A host that has none is on a network of
// its own, with an issuer there.
func reachable(all []netip.Addr) []netip.Addr {
	// These are the same on every host: a name that leads to one leads nowhere.
	all = slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsGlobalUnicast() })
	public := slices.DeleteFunc(slices.Clone(all), netip.Addr.IsPrivate)
	if len(public) > 0 {
		return public
	}
	return all
}

// caaAllows says whether one of the issuers may issue, as far as CAA records tell (RFC 8659).
func (v *acmeView) caaAllows(ctx context.Context, name string) error {
	records, err := v.resolver.CAA(ctx, name)
	if err != nil {
		return err
	}
	if len(records.Records) == 0 {
		return nil
	}
	for _, iss := range v.issuers {
		// One that does not say what it is called there has to look for itself.
		if names := iss.caaNames(ctx); len(names) == 0 || records.Allows(names, false) {
			return nil
		}
	}
	return &refusal{reason: fmt.Sprintf("%s forbids our issuers by CAA (%v): add a record for one of them", name, records)}
}
