package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// module is the path that all packages of ours begin with.
const module = "github.com/popgate/popgate"

// A source finds doc comments in the module's source. Packages are parsed when they are first asked for.
type source struct {
	root     string
	packages map[string][]*ast.File
}

func newSource(root string) *source {
	return &source{root: root, packages: map[string][]*ast.File{}}
}

// comment returns the doc comment of a field, each paragraph on one line. A field without one is an error: somebody has to say what
// the key means.
func (s *source) comment(t reflect.Type, field string) (string, error) {
	files, err := s.files(t.PkgPath())
	if err != nil {
		return "", err
	}
	for _, f := range files {
		for _, decl := range f.Decls {
			if text := fieldComment(decl, t.Name(), field); text != "" {
				return text, nil
			}
		}
	}
	return "", fmt.Errorf("%s.%s has no doc comment", t, field)
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
			for _, name := range f.Names {
				if name.Name == field {
					return paragraphs(f.Doc.Text())
				}
			}
		}
	}
	return ""
}

func paragraphs(text string) string {
	all := strings.Split(strings.TrimSpace(text), "\n\n")
	for i, p := range all {
		all[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.Join(all, "\n\n")
}

func (s *source) files(pkg string) ([]*ast.File, error) {
	if files, ok := s.packages[pkg]; ok {
		return files, nil
	}
	dir := filepath.Join(s.root, strings.TrimPrefix(pkg, module))
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no Go source in %s", dir)
	}
	s.packages[pkg] = files
	return files, nil
}

func readFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), err
}
