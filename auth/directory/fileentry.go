package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/popgate/popgate/auth"
)

// A listed is one element of a list of our own: what it is for, and what is said of it.
type listed struct {
	user, domain string
	record
	given uint32 // which columns were set
}

// columns are the names of all that an entry can have, in CSV's header and as YAML's keys.
var columns = []string{
	"user", "domain", "backend", "server", "tls", "name", "password", "master", "hash", "tenant", "allow_nets", "disabled", "moving",
}

// Those of the columns that are more than a text.
const (
	colTLS       = 4
	colPassword  = 6
	colAllowNets = 10
	colDisabled  = 11
)

// set takes one value by its column. Errors do not show values that may be passwords.
func (e *listed) set(column int, value string) (err error) {
	if e.given&(1<<column) != 0 {
		return fmt.Errorf("%s is there twice", columns[column])
	}
	e.given |= 1 << column
	if column != colPassword {
		value = strings.TrimSpace(value)
	}
	texts := [...]*string{
		&e.user, &e.domain, &e.Backend, &e.Server, &e.TLS, &e.User, &e.Secret, &e.Master, &e.Hash, &e.Tenant,
	}
	switch {
	case column == colTLS:
		e.TLS = strings.ToLower(value)
	case column < len(texts):
		*texts[column] = value
	case column == colAllowNets:
		if e.AllowNets, err = netList("allow_nets", value); err == nil && value != "" && len(e.AllowNets) == 0 {
			err = errors.New("allow_nets names no network")
		}
	case column == colDisabled:
		e.Disabled, err = truth("disabled", value)
	default:
		e.Moving, err = truth("moving", value)
	}
	return err
}

// put adds the entry to a table, if it is a good one.
func (e *listed) put(b *builder) error {
	if err := e.check(); err != nil {
		return err
	}
	switch {
	case e.user != "" && e.domain != "":
		return errors.New("has a user and a domain: write one entry for each")
	case e.user != "":
		return e.putUser(b)
	case e.domain != "":
		return e.putDomain(b)
	}
	return errors.New("is for nobody: write a user or a domain")
}

func (e *listed) putUser(b *builder) error {
	if strings.HasPrefix(e.user, "@") || strings.HasPrefix(e.user, "*") {
		return fmt.Errorf("has the user %q: an entry for all of a domain has the domain as its domain", clip(e.user))
	}
	n, err := split(e.user)
	if err != nil {
		return fmt.Errorf("has the user %q: %w", clip(e.user), err)
	}
	var buf [maxKey]byte
	if err := b.add(&b.t.users, userKey(buf[:0], n.Local, n.Domain), &e.record); err != nil {
		return err
	}
	return b.mention(n.Domain, e.line)
}

func (e *listed) putDomain(b *builder) error {
	x := &b.t.domains
	rest, below := strings.CutPrefix(e.domain, "*.")
	if below {
		x = &b.t.below
	}
	d, err := auth.Domain(rest)
	if err != nil || d == "" {
		return fmt.Errorf(`has the domain %q: write one such as "example.org" or "*.example.org"`, clip(e.domain))
	}
	if e.Hash != "" {
		return fmt.Errorf("is for all users of %s and has a hash: no two users have the same password", d)
	}
	left := strings.NewReplacer("{user}", "", "{local}", "", "{domain}", "").Replace(e.User)
	if strings.ContainsAny(left, "{}") {
		return fmt.Errorf("has the name %q: there are {user}, {local} and {domain}", clip(e.User))
	}
	return b.add(x, []byte(d), &e.record)
}

// check says what no entry may have.
func (e *listed) check() error {
	for _, f := range [...]struct {
		name, value string
		limit       int
		blanks      bool
		secret      bool
	}{
		{"backend", e.Backend, maxField, true, false},
		{"name", e.User, maxField, false, false},
		{"password", e.Secret, maxField, true, true},
		{"master", e.Master, maxField, false, false},
		{"hash", e.Hash, maxHash, true, true},
		{"tenant", e.Tenant, maxField, true, false},
	} {
		if f.value == "" {
			continue
		}
		if err := field(f.value, f.limit, f.blanks, f.secret); err != nil {
			return fmt.Errorf("has a %s that %w", f.name, err)
		}
	}
	switch {
	case e.TLS != "" && usualPorts[e.TLS] == nil:
		return fmt.Errorf("has tls %q: there are none, starttls and implicit", clip(e.TLS))
	case e.TLS != "" && e.Server == "":
		return errors.New("has tls without a server: how TLS starts at a backend stands in its own section")
	case e.Master != "" && e.Secret == "":
		return errors.New("has a master without its password")
	case e.Secret != "" && e.Hash == "" && e.user != "":
		return errors.New("has a password for the backend, and no hash to check the client's against: whoever came would be let in")
	case e.Secret != "" && e.Hash == "":
		return errors.New("has a password for the backend: a domain has no hash to check the client's against, and whoever came would be let in")
	}
	return checkServer(e.Server)
}

// checkServer says what is wrong with a server as a file names it: host or host:port.
func checkServer(server string) error {
	if server == "" {
		return nil
	}
	if len(server) > maxField {
		return fmt.Errorf("has a server of %d bytes", len(server))
	}
	host, _, err := cutPort(server)
	if err != nil {
		return fmt.Errorf("has the server %q, which %w", clip(server), err)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if host, err = auth.Domain(host); err != nil || host == "" {
		return fmt.Errorf("has the server %q, which is neither an address nor a host name, alone or with :port", clip(server))
	}
	return nil
}
