package directory

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/miekg/dns"

	"github.com/popgate/popgate/auth"
)

// The bounds of what is kept of DNS' answers: how many, and for how long whatever their records say.
const (
	maxSRVNames = 10_000
	minTTL      = 5 * time.Second
	maxTTL      = time.Hour
)

// A srvAnswer is what DNS says of one name.
type srvAnswer struct {
	records []net.SRV // none: there is no such service
	until   time.Time // how long it is known; zero where that is not said
}

// A dnsSource reads SRV records.
type dnsSource struct {
	services []string
	// find gives the records of a name, none where it has none; an error where nobody could say.
	find func(ctx context.Context, name string) (srvAnswer, error)

	mu    sync.Mutex
	known map[string]srvAnswer // by name
}

// Lookup finds the server of the user's domain.
func (d *dnsSource) Lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	if q.Name.Domain == "" {
		return Answer{}, fmt.Errorf("%w: the name has no domain to look for", auth.ErrUnknownUser)
	}
	service, records, err := d.service(ctx, q.Name.Domain)
	if err != nil {
		return Answer{}, err
	}
	if len(records) == 0 {
		return Answer{}, fmt.Errorf("%w: %s has no SRV records for POP3", auth.ErrUnknownUser, q.Name.Domain)
	}
	return srvTarget(service, choose(records, q.Name.Key)), nil
}

// srvTarget is the answer that one record makes.
func srvTarget(service string, r net.SRV) Answer {
	a := Answer{Server: net.JoinHostPort(r.Target, strconv.Itoa(int(r.Port)))}
	if service == servicePOP3S {
		a.TLS = "implicit"
	}
	return a
}

// domainServers are all servers that the domain's records name.
func (d *dnsSource) domainServers(ctx context.Context, domain string) ([]Answer, error) {
	service, records, err := d.service(ctx, domain)
	answers := make([]Answer, 0, len(records))
	for _, r := range records {
		answers = append(answers, srvTarget(service, r))
	}
	return answers, err
}

// KnowsDomain says whether the domain has SRV records for POP3.
func (d *dnsSource) KnowsDomain(ctx context.Context, domain string) (bool, error) {
	_, records, err := d.service(ctx, domain)
	return len(records) > 0, err
}

// Close does nothing: no connection is kept.
func (*dnsSource) Close() error { return nil }

// service is the first of the services that the domain has.
func (d *dnsSource) service(ctx context.Context, domain string) (string, []net.SRV, error) {
	for _, service := range d.services {
		name := "_" + service + "._tcp." + domain + "."
		if len(name) > 254 { // the longest that DNS knows, with its final dot
			continue
		}
		records, err := d.records(ctx, name)
		if err != nil {
			return "", nil, fmt.Errorf("look up SRV records of %s: %w", name, err)
		}
		if len(records) > 0 {
			return service, records, nil
		}
	}
	return "", nil, nil
}

// records are those of a name, from memory while they hold.
func (d *dnsSource) records(ctx context.Context, name string) ([]net.SRV, error) {
	d.mu.Lock()
	known, ok := d.known[name]
	d.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.records, nil
	}
	found, err := d.ask(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := usable(&found); err != nil {
		return nil, asContent(err)
	}
	if !found.until.IsZero() {
		d.remember(name, found)
	}
	return found.records, nil
}

// ask asks for a name. Anybody can log in with a domain of his own whose servers are silent or broken: where the resolver answers
// for the root in the time that is left, it is well, and the fault is the domain's.
func (d *dnsSource) ask(ctx context.Context, name string) (srvAnswer, error) {
	first, cancel := ctx, func() {}
	if end, ok := ctx.Deadline(); ok {
		first, cancel = context.WithTimeout(ctx, time.Until(end)*3/4)
	}
	defer cancel()
	found, err := d.find(first, name)
	if err == nil || errors.As(err, new(contentError)) || ctx.Err() != nil {
		return found, err
	}
	if _, rootErr := d.find(ctx, "."); rootErr == nil {
		return srvAnswer{}, asContent(err)
	}
	return srvAnswer{}, err
}

func (d *dnsSource) remember(name string, a srvAnswer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.known[name]; !ok && len(d.known) >= maxSRVNames {
		for other := range d.known { // any of them: each can be asked for again
			delete(d.known, other)
			break
		}
	}
	d.known[name] = a
}

// usable brings targets into one form. A target "." says that the service is decidedly not there (RFC 2782).
func usable(a *srvAnswer) error {
	if len(a.records) == 1 && a.records[0].Target == "." {
		a.records = nil
	}
	for i := range a.records {
		r := &a.records[i]
		host, err := auth.Domain(r.Target)
		if err != nil || host == "" || r.Port == 0 {
			return fmt.Errorf("it names the server %q with port %d, which cannot be", clip(r.Target), r.Port)
		}
		r.Target = host
	}
	return nil
}

// choose takes one of the records with the lowest priority, each as often as its weight says (RFC 2782). Not chance chooses but
// the user's name, so that a user meets the same server each time: rendezvous hashing with weights.
func choose(records []net.SRV, user string) net.SRV {
	var best net.SRV
	found, bestScore := false, 0.0
	for _, r := range records {
		if found && r.Priority > best.Priority {
			continue
		}
		score := srvScore(r, user)
		if !found || r.Priority < best.Priority || score > bestScore {
			found, best, bestScore = true, r, score
		}
	}
	return best
}

// srvScore is higher for heavier records, by chance that the user's name decides. A weight of 0 is a very small one.
func srvScore(r net.SRV, user string) float64 {
	h := xxhash.Sum64String(user + "\x00" + r.Target + "\x00" + strconv.Itoa(int(r.Port)))
	chance := (float64(h>>11) + 0.5) / (1 << 53) // between 0 and 1, and neither
	weight := math.Max(float64(r.Weight), 1e-3)
	return -weight / math.Log(chance)
}

// A system asks as the system is set up.
type system struct{ *net.Resolver }

func (s system) srv(ctx context.Context, name string) (srvAnswer, error) {
	_, found, err := s.LookupSRV(ctx, "", "", name)
	if err != nil {
		var of *net.DNSError
		if errors.As(err, &of) && of.IsNotFound {
			return srvAnswer{}, nil
		}
		return srvAnswer{}, err
	}
	var a srvAnswer
	for _, r := range found {
		a.records = append(a.records, *r)
	}
	return a, nil
}

// A resolver is one DNS server, by host:port.
type resolver struct{ address string }

// srv asks over UDP, and over TCP where the answer has no room there.
func (r resolver) srv(ctx context.Context, name string) (srvAnswer, error) {
	question := new(dns.Msg).SetQuestion(name, dns.TypeSRV)
	question.SetEdns0(1232, false) // what passes unfragmented, as the DNS flag day of 2020 has it
	resp, err := r.ask(ctx, "udp", question)
	if err == nil && resp.Truncated {
		resp, err = r.ask(ctx, "tcp", question)
	}
	if err != nil {
		return srvAnswer{}, fmt.Errorf("ask %s: %w", r.address, err)
	}
	switch {
	case len(resp.Question) != 1 || !strings.EqualFold(resp.Question[0].Name, name) || resp.Question[0].Qtype != dns.TypeSRV:
		return srvAnswer{}, fmt.Errorf("%s answers something else", r.address)
	case resp.Rcode == dns.RcodeServerFailure: // so a resolver says that the domain's own servers are at fault
		return srvAnswer{}, asContent(fmt.Errorf("%s answers SERVFAIL", r.address))
	case resp.Rcode != dns.RcodeSuccess && resp.Rcode != dns.RcodeNameError:
		return srvAnswer{}, fmt.Errorf("%s answers %s", r.address, dns.RcodeToString[resp.Rcode])
	}
	return srvOf(resp, name), nil
}

// ask sends one question over a connection of its own.
func (r resolver) ask(ctx context.Context, network string, question *dns.Msg) (*dns.Msg, error) {
	c := &dns.Client{Net: network, Timeout: time.Minute} // its own, beside ctx's
	conn, err := c.DialContext(ctx, r.address)
	if err != nil {
		return nil, err
	}
	done := untilDone(ctx, conn.Conn)
	defer conn.Close()
	resp, _, err := c.ExchangeWithConnContext(ctx, question, conn)
	if done() || err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return resp, err
}

// srvOf takes the records of name, or of what it is an alias for, and the time for which all of them hold. That there are none
// holds for as long as the zone says (RFC 2308).
func srvOf(resp *dns.Msg, name string) srvAnswer {
	ttl := uint32(math.MaxUint32)
	for range 8 {
		alias := ""
		for _, rr := range resp.Answer {
			if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, name) {
				alias, ttl = c.Target, min(ttl, c.Hdr.Ttl)
			}
		}
		if alias == "" {
			break
		}
		name = alias
	}
	var a srvAnswer
	for _, rr := range resp.Answer {
		if s, ok := rr.(*dns.SRV); ok && strings.EqualFold(s.Hdr.Name, name) {
			a.records = append(a.records, net.SRV{Target: s.Target, Port: s.Port, Priority: s.Priority, Weight: s.Weight})
			ttl = min(ttl, s.Hdr.Ttl)
		}
	}
	if len(a.records) == 0 {
		ttl = 0
		for _, rr := range resp.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(soa.Hdr.Ttl, soa.Minttl)
			}
		}
	}
	a.until = time.Now().Add(max(minTTL, min(maxTTL, time.Duration(ttl)*time.Second)))
	return a
}
