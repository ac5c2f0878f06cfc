package route

import (
	"errors"
	"fmt"
	"strings"

	"github.com/popgate/popgate/auth"
)

// A template makes the name that the backend is told.
type template []part

// A part is text as it is, or one of the placeholders with its braces.
type part struct {
	text        string
	placeholder bool
}

// placeholders are all there are.
const placeholders = "{user}, {local} and {domain}"

func parseTemplate(s string) (template, error) {
	if s == "" {
		return nil, errors.New(`is empty: write "{user}" for the name as the user typed it`)
	}
	var t template
	for s != "" {
		i := strings.IndexAny(s, "{}")
		if i < 0 {
			i = len(s)
		}
		if text := s[:i]; text != "" {
			if strings.ContainsFunc(text, unsendable) {
				return nil, errors.New("has a blank or control character, which no user name can have")
			}
			t = append(t, part{text: text})
		}
		if s = s[i:]; s == "" {
			break
		}
		end := strings.IndexByte(s, '}') + 1
		if s[0] == '}' || end == 0 {
			return nil, fmt.Errorf("has a %q without its partner: placeholders are %s", s[:1], placeholders)
		}
		switch s[:end] {
		case "{user}", "{local}", "{domain}":
			t = append(t, part{text: s[:end], placeholder: true})
		default:
			return nil, fmt.Errorf("has the unknown placeholder %q: there are %s", s[:end], placeholders)
		}
		s = s[end:]
	}
	return t, nil
}

// unsendable tells what would not arrive as a part of USER's argument.
func unsendable(r rune) bool { return r <= ' ' || r == 0x7f }

// expand fills in a name. It fails where the template asks for a part that the name does not have: the backend would be
// told a name that is somebody else's.
func (t template) expand(n auth.Name) (string, error) {
	if len(t) == 1 && t[0].placeholder {
		return fill(t[0].text, n)
	}
	var b strings.Builder
	for _, p := range t {
		text := p.text
		if p.placeholder {
			var err error
			if text, err = fill(p.text, n); err != nil {
				return "", err
			}
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func fill(placeholder string, n auth.Name) (string, error) {
	value := n.Typed
	switch placeholder {
	case "{local}":
		value = n.Local
	case "{domain}":
		value = n.Domain
	}
	if value == "" {
		return "", fmt.Errorf("the name has nothing for %s", placeholder)
	}
	return value, nil
}
