package directory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxItem bounds one element of a list in YAML.
const maxItem = 1 << 20

// errNoList is what a YAML file must be.
var errNoList = errors.New(`is not part of a list: the file must be one list, each element of which begins with "- " in the same column`)

// parseYAML reads a list of our own as YAML: one list of mappings, in block form. It is taken apart at the lines that begin an
// element, for a library's tree of a million users would not fit in memory. An element that YAML lets go on behind such a line, as
// a text in quotes may, is a fault.
func parseYAML(l *lines, b *builder, faults *faults) error {
	p := yamlParser{b: b, faults: faults, column: -1}
	for {
		line, err := l.next()
		if err != nil {
			p.flush()
			return err
		}
		if len(p.item)+len(line) > maxItem {
			faults.add(p.first, fmt.Errorf("begins an element of more than %d bytes", maxItem))
			return io.EOF
		}
		if !p.line(l.n, line) {
			return io.EOF
		}
	}
}

type yamlParser struct {
	b      *builder
	faults *faults
	column int    // of the elements' "-"; -1 before the first
	item   []byte // the lines of the element that is being read, each with its end
	first  int    // the number of its first line, 0 where there is none
	begun  bool   // there was a "---"
}

// line takes a line. It is false where the rest of the file means nothing.
func (p *yamlParser) line(n int, line []byte) bool {
	text := bytes.TrimLeft(line, " ")
	column := len(line) - len(text)
	switch {
	case len(text) == 0 || text[0] == '#' && column <= max(p.column, 0):
		// A blank line may be part of a text: the line count goes on.
	case p.column < 0 && !p.begun && string(bytes.TrimRight(line, " \t")) == "---":
		p.begun = true
		return true
	case dash(text) && (p.column < 0 || p.column == column):
		p.flush()
		p.column, p.first = column, n
	case p.first == 0 || column <= p.column:
		p.flush()
		p.faults.add(n, errNoList)
		return false
	}
	if p.first > 0 {
		p.item = append(append(p.item, line...), '\n')
	}
	return true
}

// dash says that a line begins an element.
func dash(text []byte) bool {
	return text[0] == '-' && (len(text) == 1 || text[1] == ' ')
}

// flush takes the element that has been read.
func (p *yamlParser) flush() {
	if p.first == 0 {
		return
	}
	e := listed{record: record{line: p.first}}
	if !p.plain(&e) {
		e = listed{record: record{line: p.first}}
		if line, err := p.decode(&e); err != nil {
			p.faults.add(line, err)
			p.item, p.first = p.item[:0], 0
			return
		}
	}
	p.faults.add(p.first, e.put(p.b))
	p.item, p.first = p.item[:0], 0
}

// plain reads an element of the simplest forms, a "key: value" on each line or all of them in braces on one line, as fast as a
// million of them need. It is false for anything that may mean more than it seems to.
func (p *yamlParser) plain(e *listed) bool {
	text := bytes.TrimLeft(p.item[p.column+1:], " ")
	column := len(p.item) - len(text)
	if line, ok := bytes.CutSuffix(text, []byte("}\n")); ok && text[0] == '{' {
		return plainBraces(e, line[1:])
	}
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		if !plainPair(e, line, true) {
			return false
		}
		if len(rest) == 0 {
			return true
		}
		text = bytes.TrimLeft(rest, " ")
		if len(rest)-len(text) != column {
			return false
		}
	}
	return false
}

// plainBraces reads what stands between braces.
func plainBraces(e *listed, text []byte) bool {
	for more := true; more; {
		var pair []byte
		if pair, text, more = bytes.Cut(text, []byte(", ")); !plainPair(e, pair, false) {
			return false
		}
	}
	return true
}

// plainPair takes a key with its value. Colons in a value without quotes are left to the library where they may part another pair.
func plainPair(e *listed, pair []byte, colons bool) bool {
	key, value, ok := bytes.Cut(pair, []byte(": "))
	if quoted := bytes.IndexAny(value, `"'`) == 0; !ok || !colons && !quoted && bytes.IndexByte(value, ':') >= 0 {
		return false
	}
	n := slices.Index(columns, string(key))
	value, ok = plainValue(value)
	return n >= 0 && ok && e.set(n, string(value)) == nil
}

// plainValue gives the text of a value that is what it seems to be, in quotes or without. It need not know all of them.
func plainValue(v []byte) ([]byte, bool) {
	if len(v) >= 2 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0] {
		inner := v[1 : len(v)-1]
		return inner, bytes.IndexByte(inner, v[0]) < 0 && bytes.IndexByte(inner, '\\') < 0 && !bytes.ContainsFunc(inner, notPrintable)
	}
	if len(v) == 0 || strings.IndexByte(".-@:", v[0]) >= 0 || v[len(v)-1] == ':' || bytes.ContainsFunc(v, notPlain) {
		return nil, false
	}
	return v, !bytes.EqualFold(v, []byte("null"))
}

// notPlain tells the characters that may mean something to YAML.
func notPlain(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("@.-_+/:", r)
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

// decode reads an element of any form. Its error comes with the line it is about.
func (p *yamlParser) decode(e *listed) (int, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(p.item, &doc); err != nil {
		return p.whatYAML(err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.SequenceNode || len(doc.Content[0].Content) != 1 {
		return p.first, errNoList
	}
	m := doc.Content[0].Content[0]
	if m.Kind != yaml.MappingNode {
		return p.first, errors.New("begins an element that is no mapping: write user: or domain:, and what is said of it")
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		key, value := m.Content[i], m.Content[i+1]
		n := slices.Index(columns, key.Value)
		if n < 0 || key.Kind != yaml.ScalarNode {
			return p.first + key.Line - 1, fmt.Errorf("has the key %q: there are %s", clip(key.Value), strings.Join(columns, ", "))
		}
		text, err := yamlText(columns[n], value)
		if err == nil {
			err = e.set(n, text)
		}
		if err != nil {
			return p.first + key.Line - 1, err
		}
	}
	return p.first, nil
}

// yamlText gives a value as text, and a list of texts parted by blanks.
func yamlText(key string, v *yaml.Node) (string, error) {
	switch {
	case v.Anchor != "" || v.Kind == yaml.AliasNode:
		return "", fmt.Errorf("%s has an anchor or alias, which mean nothing in a list of users", key)
	case v.Kind == yaml.ScalarNode && v.ShortTag() == "!!null":
		return "", nil
	case v.Kind == yaml.ScalarNode:
		return v.Value, nil
	case v.Kind == yaml.SequenceNode && key == "allow_nets":
		words := make([]string, len(v.Content))
		for i, one := range v.Content {
			if one.Kind != yaml.ScalarNode {
				return "", errors.New("allow_nets is no list of networks")
			}
			words[i] = one.Value
		}
		return strings.Join(words, " "), nil
	}
	return "", fmt.Errorf("%s is no single value", key)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// whatYAML makes of the library's error one that counts lines of the file.
func (p *yamlParser) whatYAML(err error) (int, error) {
	line, text := p.first, err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			line += n - 1
		}
		text = m[2]
	}
	if strings.Contains(text, "anchor") { // and shows its name: a password may begin with & or *
		text = "a text that begins with & or * must be in quotes"
	}
	return line, fmt.Errorf("is no YAML: %s", clip(text))
}
