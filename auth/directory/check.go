package directory

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/popgate/popgate/auth"
)

// An allowed is one entry of allowed_servers: a network, or a host name, or all names below one.
type allowed struct {
	network netip.Prefix
	name    string // in auth.Domain's form; "" for a network
	below   bool
	port    string // "" is any
}

// match says whether the entry takes a server. addr is the zero Addr for a host that is a name; port may be one of several.
func (a allowed) match(host string, addr netip.Addr, ports []string) bool {
	if a.port != "" && !slices.Contains(ports, a.port) {
		return false
	}
	switch {
	case a.name == "":
		return addr.IsValid() && a.network.Contains(addr)
	case addr.IsValid():
		return false
	case a.below:
		return strings.HasSuffix(host, "."+a.name)
	}
	return host == a.name
}

// parseAllowed reads an entry of allowed_servers.
func parseAllowed(s string) (allowed, error) {
	host, port, err := cutPort(s)
	if err != nil {
		return allowed{}, err
	}
	a := allowed{port: port}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		if addr.Zone() != "" {
			return allowed{}, errors.New("has a zone: write the address without it")
		}
		a.network = netip.PrefixFrom(addr, addr.BitLen())
		return a, nil
	}
	if strings.Contains(host, "/") {
		if a.network, err = netip.ParsePrefix(host); err != nil || a.network.Addr().Is4In6() {
			return allowed{}, errors.New(`is no network: write it as "10.0.0.0/8" or "2001:db8::/32", with a port as "[2001:db8::/32]:110"`)
		}
		return a, nil
	}
	rest, below := strings.CutPrefix(host, "*.")
	name, err := auth.Domain(rest)
	if err != nil || name == "" || strings.ContainsAny(rest, "*") {
		return allowed{}, errors.New(`is no server: write an address, a network such as "10.0.0.0/8", a host name, or "*.example.org"`)
	}
	a.name, a.below = name, below
	return a, nil
}

// cutPort parts host:port. What stands in brackets, or has more than one colon and no brackets, is taken as IPv6. The port is
// "" where there is none.
func cutPort(s string) (host, port string, err error) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, rest, ok = strings.Cut(rest, "]")
		if !ok {
			return "", "", errors.New(`has "[" without its "]"`)
		}
		if rest == "" {
			return host, "", nil
		}
		s = rest
		if s[0] != ':' {
			return "", "", errors.New(`has something other than ":port" behind its "]"`)
		}
		port = s[1:]
	} else {
		if strings.Count(s, ":") != 1 {
			return s, "", nil
		}
		host, port, _ = strings.Cut(s, ":")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", "", fmt.Errorf("has the port %q: write a number from 1 to 65535", clip(port))
	}
	return host, strconv.FormatUint(n, 10), nil
}

// The bounds of what an answer may hold.
const (
	maxField = 1024
	maxHash  = 4096
	maxNets  = 256
)

// A checker holds the answers of one directory to what it may say.
type checker struct {
	allowed []allowed
}

// check makes sure that an answer can be used, and brings its server into the one form host:port, or host where there is no
// port. The error names the field, and never its value where that is a secret.
func (c *checker) check(a *Answer) error {
	for _, f := range []struct {
		name, value string
		limit       int
		blanks      bool // the value may have blanks
		secret      bool
	}{
		{"backend", a.Backend, maxField, true, false},
		{"server", a.Server, maxField, false, false},
		{"tls", a.TLS, maxField, false, false},
		{"user", a.User, maxField, false, false},
		{"secret", a.Secret, maxField, true, true},
		{"master", a.Master, maxField, false, false},
		{"hash", a.Hash, maxHash, true, true},
		{"tenant", a.Tenant, maxField, true, false},
	} {
		if err := field(f.value, f.limit, f.blanks, f.secret); err != nil {
			return fmt.Errorf("its %s %w", f.name, err)
		}
	}
	if len(a.AllowNets) > maxNets {
		return fmt.Errorf("it lists %d networks, and more than %d are not taken", len(a.AllowNets), maxNets)
	}
	if usualPorts[a.TLS] == nil {
		return fmt.Errorf("its tls is %q: there are none, starttls and implicit", clip(a.TLS))
	}
	if a.Master != "" && a.Secret == "" {
		return fmt.Errorf("it names the master user %q without a password for it", clip(a.Master))
	}
	if a.Master != "" && a.User == "" {
		// A lookup may find a user by a part of the name, or in other letters: as typed, the name could be another user's mailbox.
		return fmt.Errorf("it names the master user %q without the user whose mailbox that is to open", clip(a.Master))
	}
	return c.server(a)
}

// field checks one text. Control bytes would be commands at a backend.
func field(s string, limit int, blanks, secret bool) error {
	if len(s) > limit {
		return fmt.Errorf("has %d bytes, and more than %d are not taken", len(s), limit)
	}
	for i := range len(s) {
		if b := s[i]; b < ' ' || b == 0x7f || b == ' ' && !blanks {
			if secret {
				return errors.New("has a control byte")
			}
			return fmt.Errorf("%q has a blank or control byte", clip(s))
		}
	}
	return nil
}

// usualPorts are those that a server without a port may get, by how TLS starts there.
var usualPorts = map[string][]string{
	"": {"110", "995"}, "none": {"110"}, "starttls": {"110"}, "implicit": {"995"},
}

// server checks the one server that an answer names.
func (c *checker) server(a *Answer) error {
	if a.Server == "" {
		return nil
	}
	host, port, err := cutPort(a.Server)
	if err != nil {
		return fmt.Errorf("its server %q %w", clip(a.Server), err)
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		if host, err = auth.Domain(host); err != nil || host == "" {
			return fmt.Errorf("its server %q is neither an address nor a host name", clip(a.Server))
		}
	case addr.Zone() != "":
		return fmt.Errorf("its server %q has a zone, which means nothing to other machines", clip(a.Server))
	default:
		addr = addr.Unmap()
		host = addr.String()
	}
	ports := []string{port}
	if port == "" {
		ports = usualPorts[a.TLS]
	}
	for _, one := range c.allowed {
		if one.match(host, addr, ports) {
			a.Server = join(host, port)
			return nil
		}
	}
	return fmt.Errorf("its server %q is not in allowed_servers", clip(a.Server))
}

// join writes host:port, or the host alone.
func join(host, port string) string {
	if port == "" {
		return host
	}
	return net.JoinHostPort(host, port)
}

// clip shortens what came from outside for an error.
func clip(s string) string {
	const limit = 128
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for s != "" && !utf8.ValidString(s[max(0, len(s)-utf8.UTFMax):]) && len(s) > limit-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return s + "…"
}
