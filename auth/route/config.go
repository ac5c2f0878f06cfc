package route

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/popgate/popgate/auth"
)

// Config is one element of `routes:`. All conditions that are written must hold; of a list, one entry must fit.
type Config struct {
	// The domains of the users this route is for, without regard to case, in letters of any script. "*.example.org" takes
	// every domain below example.org, at any depth, but not example.org itself. None means every user, those without a
	// domain too.
	Domains []string `yaml:"domains"`
	// Regular expressions (RE2) that the user's name with its domain must match, such as "^sales-". They may match
	// anywhere in the name unless they begin with "^" and end with "$"; "(?i)" in front disregards case. The domain in
	// the name is in lower case.
	Users []string `yaml:"users"`
	// The names of the listeners that the client may have come in by.
	Listeners []string `yaml:"listeners"`
	// The server names (SNI) that the client may have asked for in its TLS handshake; "*.example.org" as in domains.
	ServerNames []string `yaml:"server_names"`
	// The networks that the client's address may be in, such as "192.0.2.0/24" or a single address.
	From []netip.Prefix `yaml:"from"`
	// The name of the directory that knows where each of these users lives, or a list of names: the first directory that
	// knows the user decides. For users whom none of them knows, the next route is tried.
	Directory Chain `yaml:"directory"`
	// The name of the backend that holds the mailboxes of these users. With `directory`, it is for the users of whom the
	// directory says nothing else, and its settings are used for a server that the directory names; it may then be left
	// out where the directory always names a backend.
	Backend string `yaml:"backend"`
	// While users are moved: the name of the backend to try when `backend` refuses a user's password. It is tried only for
	// users whom the directory marks as moving, so that wrong passwords are not doubled for everybody else.
	Then string `yaml:"then"`
	// What the backend is told as user name: text with {user} (the name as typed), {local} (the part before the
	// domain) and {domain}. A directory may name another.
	Username string `yaml:"username"`
	// A label for limits, audit records and metrics, such as the customer's name.
	Tenant string `yaml:"tenant"`
}

// DefaultConfig is a route as it is where a key is not written: the backend is told what the user typed.
func DefaultConfig() Config {
	return Config{Username: "{user}"}
}

// Validate reports every fault of the route by its key.
func (c Config) Validate(fault func(key, problem string)) {
	c.compile(fault)
}

// compile makes the route that c describes, as far as it can; what it cannot is reported.
func (c Config) compile(fault func(key, problem string)) *route {
	r := &route{config: c}
	r.domains = patterns(c.Domains, "domains", fault)
	for i, u := range c.Users {
		re, err := regexp.Compile(u)
		switch {
		case u == "":
			fault(fmt.Sprintf("users[%d]", i), "is empty and would match every user: leave it out")
		case err != nil:
			fault(fmt.Sprintf("users[%d]", i), "is no regular expression: "+strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		default:
			r.users = append(r.users, re)
		}
	}
	for i, l := range c.Listeners {
		if l == "" {
			fault(fmt.Sprintf("listeners[%d]", i), "is empty: write the name of a listener")
		}
	}
	r.serverNames = patterns(c.ServerNames, "server_names", fault)
	for i, p := range c.From {
		if !p.IsValid() || p.Addr().Is4In6() {
			fault(fmt.Sprintf("from[%d]", i), `is no network: write it as "192.0.2.0/24" or "2001:db8::/32"`)
		}
	}
	c.validateWhere(fault)
	var err error
	if r.username, err = parseTemplate(c.Username); err != nil {
		fault("username", err.Error())
	}
	return r
}

// validateWhere reports what is wrong with where the route leads.
func (c *Config) validateWhere(fault func(key, problem string)) {
	if c.Backend == "" && len(c.Directory) == 0 {
		fault("backend", "is missing: write the name of one of the backends")
	}
	for i, name := range c.Directory {
		switch {
		case name == "":
			fault(fmt.Sprintf("directory[%d]", i), "is empty: write the name of one of the directories")
		case slices.Contains(c.Directory[:i], name):
			fault(fmt.Sprintf("directory[%d]", i), fmt.Sprintf("is %q, which this route asks already", name))
		}
	}
	switch {
	case c.Then == "":
	case len(c.Directory) == 0:
		fault("then", "is for users whom a directory marks as moving: write directory, too, or leave it out")
	case c.Then == c.Backend:
		fault("then", "is the same as backend: write the backend where users are moved to or from")
	}
}

// A Chain is the names of directories in the order they are asked. In a file, one may stand without a list.
type Chain []string

// OneOrMore marks a list that may be written as one word.
func (Chain) OneOrMore() {}

// A pattern is a domain, or all domains below one.
type pattern struct {
	domain string // in auth.Domain's form
	below  bool
}

func (p pattern) match(domain string) bool {
	if !p.below {
		return domain == p.domain
	}
	n := len(domain) - len(p.domain)
	return n > 1 && domain[n-1] == '.' && domain[n:] == p.domain
}

func patterns(written []string, key string, fault func(key, problem string)) []pattern {
	var all []pattern
	for i, s := range written {
		p, problem := parsePattern(s)
		if problem != "" {
			fault(fmt.Sprintf("%s[%d]", key, i), problem)
			continue
		}
		all = append(all, p)
	}
	return all
}

func parsePattern(s string) (pattern, string) {
	rest, below := strings.CutPrefix(s, "*.")
	d, err := auth.Domain(rest)
	switch {
	case s == "*":
		return pattern{}, "is met by every domain: leave the list out, or write a pattern such as \"*.example.org\""
	case strings.Contains(rest, "@"):
		return pattern{}, "is an address: write the part behind the @"
	case strings.Contains(rest, "*"):
		return pattern{}, `may have one "*", in front: write "*.example.org"`
	case d == "" || err != nil:
		return pattern{}, `is no domain: write one such as "example.org" or "*.example.org"`
	}
	return pattern{d, below}, ""
}
