package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"

	"github.com/popgate/popgate/auth"
)

// A rule is a line of a popmap.re.
type rule struct {
	re         *regexp.Regexp
	substitute string
	line       int
}

// rules are those of one file, in its order. They never change.
type rules struct {
	list    []rule
	domains []string // that rules name, in order
}

// entries counts the rules.
func (r *rules) entries() int { return len(r.list) }

// popmapRE is the source of Perdition's popmap.re.
type popmapRE struct {
	*watched[*rules]
	p *perdition
}

// newPopmapRE reads the popmap.re of a directory; that fails where the file is bad.
func newPopmapRE(name string, c PopmapConfig, log *slog.Logger) (Opened, error) {
	w, err := watch(name, c.Path, log, func(f *os.File, _ int64) (*rules, error) { return parsePopmapRE(f, f.Name()) })
	if err != nil {
		return Opened{}, err
	}
	p := newPerdition(&c)
	return Opened{Source: &popmapRE{w, p}, Vary: p.vary, Memory: true}, nil
}

// Lookup tries the query keys in their order, each on all rules.
func (m *popmapRE) Lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	r := *m.current()
	user, err := m.p.rewrite(ctx, lookupState, m.p.name(nil, &q.Name), q.Client)
	if err != nil {
		return Answer{}, err
	}
	for _, format := range m.p.keys {
		key := string(m.p.key(nil, format, user, q.Client))
		value, line := r.find(key)
		if value == "" {
			continue
		}
		a, err := m.p.value(value)
		if err != nil {
			return Answer{}, asContent(fmt.Errorf("%s:%d makes of %q an answer that %w", m.path, line, clip(key), err))
		}
		return m.p.answer(ctx, a, q)
	}
	return Answer{}, auth.ErrUnknownUser
}

// KnowsDomain says whether a rule names the domain, or a query key that is made of the domain alone finds something. A rule for
// every name says nothing of a domain.
func (m *popmapRE) KnowsDomain(_ context.Context, domain string) (bool, error) {
	r := *m.current()
	if _, ok := slices.BinarySearch(r.domains, domain); ok {
		return true, nil
	}
	for _, format := range m.p.keys {
		if !format.domainOnly {
			continue
		}
		key := m.p.key(nil, format, []byte(m.p.delimiter+domain), nil)
		for i := range r.list {
			if names(r.list[i].re, domain) && r.list[i].re.Match(key) {
				return true, nil
			}
		}
	}
	return false, nil
}

// Domains lists the domains that rules name.
func (m *popmapRE) Domains() []string { return slices.Clone((*m.current()).domains) }

// find gives what the first rule that matches makes of a key, and the rule's line; "" where there is none.
func (r *rules) find(key string) (value string, line int) {
	for i := range r.list {
		m := r.list[i].re.FindStringSubmatchIndex(key)
		if m == nil {
			continue
		}
		return r.list[i].expand(key, m), r.list[i].line
	}
	return "", 0
}

// expand does what Perdition does: what stands before the match is kept, what stands after it is dropped. Where the match is
// empty, one byte after it is kept; at the end of the key, where there is none, Perdition says that the user is unknown. A $ with
// the number of a group that is not there or has not matched stands for itself.
func (r *rule) expand(key string, m []int) string {
	if m[0] == m[1] && m[0] == len(key) {
		return ""
	}
	out := []byte(key[:m[0]])
	s := r.substitute
	for i := 0; i < len(s); i++ {
		if s[i] == '$' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9' {
			if n := 2 * int(s[i+1]-'0'); n < len(m) && m[n] >= 0 {
				out = append(out, key[m[n]:m[n+1]]...)
				i++
				continue
			}
		}
		out = append(out, s[i])
	}
	if m[0] == m[1] {
		out = append(out, key[m[1]])
	}
	return string(out)
}

// parsePopmapRE makes rules of a file. Words come in pairs, expression and substitute, within what Perdition's reader takes for
// a line.
func parsePopmapRE(f io.Reader, path string) (*rules, error) {
	faults := faults{path: path}
	words, err := popmapWords(f, &faults)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	r := &rules{}
	for i := 0; i < len(words); i++ {
		pattern := words[i]
		if pattern.text == "" { // the end of a line, or nothing in quotes
			continue
		}
		if i++; i == len(words) || words[i].end {
			faults.add(pattern.line, errors.New(`has an expression without a substitute: write "expression: [user@]host[:port]"`))
			continue
		}
		one, err := newRule(pattern, words[i].text)
		faults.add(pattern.line, err)
		if one != nil {
			r.list = append(r.list, *one)
			r.domains = append(r.domains, namedDomains(one.re)...)
		}
	}
	slices.Sort(r.domains)
	r.domains = slices.Compact(r.domains)
	return r, faults.err()
}

// newRule compiles one; nil without an error is one that Perdition passes over.
func newRule(pattern popmapWord, substitute string) (*rule, error) {
	text := pattern.text
	if text[len(text)-1] == ':' {
		text = text[:len(text)-1]
	}
	if text == "" || substitute == "" {
		return nil, nil
	}
	translated, err := posix(text)
	if err != nil {
		return nil, fmt.Errorf("has the expression %q, which %w", clip(text), err)
	}
	re, err := regexp.CompilePOSIX(translated)
	if err != nil {
		return nil, fmt.Errorf("has the expression %q, which is none: %w", clip(text), err)
	}
	if err := field(substitute, maxField, false, false); err != nil {
		return nil, fmt.Errorf("has a substitute that %w", err)
	}
	return &rule{re: re, substitute: substitute, line: pattern.line}, nil
}
