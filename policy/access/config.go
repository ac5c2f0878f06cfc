package access

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/popgate/popgate/auth"
)

// Config says who may come in at all. The zero value and the default let everybody in.
type Config struct {
	// Lists of networks, to be named by rules.
	Lists []ListConfig `yaml:"lists"`
	// The files that say which country and which operator a network belongs to.
	Geo GeoConfig `yaml:"geo"`
	// DNS blocklists, to be named by rules.
	Blocklists []BlocklistConfig `yaml:"blocklists"`
	// How DNS blocklists are asked.
	DNS DNSConfig `yaml:"dns"`
	// Accounts that cannot log in, whatever their directory says.
	Disabled DisabledConfig `yaml:"disabled"`
	// The rules. All that fit somebody hold together: each may refuse.
	Rules []RuleConfig `yaml:"rules"`
}

// ListConfig is one list of networks.
type ListConfig struct {
	// The name that rules know the list by.
	Name string `yaml:"name"`
	// Networks and single addresses.
	Networks []string `yaml:"networks"`
	// Files with one network, address or range (`192.0.2.1-192.0.2.9`) a line; `#` and `;` begin a comment. A file is read again when
	// it has changed. One that is bad then, or has become empty without so much as a comment, is not taken: the
	// networks before stay in force, and the log names the line.
	Files []string `yaml:"files"`
}

// GeoConfig names databases in the MMDB format, with the fields that MaxMind's own have. They are read again when they have changed.
type GeoConfig struct {
	// A file with countries, such as GeoLite2-Country.mmdb or dbip-country-lite.mmdb.
	Country string `yaml:"country"`
	// A file with the operators of networks (autonomous systems), such as GeoLite2-ASN.mmdb.
	ASN string `yaml:"asn"`
}

// BlocklistConfig is one DNS blocklist.
type BlocklistConfig struct {
	// The name that rules know the blocklist by.
	Name string `yaml:"name"`
	// The DNS zone to ask in, such as zen.spamhaus.org.
	Zone string `yaml:"zone"`
	// Which answers mean that an address is listed, as addresses or networks within 127.0.0.0/8. Empty are all there but
	// 127.0.0.1 and 127.255.255.0/24, with which blocklists say that they refuse to answer.
	Codes []string `yaml:"codes"`
}

// DNSConfig says how DNS blocklists are asked.
type DNSConfig struct {
	// The DNS servers to ask, such as "192.0.2.53" or "[2001:db8::53]:5353", the first that answers. Empty are those of
	// /etc/resolv.conf. Large blocklists refuse to answer the public resolvers.
	Resolvers []string `yaml:"resolvers"`
	// How long a client may have to wait for blocklists, all of a decision together. Whoever is not known to be listed by then goes on.
	Timeout time.Duration `yaml:"timeout"`
	// How many questions to one blocklist may be on their way at once. Clients beyond that go on unasked.
	MaxLookups int `yaml:"max_lookups"`
	// How many answers of one blocklist are remembered.
	CacheSize int `yaml:"cache_size"`
}

// DisabledConfig lists accounts that cannot log in.
type DisabledConfig struct {
	// Users, such as bob@example.org, and whole domains, such as @example.org.
	Users []string `yaml:"users"`
	// Files with one user or domain a line, as above; `#` and `;` begin a comment. They are read again as those of lists are.
	Files []string `yaml:"files"`
}

// The bounds of DNSConfig.
const (
	maxDNSTimeout = 5 * time.Second
	maxDNSLookups = 10_000
	maxDNSCache   = 10_000_000
)

// DefaultConfig has no rules, and asks blocklists with a deadline of 300 milliseconds.
func DefaultConfig() Config {
	return Config{DNS: DNSConfig{Timeout: 300 * time.Millisecond, MaxLookups: 256, CacheSize: 100_000}}
}

// DefaultRule is what a rule has where the file says nothing.
func DefaultRule() RuleConfig { return RuleConfig{Action: actionDeny} }

// Validate tells fault of every value that cannot be meant, by its key. It opens no file and asks for no name.
func (c Config) Validate(fault func(key, problem string)) {
	lists, blocklists := names{}, names{}
	for i, l := range c.Lists {
		l.validate(within(fault, "lists", i), lists)
	}
	for i, b := range c.Blocklists {
		b.validate(within(fault, "blocklists", i), blocklists)
	}
	c.DNS.validate(func(key, problem string) { fault("dns."+key, problem) })
	for i, text := range c.Disabled.Users {
		if _, err := auth.ParseAccounts(text); err != nil {
			fault(fmt.Sprintf("disabled.users[%d]", i), err.Error())
		}
	}
	validateFiles(c.Disabled.Files, "disabled.files", fault)
	rules := names{}
	for i, r := range c.Rules {
		r.validate(within(fault, "rules", i), ruleNames{rules, lists, blocklists, c.Geo})
	}
}

func within(fault func(key, problem string), list string, i int) func(key, problem string) {
	prefix := fmt.Sprintf("%s[%d].", list, i)
	return func(key, problem string) { fault(prefix+key, problem) }
}

// names are those that were given so far.
type names map[string]bool

// give gives a name to an element of a list.
func (n names) give(name string, fault func(key, problem string)) {
	switch {
	case name == "":
		fault("name", "is missing: write a word of your own")
	case len(name) > 64:
		fault("name", "is longer than 64 bytes: write a short word")
	case n[name]:
		fault("name", fmt.Sprintf("%q is there twice: write another", name))
	}
	n[name] = true
}

func (c ListConfig) validate(fault func(key, problem string), known names) {
	known.give(c.Name, fault)
	for i, text := range c.Networks {
		if _, err := network(text); err != nil {
			fault(fmt.Sprintf("networks[%d]", i), err.Error())
		}
	}
	validateFiles(c.Files, "files", fault)
	if len(c.Networks)+len(c.Files) == 0 {
		fault("networks", "is empty, and so is files: write what the list is to hold")
	}
}

func validateFiles(files []string, key string, fault func(key, problem string)) {
	for i, path := range files {
		if path == "" {
			fault(fmt.Sprintf("%s[%d]", key, i), "is empty: write the path of a file")
		}
	}
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func (c BlocklistConfig) validate(fault func(key, problem string), known names) {
	known.give(c.Name, fault)
	// An IPv6 address takes 64 bytes before the zone, and a name has 253.
	if zone, err := auth.Domain(c.Zone); err != nil || zone == "" || len(zone) > 253-64 {
		fault("zone", fmt.Sprintf("%q is not the name of a DNS zone: write it such as zen.spamhaus.org", clip(c.Zone)))
	}
	for i, text := range c.Codes {
		p, err := network(text)
		if err != nil || !p.Addr().Is4() || !loopback.Contains(p.Addr()) || p.Bits() < loopback.Bits() {
			fault(fmt.Sprintf("codes[%d]", i), fmt.Sprintf("%q is not in 127.0.0.0/8: write it such as 127.0.0.2 or 127.0.0.0/24", clip(text)))
		}
	}
}

func (c DNSConfig) validate(fault func(key, problem string)) {
	for i, text := range c.Resolvers {
		if _, err := resolverAddress(text); err != nil {
			fault(fmt.Sprintf("resolvers[%d]", i), err.Error())
		}
	}
	if c.Timeout <= 0 || c.Timeout > maxDNSTimeout {
		fault("timeout", fmt.Sprintf("%s is not above 0s and at most %s: write such as 300ms", c.Timeout, maxDNSTimeout))
	}
	if c.MaxLookups < 1 || c.MaxLookups > maxDNSLookups {
		fault("max_lookups", fmt.Sprintf("%d is not between 1 and %d", c.MaxLookups, maxDNSLookups))
	}
	if c.CacheSize < 1 || c.CacheSize > maxDNSCache {
		fault("cache_size", fmt.Sprintf("%d is not between 1 and %d", c.CacheSize, maxDNSCache))
	}
}

// resolverAddress is host:port of a DNS server. A name is refused: something would have to resolve it.
func resolverAddress(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return net.JoinHostPort(addr.String(), "53"), nil
	}
	if at, err := netip.ParseAddrPort(text); err == nil && at.Port() != 0 {
		return at.String(), nil
	}
	return "", fmt.Errorf(`%q is not a DNS server: write an IP address such as "192.0.2.53", with a port as "192.0.2.53:5353" or "[2001:db8::53]:53"`, clip(text))
}
