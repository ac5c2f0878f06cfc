package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/popgate/popgate/"

// arrows says which of our packages each may import: the drawing of the rooms.
// "auth/..." stands for auth and all below it. A package that is not here is a
// new room, and has to be drawn first.
var arrows = map[string][]string{
	"auth":           nil,
	"auth/sasl":      {"auth"},
	"auth/passwd":    {"auth"},
	"auth/directory": {"auth", "auth/passwd", "auth/files"},
	"auth/route":     {"auth", "auth/directory"}, // what a directory answers is its word
	"auth/peers":     nil,
	"auth/files":     nil,

	"policy":            {"auth/...", "policy/limit", "policy/lockout", "policy/access", "policy/store", "policy/cluster", "policy/audit", "policy/wforce", "policy/legacy"},
	"policy/limit":      {"auth/...", "policy/store"},
	"policy/lockout":    {"auth/...", "policy/store", "policy/cluster", "policy/statefile"},
	"policy/access":     {"auth/..."},
	"policy/store":      {"auth/...", "policy/cluster"},
	"policy/cluster":    {"auth/..."},
	"policy/audit":      {"auth/..."},
	"policy/wforce":     {"auth/..."},
	"policy/legacy":     {"policy/cluster", "policy/statefile"},
	"policy/statefile":  nil,
	"policy/audit/sink": {"auth/...", "policy/audit"},

	"proxy":                        {"auth/...", "policy/...", "proxy/pop3", "proxy/backend"},
	"proxy/pop3":                   nil,
	"proxy/pop3mem":                {"auth/...", "proxy/pop3"},
	"proxy/backend":                {"auth/...", "policy/...", "proxy/pop3"},
	"proxy/certs":                  {"auth/...", "policy/...", "proxy/certs/..."},
	"proxy/certs/dns":              nil,
	"proxy/certs/storage":          {"auth/...", "policy/..."},
	"proxy/certs/internal/servers": {"auth/peers", "policy/cluster"},
	"proxy/admin":                  {"auth/...", "policy/...", "proxy", "proxy/backend", "proxy/certs"},

	"configs":         {"auth/...", "policy/...", "proxy/..."},
	"configs/convert": {},
	"cmd/popgate":     {"auth/...", "policy/...", "proxy/...", "configs", "configs/convert"},
}

// sole names what only these packages, or with "/..." all below one too, may import: from outside, and of ours what is for tests.
var sole = map[string][]string{
	"github.com/spf13/viper":           {"configs"},
	"github.com/spf13/cobra":           {"cmd/popgate"},
	"go.uber.org/ratelimit":            {"policy/limit"},
	"github.com/caddyserver/certmagic": {"proxy/certs/..."},
	// Users may live in another Redis than the counts, and auth does not import policy.
	"github.com/redis/go-redis": {"policy/cluster", "auth/directory"},
	"github.com/maypok86/otter": {"auth/directory"},
	// Servers that tests start have no place in a program.
	modulePath + "auth/peers":                   {"proxy/certs/internal/servers"},
	modulePath + "proxy/certs/internal/servers": nil,
}

// forbidden names what a package must not import from the standard library.
var forbidden = map[string][]string{
	"proxy/pop3": {"net", "os"}, // the wire is spoken over io.Reader and io.Writer
}

func TestArrows(t *testing.T) {
	seen := 0
	for _, file := range goFiles(t, "../..") {
		dir := path.Dir(file)
		allowed, drawn := arrows[dir]
		if !drawn {
			t.Errorf("%s: package %s is in no room", file, dir)
			continue
		}
		for _, imported := range imports(t, filepath.Join("../..", file)) {
			seen++
			if problem := wrongImport(dir, imported, allowed); problem != "" {
				t.Errorf("%s imports %s: %s", file, imported, problem)
			}
		}
	}
	if seen == 0 {
		t.Error("no import was looked at")
	}
}

// The rule itself, or the test above could pass by looking the other way.
func TestWrongImport(t *testing.T) {
	for _, tt := range []struct {
		dir, imported string
		wrong         bool
	}{
		{"auth", "fmt", false},
		{"auth", modulePath + "policy", true},
		{"auth/route", modulePath + "auth/directory", false},
		{"auth/route", modulePath + "auth/passwd", true},
		{"auth/route", modulePath + "auth/sasl", true},
		{"policy/limit", "go.uber.org/ratelimit", false},
		{"proxy", "go.uber.org/ratelimit", true},
		{"proxy", modulePath + "auth", false},
		{"proxy", modulePath + "auth/route", false},
		{"proxy", modulePath + "proxy/certs", true},
		{"proxy", modulePath + "configs", true},
		{"proxy/admin", modulePath + "proxy", false},
		{"proxy/pop3", "net", true},
		{"proxy/pop3", "net/netip", false},
		{"policy/cluster", "github.com/redis/go-redis/v9", false},
		{"policy/store", "github.com/redis/go-redis/v9", true},
		{"auth/directory", "github.com/redis/go-redis/v9", false},
		{"proxy/certs/storage", "github.com/redis/go-redis/v9", true},
		{"proxy/certs", "github.com/caddyserver/certmagic", false},
		{"proxy/certs/storage", "github.com/caddyserver/certmagic", false},
		{"proxy/admin", "github.com/caddyserver/certmagic", true},
		{"proxy/certs/storage", modulePath + "policy/cluster", false},
		{"proxy/certs/storage", modulePath + "proxy/certs", true},
		{"auth/directory", modulePath + "auth/peers", true},
		{"proxy/backend", modulePath + "auth/peers", true}, // though all of auth is open to it
		{"cmd/popgate", modulePath + "auth/peers", true},
		{"proxy/certs", modulePath + "proxy/certs/internal/servers", true},
	} {
		if got := wrongImport(tt.dir, tt.imported, arrows[tt.dir]); (got != "") != tt.wrong {
			t.Errorf("%s imports %s: %q, want wrong %v", tt.dir, tt.imported, got, tt.wrong)
		}
	}
}

func wrongImport(dir, imported string, allowed []string) string {
	for pkg, only := range sole {
		if under(imported, pkg) && !slices.ContainsFunc(only, func(one string) bool { return covers(one, dir) }) {
			return "that is for " + strings.Join(append([]string{"tests"}, only...), " and ") + " alone"
		}
	}
	if slices.Contains(forbidden[dir], imported) {
		return "that is not for this package"
	}
	ours, ok := strings.CutPrefix(imported, modulePath)
	if !ok {
		return ""
	}
	for _, a := range allowed {
		if covers(a, ours) {
			return ""
		}
	}
	return "no arrow goes there"
}

// covers says that pattern, which may end in "/...", means pkg.
func covers(pattern, pkg string) bool {
	root, below := strings.CutSuffix(pattern, "/...")
	return pkg == root || below && under(pkg, root)
}

func under(pkg, root string) bool { return pkg == root || strings.HasPrefix(pkg, root+"/") }

// goFiles lists the product's source below root, slash paths from there; tests may import what they like.
func goFiles(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != root && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(base, ".go") && !strings.HasSuffix(base, "_test.go") {
			rel, err := filepath.Rel(root, name)
			files = append(files, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func imports(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	return paths
}
