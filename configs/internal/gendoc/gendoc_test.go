package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/popgate/popgate/configs"
)

const root = "../../.."

func TestPageIsCurrent(t *testing.T) {
	want, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, pagePath))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run go generate ./configs", pagePath)
	}
	for _, k := range configs.Keys() {
		name := k.Path[strings.LastIndexByte(k.Path, '.')+1:]
		if !bytes.Contains(want, []byte("**`"+name+"`**")) && !bytes.Contains(want, []byte("\n## "+k.Path)) {
			t.Errorf("%s is not described", k.Path)
		}
	}
}

func TestFacts(t *testing.T) {
	want := map[string]string{
		"limits.sessions":              "A whole number. Default: `0`. Variable: `POPGATE_LIMITS_SESSIONS`.",
		"limits.failure_delay":         "A duration. Default: `2s`. Variable: `POPGATE_LIMITS_FAILURE_DELAY`.",
		"limits.exempt":                "A list, each entry a network. Default: `[]`.",
		"listeners[].name":             "Text. Must be written.",
		"listeners[].address":          "Text. Must be written.",
		"listeners[].tls":              "Text. Default: `implicit`.",
		"backends[].servers[].address": "Text. Must be written.",
		"backends[].servers[].weight":  "A whole number. Default: `1`.",
		"backends[].tls_min_version":   "Text. Default: `\"1.2\"`.",
		"tls.certificates[].cert":      "Text. Must be written.",
		"routes[].backend":             "Text. Must be written.",
		"bounds.line":                  "A size. Default: `1KiB`. Variable: `POPGATE_BOUNDS_LINE`.",
	}
	for _, k := range configs.Keys() {
		w, ok := want[k.Path]
		if !ok {
			continue
		}
		delete(want, k.Path)
		if got, err := facts(k); got != w || err != nil {
			t.Errorf("%s: got %s, %v\nwant %s", k.Path, got, err, w)
		}
	}
	for path := range want {
		t.Errorf("there is no key %s", path)
	}
}

func TestComment(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	type section struct{ Told, Untold, Name, Size, Of int }
	s := newSource(dir)
	s.packages[reflect.TypeFor[section]().PkgPath()] = nil
	if _, err := s.comment(reflect.TypeFor[section](), "Told"); err == nil {
		t.Error("a field that is not in the source has a comment")
	}
	if _, err := newSource(dir).files(module); err == nil {
		t.Error("a folder without source is a package")
	}
	write("a.go", "package a\n\ntype section struct {\n\t// Told\n\t// twice.\n\t//\n\t// And more.\n\tTold int\n\tUntold int\n\t// Name is a name.\n\tName int\n\t// Size bounds what comes.\n\tSize int\n\t// Of users alone.\n\tOf int\n}\n")
	write("a_test.go", "package a\n\ntype section struct {\n\t// Wrong.\n\tUntold int\n}\n")
	files, err := newSource(dir).files(module)
	if err != nil || len(files) != 1 {
		t.Fatalf("got %d files, %v, want 1", len(files), err)
	}
	s.packages[reflect.TypeFor[section]().PkgPath()] = files
	for field, want := range map[string]string{"Told": "Told twice.\n\nAnd more.", "Untold": "", "Name": "A name.", "Size": "Bounds what comes.", "Of": "Of users alone."} {
		got, err := describe(s, configs.Key{Path: "a.its_name", Struct: reflect.TypeFor[section](), Field: field})
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q, %v, want %q", field, got, err, want)
		}
	}
	write("a.go", "package")
	if _, err := newSource(dir).files(module); err == nil {
		t.Error("broken source is parsed")
	}
}

func TestRun(t *testing.T) {
	var b strings.Builder
	if code := run(nil, &b); code != 2 || !strings.Contains(b.String(), "usage") {
		t.Errorf("without a root: got %d, %q", code, &b)
	}
	b.Reset()
	if code := run([]string{t.TempDir()}, &b); code != 1 || !strings.Contains(b.String(), "five-line.yaml") {
		t.Errorf("without source: got %d, %q", code, &b)
	}
}
