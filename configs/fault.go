package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Fault is one thing that is wrong with a configuration. Line and Column count from 1 and are 0 where there is
// no line to point at: a file that cannot be read, an environment variable, a flag. File is empty for the last two.
type Fault struct {
	File         string
	Line, Column int
	Key          string // the key's path, such as "listeners[0].address", or the variable or flag that holds the value
	Problem      string // what is wrong
	Hint         string // what to write instead; may be empty
}

// Error returns the fault as one line: where, which key, what is wrong, what to do.
func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	for _, part := range []string{f.Key, f.Problem} {
		if part != "" && b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(part)
	}
	if f.Hint != "" {
		b.WriteString("; " + f.Hint)
	}
	return b.String()
}

// Faults are all that is wrong with a configuration, sorted by line.
type Faults []Fault

// Error lists the faults, one a line.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// maxFaults bounds what one file can make us say: past this many the rest follows from the first.
const maxFaults = 200

// An origin is where a value was written: a place in the file, or the variable or flag that set it.
type origin struct {
	line, column int
	name         string
}

// A report collects faults and knows where every value came from.
type report struct {
	file   string
	at     map[string]origin // by key path; "" is the whole
	broken map[string]bool   // paths that have a fault: what follows from one is not said again
	faults Faults
	more   int // faults past maxFaults
}

func newReport(file string) *report {
	return &report{file: file, at: map[string]origin{}, broken: map[string]bool{}}
}

// add reports a fault of the value at path, or of the nearest enclosing one that was written.
func (r *report) add(path, problem, hint string) {
	r.addAt(r.origin(path), path, problem, hint)
}

// follow reports a fault unless the value or what encloses it has one already, which then caused this one.
func (r *report) follow(path, problem, hint string) {
	for p := path; p != ""; p = parent(p) {
		if r.broken[p] {
			return
		}
	}
	r.add(path, problem, hint)
}

func (r *report) addAt(o origin, path, problem, hint string) {
	r.broken[path] = true
	if len(r.faults) == maxFaults {
		r.more++
		return
	}
	r.faults = append(r.faults, r.fault(o, path, problem, hint))
}

func (r *report) fault(o origin, path, problem, hint string) Fault {
	// The file has nothing to do with what a variable or a flag says.
	if o.name != "" {
		return Fault{Key: o.name, Problem: problem, Hint: hint}
	}
	return Fault{File: r.file, Line: o.line, Column: o.column, Key: path, Problem: problem, Hint: hint}
}

// sound tells that a section has no fault; "" is all of them.
func (r *report) sound(section string) bool {
	if section == "" {
		return len(r.faults) == 0
	}
	for path := range r.broken {
		if path == section || strings.HasPrefix(path, section+".") || strings.HasPrefix(path, section+"[") {
			return false
		}
	}
	return true
}

func (r *report) origin(path string) origin {
	for p := path; ; p = parent(p) {
		if o, ok := r.at[p]; ok || p == "" {
			return o
		}
	}
}

// err returns the faults sorted by line, or nil.
func (r *report) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(r.faults, func(a, b Fault) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column, strings.Compare(a.Key, b.Key))
	})
	// An alias can lead to one place many times.
	r.faults = slices.Compact(r.faults)
	if r.more > 0 {
		return append(r.faults, Fault{File: r.file, Problem: fmt.Sprintf("%d more faults", r.more), Hint: "mend these first"})
	}
	return r.faults
}

// parent cuts the last step from a path: "a.b[0]" gives "a.b", then "a", then "".
func parent(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// join adds a key to a path.
func join(path, key string) string {
	if path == "" || strings.HasPrefix(key, "[") {
		return path + key
	}
	if key == "" {
		return path
	}
	return path + "." + key
}
