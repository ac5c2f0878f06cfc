package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFile bounds a configuration file. One with every domain of a big provider in its routes stays well below.
const maxFile = 10 << 20

// least is the shortest file that works, for hints.
const least = `backends: [{name: old, servers: [{address: "HOST:110"}]}]`

// read returns the text of a file. On false it has reported why not.
func read(path string, r *report) ([]byte, bool) {
	// Whatever can be read will do, a pipe too: serve -c <(make-config).
	f, err := os.Open(path)
	if err != nil {
		r.add("", unopened(err), hintFor(err))
		return nil, false
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		r.add("", "is a directory", "name the file in it, such as "+strings.TrimRight(path, "/")+"/popgate.yaml")
		return nil, false
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		r.add("", unopened(err), "")
		return nil, false
	}
	// One octet more than allowed was asked for, to tell a file that just fits from one that does not.
	if len(text) > maxFile {
		r.add("", "is longer than 10 MiB", "a configuration is shorter; is this the right file?")
		return nil, false
	}
	return text, true
}

// unopened words the cause without the path, which stands before it already.
func unopened(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return "cannot be read: " + err.Error()
}

func hintFor(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "write it, or start without a file: popgate serve --to HOST:110"
	case errors.Is(err, fs.ErrPermission):
		return "let the user that popgate runs as read it"
	}
	return ""
}

// parse returns the root of the only document in text. On false it has reported why there is none.
func parse(text []byte, r *report) (*yaml.Node, bool) {
	if i := notText(text); i >= 0 {
		line := 1 + bytes.Count(text[:i], []byte("\n"))
		r.addAt(origin{line: line, column: i - bytes.LastIndexByte(text[:i], '\n')}, "",
			"is not UTF-8 text", "the file must be YAML or JSON, saved as UTF-8")
		return nil, false
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, next yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF) || err == nil && document.Content[0].ShortTag() == tagNull:
		r.add("", "is empty", "write at least: "+least)
		return nil, false
	case err != nil:
		syntaxFault(err, text, r)
		return nil, false
	}
	// A broken second document is no better than a whole one.
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		r.addAt(origin{line: max(next.Line, 1), column: 1}, "", "a second document begins here",
			"one file holds one configuration: remove the line --- or what follows it")
		return nil, false
	}
	root := document.Content[0]
	r.at[""] = origin{line: root.Line, column: root.Column}
	return root, true
}

// notText returns where text stops being UTF-8, or has an octet that no text has; -1 if it does not.
func notText(text []byte) int {
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRune(text[i:])
		control := c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f
		if control || c == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

var (
	yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)
	// fromParser matches the errors whose lines yaml counts from 0; the others are counted from 1.
	fromParser = regexp.MustCompile(`^did not find expected (node content|'-' indicator|key|',' or '[\]}]'|<)`)
	leadingTab = regexp.MustCompile(`(?m)^ *\t[ \t]*[^\s#]`)
	alias      = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

const quoteStar = "a value that begins with * must be in quotes"

// syntaxFault reports why text is not YAML, and the slips that are behind it most often.
func syntaxFault(err error, text []byte, r *report) {
	m := yamlError.FindStringSubmatch(err.Error())
	if m == nil {
		m = []string{"", "", err.Error()}
	}
	line, _ := strconv.Atoi(m[1]) // yaml leaves out the number of its first line
	problem, hint := m[2], ""
	if fromParser.MatchString(problem) || line == 0 {
		line++
	}
	lines := strings.Split(string(text), "\n")
	line = min(line, len(lines))
	written := lines[line-1]
	tab, name := leadingTab.FindIndex(text), alias.FindStringSubmatch(problem)
	switch {
	case tab != nil:
		// yaml names the line where it lost its way, which may be far below.
		line = 1 + bytes.Count(text[:tab[0]], []byte("\n"))
		problem, hint = "a tab indents this line", "use spaces"
	case name != nil:
		// For this one yaml names no line at all.
		line = 1 + bytes.Count(text[:max(bytes.Index(text, []byte("*"+name[1])), 0)], []byte("\n"))
		problem, hint = fmt.Sprintf("there is no anchor &%s for *%s", name[1], name[1]), quoteStar
	case strings.Contains(problem, "alphabetic or numeric"):
		hint = quoteStar
	case strings.Contains(written, "${"):
		hint = `within { } and [ ] write "${NAME}" in quotes`
	case strings.Contains(problem, "mapping values are not allowed"):
		hint = "a value with a colon and a space must be in quotes, and keys of one section begin in one column"
	}
	r.addAt(origin{line: line, column: 1}, "", "this is not YAML: "+problem, hint)
}
