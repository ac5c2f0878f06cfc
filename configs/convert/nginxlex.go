package convert

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A directive is one statement of a file in nginx's form: a name, arguments, and a block or none.
type directive struct {
	place
	name  string
	args  []string
	block []*directive // nil where it ends with a semicolon
}

// String is the directive as it stands in the file, without its block.
func (d *directive) String() string {
	return strings.Join(append([]string{d.name}, d.args...), " ")
}

func (d *directive) arg(i int) string {
	if i < len(d.args) {
		return d.args[i]
	}
	return ""
}

const (
	maxFile  = 16 << 20 // more than any configuration
	maxFiles = 1000
	maxDepth = 50
)

// readFile reads one file of a configuration.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, which no configuration has", name, info.Size())
	}
	return os.ReadFile(name)
}

// An nginxReader reads files in nginx's form.
type nginxReader struct {
	dir   string // what relative names in an include are relative to
	files int
}

// file reads a file. What it includes is read when a block is about to be looked at: expand does it.
func (r *nginxReader) file(name string) ([]*directive, error) {
	if r.files++; r.files > maxFiles {
		return nil, fmt.Errorf("%s: more than %d files are included", name, maxFiles)
	}
	data, err := readFile(name)
	if err != nil {
		return nil, err
	}
	p := &nginxParser{file: name, rest: string(data), line: 1}
	all, err := p.block(0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place{name, p.line}, err)
	}
	return all, nil
}

// expand puts the contents of included files in the place of `include` lines, at this level of blocks.
func (r *nginxReader) expand(list []*directive, depth int) ([]*directive, error) {
	var all []*directive
	for _, d := range list {
		if d.name != "include" || len(d.args) != 1 {
			all = append(all, d)
			continue
		}
		if depth == maxDepth {
			return nil, fmt.Errorf("%s: files include each other %d deep", d.place, depth)
		}
		pattern := d.args[0]
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(r.dir, pattern)
		}
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 && !strings.ContainsAny(pattern, "*?[") {
			return nil, fmt.Errorf("%s: include %s: there is no such file", d.place, d.args[0])
		}
		for _, name := range files {
			inner, err := r.file(name)
			if err != nil {
				return nil, err
			}
			if inner, err = r.expand(inner, depth+1); err != nil {
				return nil, err
			}
			all = append(all, inner...)
		}
	}
	return all, nil
}

// An nginxParser takes one file apart.
type nginxParser struct {
	file string
	rest string
	line int
}

// block reads statements up to the end of the block, or of the file at depth 0.
func (p *nginxParser) block(depth int) ([]*directive, error) {
	if depth > maxDepth {
		return nil, errors.New("blocks are nested too deep")
	}
	list := []*directive{}
	for {
		word, special, err := p.token()
		at := place{p.file, p.line}
		switch {
		case err != nil:
			return nil, err
		case special == 0 && depth == 0:
			return list, nil
		case special == 0:
			return nil, errors.New("the file ends inside a block: a } is missing")
		case special == '}' && depth > 0:
			return list, nil
		case special != wordToken:
			return nil, fmt.Errorf("unexpected %q", special)
		}
		d := &directive{place: at, name: word}
		if err := p.statement(d, depth); err != nil {
			return nil, err
		}
		list = append(list, d)
	}
}

// statement reads what follows a directive's name.
func (p *nginxParser) statement(d *directive, depth int) error {
	for {
		word, special, err := p.token()
		switch {
		case err != nil:
			return err
		case special == wordToken:
			d.args = append(d.args, word)
		case special == ';':
			return nil
		case special == '{':
			d.block, err = p.block(depth + 1)
			return err
		default:
			return fmt.Errorf("%s has no end: a ; or a block is missing", d.name)
		}
	}
}

// wordToken is the kind of a token that is a word; the others are their own character, and 0 is the end.
const wordToken = 'w'

// token reads the next token, over blanks and comments.
func (p *nginxParser) token() (word string, kind rune, err error) {
	for p.rest != "" {
		c := p.rest[0]
		switch c {
		case '\n':
			p.line++
			p.rest = p.rest[1:]
		case ' ', '\t', '\r':
			p.rest = p.rest[1:]
		case '#':
			if i := strings.IndexByte(p.rest, '\n'); i >= 0 {
				p.rest = p.rest[i:]
			} else {
				p.rest = ""
			}
		case ';', '{', '}':
			p.rest = p.rest[1:]
			return "", rune(c), nil
		case '"', '\'':
			return p.quoted(c)
		default:
			return p.plain(), wordToken, nil
		}
	}
	return "", 0, nil
}

// quoted reads a word in quotes.
func (p *nginxParser) quoted(quote byte) (string, rune, error) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == quote:
			p.rest = p.rest[i+1:]
			return b.String(), wordToken, nil
		case c == '\\' && i+1 < len(p.rest):
			i++
			if next := p.rest[i]; !slices.Contains([]byte{quote, '\\'}, next) {
				b.WriteByte('\\')
			}
			b.WriteByte(p.rest[i])
		default:
			if c == '\n' {
				p.line++
			}
			b.WriteByte(c)
		}
	}
	return "", 0, errors.New("a quote has no end")
}

// plain reads a word without quotes. "${" does not open a block.
func (p *nginxParser) plain() string {
	var b strings.Builder
	i := 0
	for i < len(p.rest) {
		c := p.rest[i]
		if strings.IndexByte(" \t\r\n;", c) >= 0 || c == '{' && !strings.HasSuffix(b.String(), "$") {
			break
		}
		if c == '\\' && i+1 < len(p.rest) && p.rest[i+1] != '\n' {
			i++
			c = p.rest[i]
		}
		b.WriteByte(c)
		i++
	}
	p.rest = p.rest[i:]
	return b.String()
}
