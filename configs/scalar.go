package configs

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The tags of YAML's scalars.
const (
	tagText = "!!str"
	tagInt  = "!!int"
	tagReal = "!!float"
	tagBool = "!!bool"
	tagNull = "!!null"
	tagTime = "!!timestamp"
)

// A scalar is one written value.
type scalar struct {
	text string
	tag  string
	path string
	// loose values come from the environment, where all is text: they may become numbers and booleans.
	loose bool
}

// set stores the value in to. When it does not fit, set says why and what to write, and leaves to alone.
func (s scalar) set(to reflect.Value) (problem, hint string) {
	// No name, address, path or pattern has one, and all of them end up in logs.
	if i := strings.IndexFunc(s.text, unicode.IsControl); i >= 0 {
		return fmt.Sprintf("is %s, which has a line break or a control character in it", show(s.text)), "write it on one line, without"
	}
	switch target := to.Addr().Interface().(type) {
	case *time.Duration:
		return s.duration(target)
	case *netip.Prefix:
		return s.prefix(target)
	case encoding.TextUnmarshaler:
		return s.own(to, target)
	}
	switch to.Kind() {
	case reflect.String:
		return s.string(to)
	case reflect.Bool:
		return s.bool(to)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return s.int(to)
	case reflect.Uint32:
		return s.uint(to)
	}
	panic("configs: no key can be of type " + to.Type().String())
}

func (s scalar) duration(to *time.Duration) (problem, hint string) {
	switch number := s.tag == tagInt || s.tag == tagReal || s.loose && isNumber(s.text); {
	case s.text == "":
		*to = 0
		return "", ""
	case number && s.text != "0": // ten of what? 0 is the same in all units
		return fmt.Sprintf("is %s without a unit", show(s.text)), fmt.Sprintf("write %ss for seconds, %sm for minutes", s.text, s.text)
	}
	d, err := time.ParseDuration(s.text)
	if err != nil {
		return fmt.Sprintf("is %s, which is no duration", show(s.text)), "write a number and a unit, such as 500ms, 10s, 5m or 1h30m"
	}
	*to = d
	return "", ""
}

func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil
}

// prefix takes an address for the network of it alone, and clears the bits behind the mask, as routers do.
func (s scalar) prefix(to *netip.Prefix) (problem, hint string) {
	if a, err := netip.ParseAddr(s.text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		*to = netip.PrefixFrom(a, a.BitLen())
		return "", ""
	}
	p, err := netip.ParsePrefix(s.text)
	if err != nil {
		return fmt.Sprintf("is %s, which is no network", show(s.text)), "write an address or a network, such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32"
	}
	// Clients' addresses are unmapped before they are compared, so networks have to be.
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	*to = p.Masked()
	return "", ""
}

// own lets the type read its text; a value that it refuses half way is not left behind.
func (s scalar) own(to reflect.Value, u encoding.TextUnmarshaler) (problem, hint string) {
	before := reflect.New(to.Type()).Elem()
	before.Set(to)
	if err := u.UnmarshalText([]byte(s.text)); err != nil {
		to.Set(before)
		return err.Error(), ""
	}
	return "", ""
}

func (s scalar) string(to reflect.Value) (problem, hint string) {
	switch {
	case s.loose || s.tag == tagText || s.tag == tagTime:
		to.SetString(s.text)
		return "", ""
	case s.tag == tagBool:
		// What YAML reads as a date is text to everybody else; true and 1.2 may not be what was meant.
		return fmt.Sprintf("is the truth value %s, and text is wanted", show(s.text)), fmt.Sprintf("if it is meant as text, write %q", s.text)
	}
	return fmt.Sprintf("is the number %s, and text is wanted", show(s.text)), fmt.Sprintf("put it in quotes: %q", s.text)
}

func (s scalar) bool(to reflect.Value) (problem, hint string) {
	b, err := strconv.ParseBool(strings.ToLower(s.text))
	if err != nil || s.tag != tagBool && !s.loose {
		return fmt.Sprintf("is %s", show(s.text)), "write true or false"
	}
	to.SetBool(b)
	return "", ""
}

func (s scalar) int(to reflect.Value) (problem, hint string) {
	// A shell's user who writes 010 means ten; YAML has it be eight.
	base := 0 // as YAML reads it: 0x1f, 1_000
	if s.loose {
		base = 10
	}
	n, err := strconv.ParseInt(s.text, base, 64)
	switch {
	case !s.loose && s.tag != tagInt && s.tag != tagReal || err != nil && !isNumber(s.text):
		return fmt.Sprintf("is %s, which is no whole number", show(s.text)), "write digits alone, without quotes"
	case err != nil || s.tag == tagReal || to.OverflowInt(n):
		return fmt.Sprintf("is %s, which is too large or not whole", show(s.text)), "write a whole number"
	}
	to.SetInt(n)
	return "", ""
}

func (s scalar) uint(to reflect.Value) (problem, hint string) {
	n := reflect.New(reflect.TypeFor[int64]()).Elem()
	if problem, hint = s.int(n); problem != "" {
		return problem, hint
	}
	if n.Int() < 0 || to.OverflowUint(uint64(n.Int())) {
		return fmt.Sprintf("is %s, which is too large or below zero", show(s.text)), "write a whole number"
	}
	to.SetUint(uint64(n.Int()))
	return "", ""
}

// show quotes a text for a message, which a long one must not fill.
func show(text string) string {
	const most = 60
	if len(text) > most {
		return strconv.Quote(strings.ToValidUTF8(text[:most], "")) + "..."
	}
	return strconv.Quote(text)
}

// wants says in a user's words what a value of the type looks like.
func wants(t reflect.Type) string {
	switch t {
	case durationType:
		return "a duration"
	case reflect.TypeFor[netip.Prefix]():
		return "a network"
	}
	if isLeaf(t) && reflect.PointerTo(t).Implements(unmarshalerType) {
		return "a " + strings.ToLower(t.Name())
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint32:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	}
	return "a section with keys of its own"
}
