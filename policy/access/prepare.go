package access

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/popgate/popgate/auth"
)

// A preparation makes Rules of a Config, and collects all that is wrong.
type preparation struct {
	keeper  *Keeper
	config  Config
	earlier *Rules // in use now, nil for none
	rules   *Rules
	faults  auth.Faults
}

func (p *preparation) run() (*Rules, error) {
	lists := map[string]*list{}
	for i := range p.config.Lists {
		l := p.list(i, p.config.Lists[i])
		lists[l.name] = l
		p.rules.lists = append(p.rules.lists, l)
	}
	p.geo()
	p.disabled()
	p.blocklists()
	for i, c := range p.config.Rules {
		p.rule(fmt.Sprintf("rules[%d]", i), c, lists)
	}
	if len(p.faults) > 0 {
		return nil, p.faults
	}
	return p.rules, nil
}

func (p *preparation) fault(key string, err error) {
	if err != nil {
		p.faults = append(p.faults, &auth.Fault{Key: "access." + key, Err: err})
	}
}

// use opens a file, or takes the one that is open already. kind says what is read out of it.
func use[T contents](p *preparation, key, kind, path string, parse parser[T]) *file[T] {
	id := kind + ":" + path
	if f, ok := p.rules.files[id].(*file[T]); ok {
		return f
	}
	if p.earlier != nil {
		if f, ok := p.earlier.files[id].(*file[T]); ok {
			p.rules.files[id] = f
			return f
		}
	}
	f, err := open(path, parse, p.keeper.log)
	if err != nil {
		p.fault(key, err)
		return nil
	}
	p.rules.files[id] = f
	return f
}

func (p *preparation) list(i int, c ListConfig) *list {
	var b builder
	for j, text := range c.Networks {
		n, err := network(text)
		if err != nil {
			p.fault(fmt.Sprintf("lists[%d].networks[%d]", i, j), err)
			continue
		}
		b.prefix(n)
	}
	l := &list{name: c.Name, inline: b.table()}
	for j, path := range c.Files {
		l.files = append(l.files, use(p, fmt.Sprintf("lists[%d].files[%d]", i, j), "networks", path, networks))
	}
	return l
}

func (p *preparation) geo() {
	if path := p.config.Geo.Country; path != "" {
		p.rules.country = use(p, "geo.country", "country", path, parseCountries)
	}
	if path := p.config.Geo.ASN; path != "" {
		p.rules.asn = use(p, "geo.asn", "asn", path, parseASNs)
	}
}

func (p *preparation) disabled() {
	for i, text := range p.config.Disabled.Users {
		p.fault(fmt.Sprintf("disabled.users[%d]", i), p.rules.disabled.add(text))
	}
	for i, path := range p.config.Disabled.Files {
		p.rules.disabledIn = append(p.rules.disabledIn, use(p, fmt.Sprintf("disabled.files[%d]", i), "accounts", path, readAccounts))
	}
}

// blocklists makes the blocklists. One that is in use with the same configuration stays, with what it has answered.
func (p *preparation) blocklists() {
	if len(p.config.Blocklists) == 0 {
		return
	}
	r, err := newResolver(p.config.DNS)
	if err != nil {
		p.fault("dns.resolvers", err)
		return
	}
	for i, c := range p.config.Blocklists {
		if p.earlier != nil {
			b := p.earlier.blocklists[c.Name]
			// Without resolvers in the configuration, those of the system may have changed.
			if b != nil && slices.Equal(b.servers, r.servers) && reflect.DeepEqual(b.config, c) && reflect.DeepEqual(b.dns, p.config.DNS) {
				p.rules.blocklists[c.Name] = b
				continue
			}
		}
		b := &blocklist{
			config: c, dns: p.config.DNS, servers: r.servers, ask: r.addresses, begin: p.keeper.begin, log: p.keeper.log, count: p.keeper.metrics.lookups,
			known: map[netip.Addr]listing{}, flying: map[netip.Addr]*flight{},
		}
		if b.zone, err = auth.Domain(c.Zone); err != nil {
			p.fault(fmt.Sprintf("blocklists[%d].zone", i), err)
		}
		for j, text := range c.Codes {
			code, err := network(text)
			p.fault(fmt.Sprintf("blocklists[%d].codes[%d]", i, j), err)
			b.codes = append(b.codes, code)
		}
		p.rules.blocklists[c.Name] = b
	}
}

func (p *preparation) rule(key string, c RuleConfig, lists map[string]*list) {
	find := func(names []string) (found []*list) {
		for _, name := range names {
			if l := lists[name]; l != nil {
				found = append(found, l)
			} else {
				p.fault(key, fmt.Errorf("there is no list %q", name))
			}
		}
		return found
	}
	r := rule{config: c, action: Deny, except: find(c.Except), allow: find(c.Networks.Allow), deny: find(c.Networks.Deny), minTLS: tlsVersions[c.TLS.MinVersion]}
	if c.Action == actionLog {
		r.action = Log
	}
	for _, name := range c.Blocklists {
		if b := p.rules.blocklists[name]; b != nil {
			r.blocklists = append(r.blocklists, b)
		} else if len(p.faults) == 0 {
			p.fault(key, fmt.Errorf("there is no blocklist %q", name))
		}
	}
	if len(c.Users) > 0 {
		r.users = accounts{}
		for _, text := range c.Users {
			p.fault(key+".users", r.users.add(text))
		}
	}
	zone, err := location(c.TimeZone)
	if err != nil {
		p.fault(key+".time_zone", err)
		return
	}
	r.hours, err = parseHours(c.Hours, zone)
	p.fault(key+".hours", err)
	r.legacyEnd, err = lastDay(c.TLS.LegacyUntil, zone)
	p.fault(key+".tls.legacy_until", err)
	p.rules.rules = append(p.rules.rules, r)
}
