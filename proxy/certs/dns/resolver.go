package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	miekg "github.com/miekg/dns"
)

// ErrNoRecord says that the DNS answered, and that there is nothing of the kind: an unknown name, or a name without such
// records. Any other error of a look-up is trouble on the way, and says nothing about the name.
var ErrNoRecord = errors.New("no such record")

// A Resolver asks DNS servers directly: what /etc/hosts says is not what a certificate authority will see. It may be used at
// once.
type Resolver struct {
	servers func() ([]string, error) // host:port
	timeout time.Duration            // one server, one transport
	// ask sends m to server over UDP or TCP.
	ask func(ctx context.Context, network string, m *miekg.Msg, server string) (*miekg.Msg, error)
}

// What one answer may hold before the rest is passed over, and how long a chain of CNAMEs is followed.
const (
	maxAddrs  = 64
	maxCAA    = 64
	maxCNAMEs = 10
)

// queryTimeout is what one server has for its answer, over UDP and again over TCP.
const queryTimeout = 3 * time.Second

// NewResolver makes a Resolver that asks server ("192.0.2.53", "[::1]:5353"), or with "" those of /etc/resolv.conf, read
// anew at each look-up.
func NewResolver(server string) (*Resolver, error) {
	if server == "" {
		return newResolver(systemServers), nil
	}
	address, err := serverAddress(server)
	if err != nil {
		return nil, err
	}
	return newResolver(func() ([]string, error) { return []string{address}, nil }), nil
}

func newResolver(servers func() ([]string, error)) *Resolver {
	return &Resolver{servers: servers, timeout: queryTimeout, ask: askOverWire}
}

func systemServers() ([]string, error) {
	const path = "/etc/resolv.conf"
	c, err := miekg.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("find this host's DNS servers: %w: name one in the configuration", err)
	}
	if len(c.Servers) == 0 {
		return nil, fmt.Errorf("%s names no DNS server: name one in the configuration", path)
	}
	servers := make([]string, 0, len(c.Servers))
	for _, s := range c.Servers {
		if address, err := serverAddress(s); err == nil {
			servers = append(servers, address)
		}
	}
	return servers, nil
}

func askOverWire(ctx context.Context, network string, m *miekg.Msg, server string) (*miekg.Msg, error) {
	// Errors that come with a message mean that the message cannot be trusted.
	reply, err := exchangeWith(ctx, &miekg.Client{Net: network}, m, server)
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// Addrs looks up the IPv4 and IPv6 addresses of name, at most 64 of them, without double ones and in order. It is
// ErrNoRecord when there are none.
func (r *Resolver) Addrs(ctx context.Context, name string) ([]netip.Addr, error) {
	kinds := []uint16{miekg.TypeA, miekg.TypeAAAA}
	found, errs := make([][]netip.Addr, len(kinds)), make([]error, len(kinds))
	var both sync.WaitGroup
	for i, kind := range kinds {
		both.Go(func() { found[i], errs[i] = r.addrs(ctx, name, kind) })
	}
	both.Wait()
	all := slices.Concat(found...)
	if len(all) == 0 {
		// Servers that stumble over AAAA are many: half an answer will do, but no answer is not taken for "none".
		return nil, fmt.Errorf("look up the addresses of %s: %w", host(fqdn(name)), cmp.Or(errs[0], errs[1], ErrNoRecord))
	}
	slices.SortFunc(all, netip.Addr.Compare)
	all = slices.Compact(all)
	return all[:min(len(all), maxAddrs)], nil
}

func (r *Resolver) addrs(ctx context.Context, name string, kind uint16) ([]netip.Addr, error) {
	reply, err := r.lookup(ctx, name, kind)
	if err != nil {
		return nil, err
	}
	return addrsIn(reply, name), nil
}

// addrsIn takes the addresses of name, and of what its CNAMEs lead to, from an answer. Others in it are nobody's business.
func addrsIn(reply *miekg.Msg, name string) []netip.Addr {
	name = chainEnd(reply, fqdn(name))
	var all []netip.Addr
	for _, rr := range reply.Answer {
		if fqdn(rr.Header().Name) != name || len(all) >= maxAddrs {
			continue
		}
		switch rr := rr.(type) {
		case *miekg.A:
			if ip, ok := netip.AddrFromSlice(rr.A); ok {
				all = append(all, ip.Unmap())
			}
		case *miekg.AAAA:
			if ip, ok := netip.AddrFromSlice(rr.AAAA); ok {
				all = append(all, ip.Unmap())
			}
		}
	}
	return all
}

// chainEnd follows the CNAMEs within one answer.
func chainEnd(reply *miekg.Msg, name string) string {
	for range maxCNAMEs {
		next := cnameIn(reply, name)
		if next == "" {
			break
		}
		name = next
	}
	return name
}

func cnameIn(reply *miekg.Msg, name string) string {
	for _, rr := range reply.Answer {
		if c, ok := rr.(*miekg.CNAME); ok && fqdn(c.Hdr.Name) == name {
			return fqdn(c.Target)
		}
	}
	return ""
}

// CNAME follows the CNAMEs at name to their end, which is name itself where there are none. The end need not exist.
func (r *Resolver) CNAME(ctx context.Context, name string) (string, error) {
	at := fqdn(name)
	for range maxCNAMEs {
		reply, err := r.lookup(ctx, at, miekg.TypeCNAME)
		if err != nil {
			return "", fmt.Errorf("look up the CNAME of %s: %w", host(at), err)
		}
		next := chainEnd(reply, at)
		if next == at {
			return at, nil
		}
		at = next
	}
	return "", fmt.Errorf("look up the CNAME of %s: more than %d follow each other, or they lead in a circle", host(fqdn(name)), maxCNAMEs)
}

// Zone is the zone that name is in, found by asking for SOA records from name upwards.
func (r *Resolver) Zone(ctx context.Context, name string) (string, error) {
	at := fqdn(name)
	for at != "." {
		reply, err := r.lookup(ctx, at, miekg.TypeSOA)
		if err != nil {
			return "", fmt.Errorf("find the zone of %s: %w", host(fqdn(name)), err)
		}
		for _, rr := range reply.Answer {
			// Where a CNAME leads, another zone begins.
			if soa, ok := rr.(*miekg.SOA); ok && fqdn(soa.Hdr.Name) == at {
				return at, nil
			}
		}
		at = parent(at)
	}
	return "", fmt.Errorf("find the zone of %s: none of its parents has an SOA record: ask another DNS server (resolver)", host(fqdn(name)))
}

// parent is name without its first label; that of a top level domain is the root.
func parent(name string) string {
	next, end := miekg.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[next:]
}

// nameServers are the names of a zone's name servers.
func (r *Resolver) nameServers(ctx context.Context, zone string) ([]string, error) {
	reply, err := r.lookup(ctx, zone, miekg.TypeNS)
	if err != nil {
		return nil, fmt.Errorf("look up the name servers of %s: %w", host(zone), err)
	}
	var all []string
	for _, rr := range reply.Answer {
		if ns, ok := rr.(*miekg.NS); ok && fqdn(ns.Hdr.Name) == fqdn(zone) {
			all = append(all, fqdn(ns.Ns))
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("look up the name servers of %s: %w", host(zone), ErrNoRecord)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// lookup asks the servers in turn until one answers. An unknown name is an answer without records; each other code is no answer.
func (r *Resolver) lookup(ctx context.Context, name string, kind uint16) (*miekg.Msg, error) {
	servers, err := r.servers()
	if err != nil {
		return nil, err
	}
	m, err := query(name, kind, true)
	if err != nil {
		return nil, err
	}
	for _, server := range servers {
		var reply *miekg.Msg
		if reply, err = r.exchange(ctx, m, server); err == nil {
			if err = refusal(reply, server); err == nil {
				return reply, nil
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, cmp.Or(err, errors.New("there is no DNS server to ask"))
}

func refusal(reply *miekg.Msg, server string) error {
	if reply.Rcode == miekg.RcodeSuccess || reply.Rcode == miekg.RcodeNameError {
		return nil
	}
	return fmt.Errorf("DNS server %s answered %s", server, cmp.Or(miekg.RcodeToString[reply.Rcode], fmt.Sprintf("RCODE%d", reply.Rcode)))
}

func query(name string, kind uint16, recursive bool) (*miekg.Msg, error) {
	if _, ok := miekg.IsDomainName(name); !ok {
		return nil, fmt.Errorf("%q is no domain name", name)
	}
	m := new(miekg.Msg)
	m.SetQuestion(fqdn(name), kind)
	m.RecursionDesired = recursive
	// What passes every path in one piece (DNS flag day 2020); more comes over TCP.
	m.SetEdns0(1232, false)
	return m, nil
}

// exchange asks one server: over UDP, and over TCP where the answer was cut short, did not come or was not to be understood.
func (r *Resolver) exchange(ctx context.Context, m *miekg.Msg, server string) (*miekg.Msg, error) {
	reply, err := r.try(ctx, "udp", m, server)
	if err == nil && !reply.Truncated {
		return reply, nil
	}
	if ctx.Err() != nil {
		return nil, cmp.Or(err, ctx.Err())
	}
	reply, err = r.try(ctx, "tcp", m, server)
	if err != nil {
		return nil, fmt.Errorf("ask DNS server %s: %w", server, err)
	}
	return reply, nil
}

func (r *Resolver) try(ctx context.Context, network string, m *miekg.Msg, server string) (*miekg.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return r.ask(ctx, network, m.Copy(), server)
}
