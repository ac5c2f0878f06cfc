package pop3

import (
	"slices"
	"strings"
)

// Capabilities are the lines of a CAPA answer (RFC 2449 section 5), without status line and final dot: a name,
// then blanks and arguments. The order means nothing.
type Capabilities []string

// ParseCapability tidies one line of a CAPA answer; "" means that it says nothing. No name holds a dot (RFC 2449
// section 3), and one in front would end the answer that popgate makes of it.
func ParseCapability(line []byte) string {
	fields := strings.Fields(strings.Map(printable, string(line)))
	if len(fields) == 0 || strings.HasPrefix(fields[0], ".") {
		return ""
	}
	fields[0] = strings.ToUpper(fields[0])
	return strings.Join(fields, " ")
}

// Has says that the capability called name, in capitals, is there, with or without arguments.
func (c Capabilities) Has(name string) bool {
	_, ok := c.Args(name)
	return ok
}

// Args returns the arguments of the capability called name, in capitals, and whether it is there.
func (c Capabilities) Args(name string) ([]string, bool) {
	for _, line := range c {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == name {
			return fields[1:], true
		}
	}
	return nil, false
}

// Common returns the lines that all of sets have, arguments included, sorted. No sets have nothing in common.
func Common(sets ...Capabilities) Capabilities {
	if len(sets) == 0 {
		return nil
	}
	var common Capabilities
	for _, line := range sets[0] {
		if !slices.ContainsFunc(sets[1:], func(c Capabilities) bool { return !slices.Contains(c, line) }) {
			common = append(common, line)
		}
	}
	slices.Sort(common)
	return slices.Compact(common)
}

// AppendTo appends the whole answer to CAPA: the status line, a line each, and the final dot.
func (c Capabilities) AppendTo(b []byte) []byte {
	b = AppendOK(b, "Capability list follows")
	for _, line := range c {
		b = append(b, line...)
		b = append(b, '\r', '\n')
	}
	return append(b, '.', '\r', '\n')
}
