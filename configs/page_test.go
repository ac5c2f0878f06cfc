package configs

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/popgate/popgate/auth/directory"
)

var update = flag.Bool("update", false, "write docs/configuration.md instead of comparing it")

// The root of the module, and its path.
const (
	root   = ".."
	module = "github.com/popgate/popgate"
)

// TestPage makes docs/configuration.md of the doc comments and the defaults of all Config structs. With -update it writes the page.
func TestPage(t *testing.T) {
	head, err := os.ReadFile("testdata/page-head.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("examples/five-line.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p := &page{t: t, keys: allKeys(), needed: impossible(), packages: map[string][]*ast.File{}}
	fmt.Fprintf(&p.text, string(head), bytes.TrimSpace(example))
	p.values("")
	for _, k := range p.keys {
		switch {
		case k.entries():
			fmt.Fprintf(&p.text, "\n## %s[]\n\n%s\n\nA list. Each entry has these keys:\n", k.path, p.comment(k))
			p.values(k.path + "[].")
		case k.section():
			fmt.Fprintf(&p.text, "\n## %s\n\n%s\n", k.path, p.comment(k))
			p.values(k.path + ".")
		}
	}
	path := filepath.Join(root, "docs/configuration.md")
	if *update {
		if err := os.WriteFile(path, p.text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, p.text.Bytes()) {
		t.Errorf("%s is stale (%v): run go generate ./configs", path, err)
	}
	for _, k := range p.keys {
		if name := k.path[strings.LastIndexByte(k.path, '.')+1:]; !strings.Contains(p.text.String(), "**`"+name+"`**") &&
			!strings.Contains(p.text.String(), "\n## "+k.path) {
			t.Errorf("%s is not described", k.path)
		}
	}
}

type page struct {
	t        *testing.T
	text     bytes.Buffer
	keys     []key
	needed   map[string]bool
	packages map[string][]*ast.File
}

// values describes the values, not the sections, right below a prefix.
func (p *page) values(prefix string) {
	for _, k := range p.keys {
		name, below := strings.CutPrefix(k.path, prefix)
		if below && !strings.Contains(name, ".") && !k.section() && !k.entries() {
			fmt.Fprintf(&p.text, "\n- **`%s`**: %s<br>\n  *%s*\n", name, strings.ReplaceAll(p.comment(k), "\n", "\n  "), p.facts(k))
		}
	}
}

// facts are type, default and variable of a value, in a sentence each.
func (p *page) facts(k key) string {
	wants := wantsOf(k)
	all := strings.ToUpper(wants[:1]) + wants[1:] + "."
	if p.needed[k.path] {
		all += " Must be written."
	} else {
		all += " Default: `" + writtenDefault(p.t, k) + "`."
	}
	if k.env != "" {
		all += " Variable: `" + k.env + "`."
	}
	return all
}

// comment returns a key's doc comment. A key without one is an error: somebody has to say what it means.
func (p *page) comment(k key) string {
	p.t.Helper()
	for _, f := range p.files(k.field.owner.PkgPath()) {
		for _, decl := range f.Decls {
			if text := fieldComment(decl, k.field.owner.Name(), k.field.Name); text != "" {
				return forUsers(text, k.field.Name)
			}
		}
	}
	p.t.Errorf("%s: the field %s.%s has no doc comment", k.path, k.field.owner, k.field.Name)
	return "?"
}

func (p *page) files(pkg string) []*ast.File {
	p.t.Helper()
	if files, ok := p.packages[pkg]; ok {
		return files
	}
	names, err := filepath.Glob(filepath.Join(root, strings.TrimPrefix(pkg, module), "*.go"))
	if err != nil || len(names) == 0 {
		p.t.Fatalf("no source of %s: %v", pkg, err)
	}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			p.t.Fatal(err)
		}
		p.packages[pkg] = append(p.packages[pkg], f)
	}
	return p.packages[pkg]
}

func fieldComment(decl ast.Decl, typeName, field string) string {
	g, ok := decl.(*ast.GenDecl)
	if !ok {
		return ""
	}
	for _, spec := range g.Specs {
		ts, ok := spec.(*ast.TypeSpec)
		if !ok || ts.Name.Name != typeName {
			continue
		}
		st, ok := ts.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range st.Fields.List {
			if len(f.Names) == 1 && f.Names[0].Name == field {
				return f.Doc.Text()
			}
		}
	}
	return ""
}

// forUsers puts each paragraph on one line, and leaves out the field's name, with which Go's comments often begin.
func forUsers(comment, field string) string {
	paragraphs := strings.Split(strings.TrimSpace(comment), "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(p), " ")
	}
	text := strings.Join(paragraphs, "\n\n")
	m := goName.FindStringSubmatch(text)
	if m == nil || m[1] != field {
		return text
	}
	text = strings.TrimSpace(m[2] + " " + strings.TrimPrefix(text, m[0]))
	return strings.ToUpper(text[:1]) + text[1:]
}

// goName matches such a beginning up to where it says something: a verb stays but for "is" and "are". "Name of the user"
// does not begin so.
var goName = regexp.MustCompile(`^([A-Z]\w*) (?:is |are |(bounds|lists|says|tells|names|holds) )`)

func TestForUsers(t *testing.T) {
	for comment, want := range map[string]string{
		"Name is\nwhat it is called.\n":     "What it is called.",
		"Name bounds it.\n\nAnd\nmore.\n":   "Bounds it.\n\nAnd more.",
		"Name of the user.\n":               "Name of the user.",
		"Names are what matters.\n":         "Names are what matters.",
		"How long Name is.\n":               "How long Name is.",
		"Size is not what is asked here.\n": "Size is not what is asked here.",
	} {
		if got := forUsers(comment, "Name"); got != want {
			t.Errorf("%q: got %q, want %q", comment, got, want)
		}
	}
}

// wantsOf says in a user's words what a value looks like.
func wantsOf(k key) string {
	if k.field.Type.Implements(oneOrMoreType) {
		return wants(k.field.Type.Elem()) + ", or a list of such"
	}
	if !k.entries() && wants(k.field.Type) == "a list" {
		return "a list, each entry " + wants(k.field.Type.Elem())
	}
	return wants(k.field.Type)
}

// writtenDefault returns the default as a file would have it.
func writtenDefault(t *testing.T, k key) string {
	t.Helper()
	n, err := written(k.initial)
	if err != nil {
		t.Fatalf("%s: %v", k.path, err)
	}
	b, err := yaml.Marshal(n)
	if err != nil {
		t.Fatalf("%s: %v", k.path, err)
	}
	return strings.TrimSpace(string(b))
}

// impossible returns the keys whose defaults the packages refuse, so that they have to be written. It asks with one entry in
// every list, each as it begins. An entry may be refused as a whole: then it is for want of what is empty in it. What is in no list, and is
// missed only for what was filled in elsewhere, need not be written.
func impossible() map[string]bool {
	c, empty := reflect.ValueOf(Default()).Elem(), newReport("")
	validate(c, "", empty)
	fill(c)
	// Of a directory, just the section of its type may be there at all.
	c.Addr().Interface().(*Config).Directories[0] = directory.DefaultConfig()
	r := newReport("")
	validate(c, "", r)
	refused := map[string]bool{}
	for path := range r.broken {
		if strings.Contains(path, "[0]") || empty.broken[path] {
			refused[strings.ReplaceAll(path, "[0]", "[]")] = true
		}
	}
	for _, k := range allKeys() {
		if refused[parent(k.path)] || refused[strings.TrimSuffix(k.path, "."+k.field.name)] {
			refused[k.path] = refused[k.path] || k.initial.IsZero()
		}
	}
	return refused
}

func fill(v reflect.Value) {
	for _, f := range fields(v.Type()) {
		switch field := v.FieldByIndex(f.Index); {
		case isLeaf(f.Type):
		case f.Type.Kind() == reflect.Struct:
			fill(field)
		case !isLeaf(f.Type.Elem()):
			field.Set(reflect.MakeSlice(f.Type, 1, 1))
			if entry, ok := elements()[f.Type.Elem()]; ok {
				field.Index(0).Set(entry)
			}
			fill(field.Index(0))
		}
	}
}

func TestFacts(t *testing.T) {
	want := map[string]string{
		"node":                         "Text. Default: `\"\"`. Variable: `POPGATE_NODE`.",
		"limits.sessions":              "A whole number. Default: `0`. Variable: `POPGATE_LIMITS_SESSIONS`.",
		"limits.overrides[].name":      "Text. Must be written.",
		"limits.failure_delay":         "A duration. Default: `2s`. Variable: `POPGATE_LIMITS_FAILURE_DELAY`.",
		"limits.logins_per_ip":         "A rate. Default: `\"0\"`. Variable: `POPGATE_LIMITS_LOGINS_PER_IP`.",
		"limits.exempt":                "A list, each entry a network. Default: `[]`.",
		"timeouts.idle":                "A duration. Default: `10m`. Variable: `POPGATE_TIMEOUTS_IDLE`.",
		"bounds.line":                  "A size. Default: `1KiB`. Variable: `POPGATE_BOUNDS_LINE`.",
		"listeners[].name":             "Text. Must be written.",
		"listeners[].address":          "Text. Must be written.",
		"listeners[].tls":              "Text. Default: `implicit`.",
		"listeners[].allow_authzid":    "True or false. Default: `false`.",
		"backends[].name":              "Text. Must be written.",
		"backends[].servers[].address": "Text. Must be written.",
		"backends[].servers[].weight":  "A whole number. Default: `1`.",
		"backends[].tls_min_version":   "Text. Default: `\"1.2\"`.",
		"tls.certificates[].cert":      "Text. Must be written.",
		"tls.certificates[].key":       "Text. Must be written.",
		"tls.acme.domains":             "A list, each entry text. Default: `[]`.",
		"tls.acme.issuers[].ca":        "Text. Default: `\"\"`.",
		"admin.socket":                 "Text. Default: `\"\"`. Variable: `POPGATE_ADMIN_SOCKET`.",
		"directories[].name":           "Text. Must be written.",
		"directories[].type":           "Text. Must be written.",
		"directories[].timeout":        "A duration. Default: `5s`.",
		"access.lists[].name":          "Text. Must be written.",
		"access.lists[].networks":      "A list, each entry text. Must be written.",
		"access.blocklists[].name":     "Text. Must be written.",
		"access.blocklists[].zone":     "Text. Must be written.",
		"access.rules[].name":          "Text. Must be written.",
		"routes[].directory":           "Text, or a list of such. Default: `[]`.",
		"routes[].backend":             "Text. Must be written.",
		"routes[].domains":             "A list, each entry text. Default: `[]`.",
	}
	p := &page{t: t, needed: impossible()}
	for _, k := range allKeys() {
		w, ok := want[k.path]
		if !ok {
			if p.needed[k.path] && !k.entries() && !k.section() {
				t.Errorf("%s has to be written", k.path)
			}
			continue
		}
		delete(want, k.path)
		if got := p.facts(k); got != w {
			t.Errorf("%s: got  %s\nwant %s", k.path, got, w)
		}
	}
	for path := range want {
		t.Errorf("there is no key %s", path)
	}
}
