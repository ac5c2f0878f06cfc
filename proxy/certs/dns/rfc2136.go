package dns

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libdns/libdns"
	miekg "github.com/miekg/dns"
)

// rfc2136 sends dynamic updates (RFC 2136) over TCP, signed with TSIG (RFC 8945).
type rfc2136 struct {
	config  RFC2136
	server  string // host:port
	ttl     time.Duration
	timeout time.Duration
}

func newRFC2136(c Config) (*rfc2136, error) {
	server, err := serverAddress(c.RFC2136.Server)
	if err != nil {
		return nil, fmt.Errorf("rfc2136.server: %w", err)
	}
	p := &rfc2136{config: c.RFC2136, server: server, ttl: c.TTL, timeout: c.Timeout}
	if _, err := p.key(); err != nil {
		return nil, err
	}
	return p, nil
}

// key is read at each use: a key may be exchanged while popgate runs.
func (p *rfc2136) key() (tsigKey, error) {
	data, err := readSecret(p.config.KeyFile)
	if err != nil {
		return tsigKey{}, fmt.Errorf("rfc2136.key_file: %w", err)
	}
	k, err := parseKey(data, p.config.KeyName, p.config.Algorithm)
	if err != nil {
		return tsigKey{}, fmt.Errorf("rfc2136.key_file %s: %w", p.config.KeyFile, err)
	}
	return k, nil
}

// AppendRecords adds TXT records to the zone in one update, and leaves others of the same name alone.
func (p *rfc2136) AppendRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, zone, recs, (*miekg.Msg).Insert)
}

// DeleteRecords removes exactly these TXT records; those that are not there are no error.
func (p *rfc2136) DeleteRecords(ctx context.Context, zone string, recs []libdns.Record) ([]libdns.Record, error) {
	return p.change(ctx, zone, recs, (*miekg.Msg).Remove)
}

func (p *rfc2136) change(ctx context.Context, zone string, recs []libdns.Record, how func(*miekg.Msg, []miekg.RR)) ([]libdns.Record, error) {
	wanted, err := records(zone, recs)
	if err != nil {
		return nil, err
	}
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	m := new(miekg.Msg)
	m.SetUpdate(fqdn(zone))
	for _, r := range wanted {
		how(m, []miekg.RR{&miekg.TXT{
			Hdr: miekg.RR_Header{Name: r.fqdn, Rrtype: miekg.TypeTXT, Class: miekg.ClassINET, Ttl: uint32(p.ttl / time.Second)},
			Txt: pieces(r.value),
		}})
	}
	if err := p.send(ctx, m, key); err != nil {
		return nil, fmt.Errorf("update zone %s at name server %s: %w", host(zone), p.server, err)
	}
	return asTXT(recs), nil
}

// pieces splits a value into the strings of a TXT record, which hold 255 bytes each.
func pieces(value string) []string {
	var all []string
	for len(value) > 255 {
		all, value = append(all, value[:255]), value[255:]
	}
	return append(all, value)
}

func (p *rfc2136) send(ctx context.Context, m *miekg.Msg, key tsigKey) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	m.SetTsig(key.name, key.algorithm, 300, time.Now().Unix())
	c := &miekg.Client{Net: "tcp", Timeout: p.timeout, TsigSecret: map[string]string{key.name: key.secret}}
	reply, err := exchangeWith(ctx, c, m, p.server)
	if reply == nil {
		return fmt.Errorf("%w: see that a name server is there that takes TCP from this host", err)
	}
	// The answer's code says more than that its signature does not fit: who does not know our key cannot sign.
	if advice := p.advise(reply, m.Question[0].Name, key); advice != nil {
		return advice
	}
	if err != nil {
		return fmt.Errorf("its answer cannot be trusted: %w: see that both sides hold the same secret", err)
	}
	if reply.IsTsig() == nil {
		return errors.New("its answer says that all went well, but is not signed: see that rfc2136.server is the name server itself, with nothing in between")
	}
	return nil
}

// advise says what a refusal means and what to do about it, or nil where reply refuses nothing.
func (p *rfc2136) advise(reply *miekg.Msg, zone string, key tsigKey) error {
	said := miekg.RcodeToString[reply.Rcode]
	if t := reply.IsTsig(); t != nil && t.Error != miekg.RcodeSuccess {
		switch t.Error {
		case miekg.RcodeBadKey:
			return fmt.Errorf("%s (BADKEY): it knows no key %q for %s: the name and the algorithm of key_file must be the same as on the server",
				said, host(key.name), host(key.algorithm))
		case miekg.RcodeBadTime:
			return fmt.Errorf("%s (BADTIME): its clock and this host's differ by more than five minutes: set both right", said)
		case miekg.RcodeBadSig:
			return fmt.Errorf("%s (BADSIG): it has another secret for key %q: copy the server's into key_file", said, host(key.name))
		}
	}
	if said == "" {
		said = fmt.Sprintf("RCODE%d", reply.Rcode)
	}
	switch reply.Rcode {
	case miekg.RcodeSuccess:
		return nil
	case miekg.RcodeRefused:
		return fmt.Errorf("%s: key %q may not change this: grant it with `update-policy { grant %s subdomain %s TXT; };` in BIND, or TSIG-ALLOW-DNSUPDATE in PowerDNS",
			said, host(key.name), host(key.name), zone)
	case miekg.RcodeNotAuth, miekg.RcodeNotZone:
		return fmt.Errorf("%s: it is not the primary server of %s: write the primary as rfc2136.server, or the zone it has as rfc2136.zone", said, host(zone))
	case miekg.RcodeServerFailure:
		return fmt.Errorf("%s: it could not write the zone: see its log; BIND must be able to write its journal beside the zone file, and a frozen zone needs `rndc thaw`", said)
	case miekg.RcodeNotImplemented:
		return fmt.Errorf("%s: it takes no dynamic updates: in PowerDNS set dnsupdate=yes", said)
	}
	return fmt.Errorf("%s: see its log", said)
}

// Zone is the zone that name is in: the given one, or what the server answers when asked for the SOA record, in its answer
// or, for a name that is not there, beside it.
func (p *rfc2136) Zone(ctx context.Context, name string) (string, error) {
	if zone := p.config.Zone; zone != "" {
		if !miekg.IsSubDomain(fqdn(zone), fqdn(name)) {
			return "", fmt.Errorf("%s is not in rfc2136.zone %s: remove that key, or let _acme-challenge be a CNAME into the zone", host(name), host(zone))
		}
		return fqdn(zone), nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	m := new(miekg.Msg)
	m.SetQuestion(fqdn(name), miekg.TypeSOA)
	reply, err := exchangeWith(ctx, &miekg.Client{Net: "tcp", Timeout: p.timeout}, m, p.server)
	if err != nil {
		return "", fmt.Errorf("ask name server %s for the zone of %s: %w", p.server, host(name), err)
	}
	for _, section := range [][]miekg.RR{reply.Answer, reply.Ns} {
		for _, rr := range section {
			if soa, ok := rr.(*miekg.SOA); ok && miekg.IsSubDomain(soa.Hdr.Name, fqdn(name)) {
				return fqdn(soa.Hdr.Name), nil
			}
		}
	}
	return "", fmt.Errorf("name server %s has no zone for %s (%s): write its primary as rfc2136.server, or the zone as rfc2136.zone",
		p.server, host(name), miekg.RcodeToString[reply.Rcode])
}
