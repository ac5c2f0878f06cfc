package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/popgate/popgate/auth"
)

// PopmapConfig is the section `popmap` or `popmap_re` of a directory: a file of Perdition's, and how Perdition is told to look users
// up in it, by the names of its own options.
type PopmapConfig struct {
	// The file: /etc/perdition/popmap, the text that makegdbm is given and not what it made of it; or /etc/perdition/popmap.re.
	// It is looked at every 5 seconds, and at once on a reload, and taken up when it has changed; one with faults leaves the
	// one before in force.
	Path string `yaml:"path"`
	// Perdition's query_key: what is looked up, in this order until something is found. \U is the whole name, \u its part
	// before the delimiter, \d that behind it, \D the delimiter, \i and \p the client's address and port, \I and \P those it
	// connected to, \\ a backslash. In double quotes YAML wants each backslash twice; single quotes do not.
	QueryKey []string `yaml:"query_key"`
	// Perdition's domain_delimiter: what stands between user and domain, in names that are looked up and in what the map says.
	DomainDelimiter string `yaml:"domain_delimiter"`
	// Perdition's username_from_database: log in with the user name that the map has in front of the host. Otherwise that is
	// passed over.
	UsernameFromDatabase bool `yaml:"username_from_database"`
	// Perdition's strip_domain: take delimiter and domain off the name. Where: servername_lookup for what is looked up,
	// remote_login for what the backend is told, all for both.
	StripDomain []string `yaml:"strip_domain"`
	// Perdition's add_domain: give names without a delimiter a domain, after strip_domain has had its turn; where, as there.
	AddDomain []string `yaml:"add_domain"`
	// How many labels add_domain takes off the front of the host name: 1 makes example.org of mail.example.org.
	AddDomainDepth int `yaml:"add_domain_depth"`
	// Perdition's explicit_domain: the domain that add_domain gives. "" takes the host name that the address the client
	// connected to has in DNS or /etc/hosts; an address without one adds nothing.
	ExplicitDomain string `yaml:"explicit_domain"`
	// Perdition's lower_case: lower the case of names, last of all; where, as in strip_domain.
	LowerCase []string `yaml:"lower_case"`
}

func defaultPopmap() PopmapConfig {
	return PopmapConfig{QueryKey: []string{`\U`}, DomainDelimiter: "@"}
}

func (c PopmapConfig) validate(fault func(key, problem string)) {
	if c.Path == "" {
		fault("path", "is missing; write the path of Perdition's file")
	}
	if len(c.QueryKey) == 0 {
		fault("query_key", `is empty, and so nothing would be found; leave it out, or write ['\U']`)
	}
	for i, text := range c.QueryKey {
		if _, err := parseKey(text); err != nil {
			fault(fmt.Sprintf("query_key[%d]", i), err.Error())
		}
	}
	if c.DomainDelimiter == "" || strings.ContainsFunc(c.DomainDelimiter, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ':' }) {
		fault("domain_delimiter", `must be a character such as "@", or several; not blank and no ":"`)
	}
	for _, one := range []struct {
		key    string
		states []string
	}{{"strip_domain", c.StripDomain}, {"add_domain", c.AddDomain}, {"lower_case", c.LowerCase}} {
		if _, err := parseStates(one.states); err != nil {
			fault(one.key, err.Error())
		}
	}
	if c.AddDomainDepth < 0 {
		fault("add_domain_depth", "is negative; write how many labels to take off, or leave it out")
	}
	if d, err := auth.Domain(c.ExplicitDomain); err != nil || d == "" && c.ExplicitDomain != "" {
		fault("explicit_domain", `is no domain: write one such as "example.org"`)
	}
}

// A state is where Perdition rewrites names.
type state uint8

const (
	lookupState state = 1 << iota
	loginState
)

func parseStates(words []string) (state, error) {
	var s state
	for _, w := range words {
		switch w {
		case "servername_lookup":
			s |= lookupState
		case "remote_login":
			s |= loginState
		case "all":
			s |= lookupState | loginState
		case "local_authentication":
			return 0, errors.New("has local_authentication, and popgate does not log users in by PAM: leave it out")
		default:
			return 0, fmt.Errorf("has %q: there are servername_lookup, remote_login and all", clip(w))
		}
	}
	return s, nil
}

// A queryKey is one format of query_key, taken apart: texts, and between them the letters of what is put in.
type queryKey struct {
	texts   []string // one more than letters
	letters []byte
	// domainOnly says that the key is made of the domain and nothing else of the name or the client, so that case means nothing.
	domainOnly bool
}

func parseKey(format string) (queryKey, error) {
	var k queryKey
	text := ""
	for i := 0; i < len(format); i++ {
		c := format[i]
		switch {
		case c != '\\':
			text += string(c)
			continue
		case i+1 == len(format):
			return k, errors.New(`ends in a single backslash: write \\ for one`)
		}
		i++
		switch c = format[i]; c {
		case '\\':
			text += `\`
		case 'U', 'u', 'D', 'd', 'i', 'I', 'p', 'P':
			k.texts, k.letters, text = append(k.texts, text), append(k.letters, c), ""
		default:
			return k, fmt.Errorf(`has \%c: there are \U \u \D \d \i \I \p \P and \\`, c)
		}
	}
	k.texts = append(k.texts, text)
	if len(k.letters) == 0 {
		return k, errors.New(`is the same for every user: write what of the name is looked up, such as \U`)
	}
	k.domainOnly = slices.Contains(k.letters, 'd') && !slices.ContainsFunc(k.letters, func(c byte) bool { return c != 'd' && c != 'D' })
	return k, nil
}

// perdition is how users are looked up.
type perdition struct {
	delimiter            string
	keys                 []queryKey
	strip, add, lower    state
	depth                int
	explicit             string
	usernameFromDatabase bool

	vary  Vary
	hosts hostNames // for add_domain
}

// newPerdition makes it of a config that validate has seen.
func newPerdition(c *PopmapConfig) *perdition {
	p := &perdition{
		delimiter: c.DomainDelimiter, depth: c.AddDomainDepth, usernameFromDatabase: c.UsernameFromDatabase,
		explicit: c.ExplicitDomain, vary: VaryUser,
	}
	for _, text := range c.QueryKey {
		k, _ := parseKey(text)
		p.keys = append(p.keys, k)
		if slices.ContainsFunc(k.letters, func(c byte) bool { return strings.IndexByte("iIpP", c) >= 0 }) {
			p.vary |= VaryClient | VaryListener
		}
	}
	p.strip, _ = parseStates(c.StripDomain)
	p.add, _ = parseStates(c.AddDomain)
	p.lower, _ = parseStates(c.LowerCase)
	if p.add != 0 && p.explicit == "" {
		p.vary |= VaryListener
	}
	return p
}

// name appends a user's name as Perdition would be told it to dst.
func (p *perdition) name(dst []byte, n *auth.Name) []byte {
	dst = append(dst, n.Local...)
	if n.Domain != "" {
		dst = append(append(dst, p.delimiter...), n.Domain...)
	}
	return dst
}

// rewrite strips, adds and lowers as configured for a state. It may use the memory of user.
func (p *perdition) rewrite(ctx context.Context, s state, user []byte, c *auth.Client) ([]byte, error) {
	if p.strip&s != 0 {
		user, _ = p.cut(user)
	}
	if p.add&s != 0 && !bytes.Contains(user, []byte(p.delimiter)) {
		domain, err := p.domain(ctx, c)
		if err != nil {
			return nil, err
		}
		if domain != "" {
			user = append(append(user, p.delimiter...), domain...)
		}
	}
	if p.lower&s != 0 {
		user = appendLower(nil, user)
	}
	return user, nil
}

// domain is what add_domain adds, "" for nothing.
func (p *perdition) domain(ctx context.Context, c *auth.Client) (string, error) {
	if p.explicit != "" {
		return p.explicit, nil
	}
	host, err := p.hosts.name(ctx, c.Local.Addr())
	if err != nil {
		return "", err
	}
	for range p.depth {
		_, rest, ok := strings.Cut(host, ".")
		if !ok {
			return "", nil
		}
		host = rest
	}
	return host, nil
}

// key appends what a query key makes of a name to dst. client may be nil for keys of the domain alone.
func (p *perdition) key(dst []byte, k queryKey, user []byte, client *auth.Client) []byte {
	for i, c := range k.letters {
		dst = append(dst, k.texts[i]...)
		switch c {
		case 'U':
			dst = append(dst, user...)
		case 'u':
			local, _ := p.cut(user)
			dst = append(dst, local...)
		case 'd':
			_, domain := p.cut(user)
			dst = append(dst, domain...)
		case 'D':
			dst = append(dst, p.delimiter...)
		case 'i':
			dst = appendAddr(dst, client.Addr)
		case 'I':
			dst = appendAddr(dst, client.Local)
		case 'p':
			dst = strconv.AppendUint(dst, uint64(client.Addr.Port()), 10)
		case 'P':
			dst = strconv.AppendUint(dst, uint64(client.Local.Port()), 10)
		}
	}
	return append(dst, k.texts[len(k.letters)]...)
}

func appendAddr(dst []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return dst
	}
	return a.Addr().WithZone("").AppendTo(dst)
}

// cut parts a name at its last delimiter.
func (p *perdition) cut(user []byte) (local, domain []byte) {
	i := bytes.LastIndex(user, []byte(p.delimiter))
	if i < 0 {
		return user, nil
	}
	return user[:i], user[i+len(p.delimiter):]
}

// answer makes the answer for a user of what the map says.
func (p *perdition) answer(ctx context.Context, a Answer, q *auth.Query) (Answer, error) {
	if !p.usernameFromDatabase {
		a.User = ""
	}
	if (p.strip|p.add|p.lower)&loginState == 0 {
		return a, nil
	}
	user := []byte(a.User)
	if a.User == "" {
		user = p.name(nil, &q.Name)
	}
	user, err := p.rewrite(ctx, loginState, user, q.Client)
	a.User = string(user)
	return a, err
}
