package auth_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// A revealer is a package that calls Secret.Reveal, in so many places, and the reason why a password must leave there.
type revealer struct {
	places int
	reason string
}

// revealers are all of them. A change here is a decision about who sees passwords.
var revealers = map[string]revealer{
	"auth/directory": {3, "checks the password against the hash that a directory gave, by a login to an LDAP server, or by asking an HTTP service"},
	"policy":         {1, "digests the password under a key in memory, so that lockouts count the same wrong one once"},
	"policy/wforce":  {1, "digests the password for weakforced, which sees a few bits of that"},
	"proxy/backend":  {1, "sends the password to the server that the route chose"},
}

// TestRevealers holds every mention of Reveal in the module, tests left out, against that list.
func TestRevealers(t *testing.T) {
	found := map[string][]string{} // places by package
	root := ".."
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); file != root && (strings.HasPrefix(name, ".") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		places, err := reveals(file)
		if pkg := path.Dir(filepath.ToSlash(rel)); len(places) > 0 {
			found[pkg] = append(found[pkg], places...)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg, places := range found {
		if r := revealers[pkg]; len(places) != r.places || r.reason == "" {
			t.Errorf("%s reveals secrets in %d places, want %d: %s", pkg, len(places), r.places, strings.Join(places, ", "))
		}
	}
	for pkg := range revealers {
		if found[pkg] == nil {
			t.Errorf("%s is allowed to reveal secrets and does not", pkg)
		}
	}
}

// reveals lists the places in file that name a Reveal of something, called or not.
func reveals(file string) ([]string, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("look for callers of Reveal: %w", err)
	}
	var places []string
	ast.Inspect(tree, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reveal" {
			places = append(places, fset.Position(sel.Sel.Pos()).String())
		}
		return true
	})
	return places, nil
}
