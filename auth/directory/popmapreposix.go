package directory

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/popgate/popgate/auth"
)

var bounds = regexp.MustCompile(`^\{([0-9]+)?(,[0-9]*)?\}`)

// posix brings an extended regular expression of POSIX, as the C library takes it, into Go's words for the same. What only the
// GNU library has, and back-references, are errors.
func posix(text string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			if i++; i == len(text) {
				return "", errors.New("ends in a backslash")
			}
			if err := posixEscape(&out, text[i]); err != nil {
				return "", err
			}
		case '[':
			n, err := posixBracket(&out, text[i:])
			if err != nil {
				return "", err
			}
			i += n - 1
		case '{':
			m := bounds.FindStringSubmatch(text[i:])
			if m == nil || m[1] == "" && m[2] == "" {
				return "", errors.New("has a { that begins no count")
			}
			if m[1] == "" {
				m[1] = "0"
			}
			out.WriteString("{" + m[1] + m[2] + "}")
			i += len(m[0]) - 1
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), nil
}

func posixEscape(out *strings.Builder, c byte) error {
	switch {
	case c >= '1' && c <= '9':
		return fmt.Errorf(`has the back-reference \%c, which POSIX does not have here either`, c)
	case strings.IndexByte("wWsSbB<>`'", c) >= 0:
		return fmt.Errorf(`has \%c, which is GNU's alone: write a class such as [[:space:]], or ^ and $`, c)
	}
	out.WriteString(regexp.QuoteMeta(string(rune(c))))
	return nil
}

// posixBracket writes a bracket expression, in which a backslash is a character as any other, and says how long it was.
func posixBracket(out *strings.Builder, text string) (int, error) {
	i := 1
	out.WriteByte('[')
	if strings.HasPrefix(text[i:], "^") {
		out.WriteByte('^')
		i++
	}
	for first := true; i < len(text); first = false {
		rest := text[i:]
		switch c := rest[0]; {
		case c == ']' && !first:
			out.WriteByte(']')
			return i + 1, nil
		case strings.HasPrefix(rest, "[:"):
			end := strings.Index(rest, ":]")
			if end < 0 {
				return 0, errors.New("has a [: without its :]")
			}
			out.WriteString(rest[:end+2])
			i += end + 2
		case strings.HasPrefix(rest, "[.") || strings.HasPrefix(rest, "[="):
			return 0, errors.New("has a collating element, which depends on the locale")
		case c == '\\' || c == '[' || c == ']' || c == '^':
			out.WriteString(`\` + rest[:1])
			i++
		default:
			out.WriteByte(c)
			i++
		}
	}
	return 0, errors.New("has a [ without its ]")
}

// maxTexts bounds what is made of the alternatives of one expression.
const maxTexts = 256

// literals are the texts that stand in an expression, each as long as it can be; "." where any character may be, as people write
// for a dot.
func literals(re *regexp.Regexp) []string {
	tree, err := syntax.Parse(re.String(), syntax.POSIX)
	if err != nil {
		return nil
	}
	var done []string
	now := literalsOf(tree, []string{""}, &done)
	return append(done, now...)
}

// literalsOf makes each of the texts that may stand before tree longer by tree; those that end here go to done.
func literalsOf(tree *syntax.Regexp, before []string, done *[]string) []string {
	longer := func(s string) []string {
		after := make([]string, len(before))
		for i := range before {
			after[i] = before[i] + s
		}
		return after
	}
	switch tree.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText:
		return before
	case syntax.OpLiteral:
		return longer(string(tree.Rune))
	case syntax.OpAnyCharNotNL, syntax.OpAnyChar:
		return longer(".")
	case syntax.OpCapture, syntax.OpConcat:
		for _, sub := range tree.Sub {
			before = literalsOf(sub, before, done)
		}
		return before
	case syntax.OpCharClass:
		if some := someRunes(tree.Rune); some != nil {
			return literalsOf(&syntax.Regexp{Op: syntax.OpAlternate, Sub: some}, before, done)
		}
	case syntax.OpAlternate:
		var after []string
		for _, sub := range tree.Sub {
			if after = append(after, literalsOf(sub, before, done)...); len(after) > maxTexts {
				return []string{""}
			}
		}
		return after
	}
	if len(*done) < maxTexts {
		*done = append(*done, before...)
	}
	return []string{""}
}

// someRunes are the characters of a class with few of them, which the library makes of alternatives; nil for one with many.
func someRunes(ranges []rune) (some []*syntax.Regexp) {
	for i := 0; i < len(ranges); i += 2 {
		for r := ranges[i]; r <= ranges[i+1]; r++ {
			if len(some) == 16 {
				return nil
			}
			some = append(some, &syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune{r}})
		}
	}
	return some
}

// namedDomains are the domains that an expression has behind an "@".
func namedDomains(re *regexp.Regexp) []string {
	var domains []string
	for _, text := range literals(re) {
		i := strings.LastIndexByte(text, '@')
		if i < 0 {
			continue
		}
		if d, err := auth.Domain(text[i+1:]); err == nil && strings.Contains(d, ".") {
			domains = append(domains, d)
		}
	}
	return domains
}

// names says that an expression has a domain in it, alone or behind other things.
func names(re *regexp.Regexp, domain string) bool {
	return slices.ContainsFunc(literals(re), func(text string) bool {
		before, ok := strings.CutSuffix(strings.ToLower(text), domain)
		return ok && (before == "" || !auth.Hostname(before[len(before)-1:]))
	})
}
