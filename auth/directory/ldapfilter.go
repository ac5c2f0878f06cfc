package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/popgate/popgate/auth"
)

// A filterTemplate is a search filter with places for what was typed. There, it is only ever a value that attributes are compared with.
type filterTemplate struct {
	text []string // around the places
	name []string // of what goes into each place: one fewer
}

// parseFilter reads a filter with {name} in it. It refuses places where what is put in could be more than a value.
func parseFilter(s string, allowed ...string) (filterTemplate, error) {
	if s == "" {
		return filterTemplate{}, fmt.Errorf("is empty; write a filter such as (mail={%s})", allowed[0])
	}
	var t filterTemplate
	rest := s
	for {
		before, after, found := strings.Cut(rest, "{")
		t.text = append(t.text, before)
		if !found {
			break
		}
		name, after, found := strings.Cut(after, "}")
		if !found || !slices.Contains(allowed, name) {
			return filterTemplate{}, fmt.Errorf("has {%s; there are {%s}, and a brace of the value itself is written \\7b", clip(name), strings.Join(allowed, "}, {"))
		}
		if !t.atValue() {
			return filterTemplate{}, fmt.Errorf("has {%s} where no value is; write it behind a =, as in (mail={%s})", name, name)
		}
		t.name = append(t.name, name)
		rest = after
	}
	if len(t.name) == 0 {
		return filterTemplate{}, fmt.Errorf("finds the same for everybody; use {%s}", strings.Join(allowed, "}, {"))
	}
	if _, err := ldap.CompileFilter(t.fill(auth.Name{Typed: "x", Local: "x", Domain: "x"})); err != nil {
		return filterTemplate{}, errors.New(`is no filter as RFC 4515 has them; write one such as (&(objectClass=inetOrgPerson)(mail={user}))`)
	}
	return t, nil
}

// atValue says whether the place behind the text so far is inside a value: there is a "=" since the last parenthesis, which a
// value has only in its escaped form. A backslash just before would take part of what is put in.
func (t *filterTemplate) atValue() bool {
	all := strings.Join(t.text, "x")
	item := all[strings.LastIndexAny(all, "()")+1:]
	return strings.Contains(item, "=") && !strings.HasSuffix(item, `\`)
}

// fill puts the parts of a name into their places.
func (t filterTemplate) fill(n auth.Name) string {
	var b strings.Builder
	for i, text := range t.text {
		b.WriteString(text)
		if i == len(t.name) {
			break
		}
		value := n.Typed
		switch t.name[i] {
		case "local":
			value = n.Local
		case "domain":
			value = n.Domain
		}
		b.WriteString(ldap.EscapeFilter(value))
	}
	return b.String()
}
