package configs

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// A validator is a section, or an entry of a list, that knows what is impossible in it.
type validator interface {
	Validate(fault func(key, problem string))
}

// validate asks every validator in a struct. What one holds, it checks by itself.
func validate(v reflect.Value, path string, r *report) {
	// What follows from a fault that the file's shape has already is not said again.
	if c, ok := v.Interface().(validator); ok {
		c.Validate(func(key, problem string) { r.follow(join(path, key), problem, "") })
		return
	}
	switch {
	case isLeaf(v.Type()):
	case v.Kind() == reflect.Struct:
		for _, f := range fields(v.Type()) {
			validate(v.FieldByIndex(f.Index), join(path, f.name), r)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			validate(v.Index(i), fmt.Sprintf("%s[%d]", path, i), r)
		}
	}
}

// A register is the names of a list's entries.
type register struct {
	list  string
	names []string
}

// unique reports the entries that bear the name of an earlier one.
func (g register) unique(r *report) {
	for i, name := range g.names {
		if first := slices.Index(g.names, name); first < i && name != "" {
			r.follow(fmt.Sprintf("%s[%d].name", g.list, i),
				fmt.Sprintf("is %s, which is the name of %s too", show(name), r.where(fmt.Sprintf("%s[%d]", g.list, first))),
				"names tell entries apart: choose another")
		}
	}
}

// refer reports a reference, written at path, that no entry bears the name of. Where an entry's own name is at fault, that may be the
// reason, and nothing is said.
func (g register) refer(path, name string, r *report) {
	if name == "" || slices.Contains(g.names, name) || r.broken[g.list] {
		return
	}
	// The entry that is meant may be there, with its name misspelt or of the wrong type.
	for i, n := range g.names {
		if n == "" || r.broken[fmt.Sprintf("%s[%d].name", g.list, i)] {
			return
		}
	}
	hint := "add it to " + g.list
	if n := nearest(name, g.names); n != "" {
		hint = fmt.Sprintf("did you mean %s?", n)
	} else if len(g.names) > 0 {
		hint += ", or name one of: " + clip(strings.Join(g.names, ", "))
	}
	r.follow(path, fmt.Sprintf("is %s, and %s has no entry of that name", show(name), g.list), hint)
}

// where names a place for a message that stands elsewhere.
func (r *report) where(path string) string {
	switch o := r.origin(path); {
	case o.name != "":
		return o.name
	case o.line > 0:
		return fmt.Sprintf("%s in line %d", path, o.line)
	}
	return path
}

// An endpoint is an address that something listens on, and the key that says so.
type endpoint struct{ key, address string }

// apart reports the endpoints that cannot be open at once with an earlier one.
func apart(all []endpoint, r *report) {
	for i, e := range all {
		for _, earlier := range all[:i] {
			if overlap(e.address, earlier.address) {
				r.follow(e.key, fmt.Sprintf("is %s, which overlaps with %s of %s", show(e.address), show(earlier.address), r.where(earlier.key)), "choose another port")
				break
			}
		}
	}
}

// overlap tells whether two addresses would take a port from each other. A wildcard, of either family, covers all hosts:
// Go opens it for IPv4 and IPv6 together.
func overlap(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	// What is no address is for its own package to report.
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	ipA, ipB := host(hostA), host(hostB)
	return ipA == ipB || ipA.IsUnspecified() || ipB.IsUnspecified()
}

func host(name string) netip.Addr {
	if name == "" {
		return netip.IPv6Unspecified()
	}
	ip, _ := netip.ParseAddr(name)
	return ip.Unmap()
}
