package convert

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A section is a block of Dovecot's: settings and blocks, in their order.
type section struct {
	place
	kind, name string // passdb passwd-file, service pop3-login
	settings   []setting
	sections   []*section
}

type setting struct {
	place
	key, value string
}

func (s setting) String() string { return s.key + " = " + s.value }

// find is the last setting of a key: that is the one in force.
func (s *section) find(key string) (setting, bool) {
	for _, x := range slices.Backward(s.settings) {
		if x.key == key {
			return x, true
		}
	}
	return setting{}, false
}

func (s *section) value(key string) string {
	x, _ := s.find(key)
	return x.value
}

// all are the blocks of a kind.
func (s *section) all(kind string) []*section {
	var found []*section
	for _, x := range s.sections {
		if x.kind == kind {
			found = append(found, x)
		}
	}
	return found
}

// A dovecotReader reads files, and counts them.
type dovecotReader struct{ files int }

// file reads a file into a section.
func (r *dovecotReader) file(name string, into *section, depth int) error {
	if r.files++; r.files > maxFiles || depth > maxDepth {
		return fmt.Errorf("%s: too many files are included", name)
	}
	data, err := readFile(name)
	if err != nil {
		return err
	}
	stack := []*section{into}
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		at := place{name, i + 1}
		line := dovecotLine(lines[i])
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			i++
			line = strings.TrimSpace(strings.TrimSuffix(line, `\`)) + " " + dovecotLine(lines[i])
		}
		top := stack[len(stack)-1]
		switch {
		case line == "":
		case line == "}":
			if len(stack) == 1 {
				return fmt.Errorf("%s: a } that closes nothing", at)
			}
			stack = stack[:len(stack)-1]
		case strings.HasPrefix(line, "!include"):
			if err := r.include(line, at, top, depth); err != nil {
				return err
			}
		case strings.HasSuffix(line, "{"):
			inner, err := top.open(line, at, len(stack))
			if err != nil {
				return err
			}
			stack = append(stack, inner)
		default:
			if err := top.set(line, at); err != nil {
				return err
			}
		}
	}
	if len(stack) > 1 {
		return fmt.Errorf("%s: the block %s has no end: a } is missing", stack[len(stack)-1].place, stack[len(stack)-1].kind)
	}
	return nil
}

// open begins the block of a line that ends with a brace.
func (s *section) open(line string, at place, depth int) (*section, error) {
	words := strings.Fields(strings.TrimSuffix(line, "{"))
	if len(words) == 0 || depth > maxDepth {
		return nil, fmt.Errorf("%s: a block without a name", at)
	}
	inner := &section{place: at, kind: words[0], name: strings.Trim(strings.Join(words[1:], " "), `"`)}
	s.sections = append(s.sections, inner)
	return inner, nil
}

// set takes up a line with a setting.
func (s *section) set(line string, at place) error {
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return fmt.Errorf("%s: %q is neither a setting nor a block", at, printable(line))
	}
	s.settings = append(s.settings, setting{at, strings.TrimSpace(key), unquote(strings.TrimSpace(value))})
	return nil
}

// dovecotLine is a line without its comment and the blanks around it. A "#" begins a comment at the start of a line or behind a
// blank, outside quotes.
func dovecotLine(line string) string {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '"':
			quoted = !quoted
		case '#':
			if !quoted && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
				return strings.TrimSpace(line[:i])
			}
		}
	}
	return strings.TrimSpace(line)
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// include reads what an !include line names.
func (r *dovecotReader) include(line string, at place, into *section, depth int) error {
	words := strings.Fields(line)
	if len(words) != 2 {
		return fmt.Errorf("%s: %s names no file", at, words[0])
	}
	pattern := words[1]
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(at.file), pattern)
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 && words[0] == "!include" && !strings.ContainsAny(pattern, "*?[") {
		return fmt.Errorf("%s: !include %s: there is no such file", at, words[1])
	}
	for _, name := range files {
		if err := r.file(name, into, depth+1); err != nil {
			return err
		}
	}
	return nil
}
