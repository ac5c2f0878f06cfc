package directory

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// maxText bounds one value of an answer that comes as text. It is above all that checker takes.
const maxText = 8192

// fields make an Answer of texts by name: the columns of a row, the attributes of an entry.
type fields struct {
	answer     Answer
	host, port string
	given      map[string]bool // what was set so far, by the name in the answer
}

// fieldNames are all that fields knows, for errors.
const fieldNames = "backend, server, host, port, tls, user (or username), password, master, hash, tenant, disabled, moving and allow_nets"

// set takes one value; an empty one sets nothing. Errors do not show values, which may be passwords, except those of fields
// that hold none.
func (f *fields) set(name, value string) error {
	if name == "username" {
		name = "user"
	}
	if f.given[name] {
		return fmt.Errorf("%s is there twice", name)
	}
	if f.given == nil {
		f.given = make(map[string]bool)
	}
	f.given[name] = true
	if len(value) > maxText {
		return fmt.Errorf("%s has %d bytes, and more than %d are not taken", name, len(value), maxText)
	}
	return f.put(name, value)
}

func (f *fields) put(name, value string) (err error) {
	trimmed := strings.TrimSpace(value) // CHAR(20) comes with blanks
	a := &f.answer
	switch name {
	case "backend":
		a.Backend = trimmed
	case "server":
		a.Server = trimmed
	case "host":
		f.host = trimmed
	case "port":
		f.port = trimmed
	case "tls":
		a.TLS = strings.ToLower(trimmed)
	case "user":
		a.User = trimmed
	case "password":
		a.Secret = value
	case "master":
		a.Master = trimmed
	case "hash":
		a.Hash = trimmed
	case "tenant":
		a.Tenant = trimmed
	case "disabled":
		a.Disabled, err = truth(name, trimmed)
	case "moving":
		a.Moving, err = truth(name, trimmed)
	case "allow_nets":
		a.AllowNets, err = netList(name, trimmed)
	default:
		err = fmt.Errorf("%q means nothing: there are %s", clip(name), fieldNames)
	}
	return err
}

// result puts together what was set.
func (f *fields) result() (Answer, error) {
	if f.host == "" {
		return f.answer, nil // a port alone is a column's default
	}
	if f.answer.Server != "" {
		return Answer{}, fmt.Errorf("server is %q and host is %q: give one of them", clip(f.answer.Server), clip(f.host))
	}
	f.answer.Server = f.host
	if f.port != "" {
		f.answer.Server = net.JoinHostPort(f.host, f.port)
	}
	return f.answer, nil
}

// truth reads what databases and directories write for a truth value.
func truth(name, value string) (bool, error) {
	switch strings.ToLower(value) {
	case "1", "t", "true", "y", "yes", "on", "\x01": // the last is MySQL's BIT(1)
		return true, nil
	case "", "0", "f", "false", "n", "no", "off", "\x00":
		return false, nil
	}
	return false, fmt.Errorf("%s is %q, which is neither true nor false", name, clip(value))
}

// netList reads a list of networks and addresses, parted by blanks or commas; PostgreSQL puts braces around its arrays. Nothing, or
// braces around nothing, is no list.
func netList(name, value string) ([]netip.Prefix, error) {
	if rest, ok := strings.CutPrefix(value, "{"); ok {
		value = strings.TrimSuffix(rest, "}")
	}
	var nets []netip.Prefix
	for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
		p, err := netip.ParsePrefix(word)
		if err != nil {
			addr, err := netip.ParseAddr(word)
			if err != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("%s has %q, which is no network", name, clip(word))
			}
			p = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		if len(nets) == maxNets {
			return nil, fmt.Errorf("%s has more than %d networks", name, maxNets)
		}
		nets = append(nets, p.Masked())
	}
	if nets == nil && strings.TrimSpace(value) != "" {
		return nil, fmt.Errorf("%s names no network", name) // none would mean everywhere
	}
	return nets, nil
}
