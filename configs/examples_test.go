package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExamples(t *testing.T) {
	paths, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(paths) < 5 {
		t.Fatalf("got %d examples, %v, want 5 at least", len(paths), err)
	}
	for _, path := range paths {
		c, err := Load(path, append([]string{"LISTEN_HOST=192.0.2.10"}, home...))
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if len(c.Warnings) > 0 {
			t.Errorf("%s: %s", path, strings.Join(c.Warnings, "\n"))
		}
	}
	c, err := Load("examples/isp.yaml", home)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Listeners) != 2 || len(c.Backends) != 2 || len(c.Routes) != 2 || c.Backends[0].Servers[0].Weight != 2 || c.Limits.Sessions != 50000 {
		t.Errorf("isp: got %+v", c)
	}
	text, err := os.ReadFile("examples/five-line.yaml")
	if lines := strings.Count(string(text), "\n"); err != nil || lines != 5 {
		t.Errorf("five-line.yaml has %d lines, %v", lines, err)
	}
}
