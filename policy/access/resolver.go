package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// The bounds of how long an answer is believed, whatever its records say, and of one try to get it.
const (
	minTTL  = time.Minute
	maxTTL  = time.Hour
	tryTime = time.Second
)

// A resolver asks DNS servers, the one that answered last before others.
type resolver struct {
	servers []string // host:port
	good    atomic.Int32
}

// newResolver makes one of c; it needs no network.
func newResolver(c DNSConfig) (*resolver, error) {
	r := &resolver{}
	for _, text := range c.Resolvers {
		server, err := resolverAddress(text)
		if err != nil {
			return nil, err
		}
		r.servers = append(r.servers, server)
	}
	if len(r.servers) > 0 {
		return r, nil
	}
	system, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return nil, fmt.Errorf("read the DNS servers of this system: %w: write them as dns.resolvers", err)
	}
	for _, server := range system.Servers {
		r.servers = append(r.servers, net.JoinHostPort(server, system.Port))
	}
	if len(r.servers) == 0 {
		return nil, errors.New("/etc/resolv.conf names no DNS server: write one as dns.resolvers")
	}
	return r, nil
}

// addresses asks for the A records of name. None are there where the name is not.
func (r *resolver) addresses(ctx context.Context, name string) (records, error) {
	var last error
	first := int(r.good.Load())
	for i := range max(2, len(r.servers)) { // a packet may get lost
		at := (first + i) % len(r.servers)
		found, err := r.try(ctx, r.servers[at], name)
		if err == nil {
			r.good.Store(int32(at))
			return found, nil
		}
		last = fmt.Errorf("ask %s for %s: %w", r.servers[at], name, err)
		if ctx.Err() != nil {
			break
		}
	}
	return records{}, last
}

// try asks one server over UDP, and over TCP where the answer has no room there.
func (r *resolver) try(ctx context.Context, server, name string) (records, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	question := new(dns.Msg).SetQuestion(name, dns.TypeA)
	question.SetEdns0(1232, false) // what passes unfragmented, as the DNS flag day of 2020 has it
	resp, err := exchange(ctx, "udp", server, question)
	if err == nil && resp.Truncated {
		resp, err = exchange(ctx, "tcp", server, question)
	}
	switch {
	case err != nil:
		return records{}, err
	case len(resp.Question) != 1 || !strings.EqualFold(resp.Question[0].Name, name) || resp.Question[0].Qtype != dns.TypeA:
		return records{}, errors.New("the answer is to another question")
	case resp.Rcode != dns.RcodeSuccess && resp.Rcode != dns.RcodeNameError:
		return records{}, fmt.Errorf("the answer is %s", dns.RcodeToString[resp.Rcode])
	}
	return recordsOf(resp), nil
}

// exchange sends one question over a connection of its own, whose port nobody can guess.
func exchange(ctx context.Context, network, server string, question *dns.Msg) (*dns.Msg, error) {
	c := &dns.Client{Net: network, Timeout: tryTime}
	conn, err := c.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The library looks at ctx only for its deadline.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	resp, _, err := c.ExchangeWithConnContext(ctx, question, conn)
	return resp, err
}

// recordsOf takes the addresses of an answer, whatever alias they stand behind, and how long they hold. That there are none holds
// for as long as the zone says (RFC 2308).
func recordsOf(resp *dns.Msg) records {
	var r records
	ttl := uint32(maxTTL / time.Second)
	for _, rr := range resp.Answer {
		ttl = min(ttl, rr.Header().Ttl)
		if a, ok := rr.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A.To4()); ok {
				r.addrs = append(r.addrs, addr)
			}
		}
	}
	if len(r.addrs) == 0 {
		for _, rr := range resp.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(ttl, soa.Hdr.Ttl, soa.Minttl)
			}
		}
	}
	r.ttl = max(minTTL, min(maxTTL, time.Duration(ttl)*time.Second))
	return r
}
