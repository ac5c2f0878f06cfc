package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/configs"
)

// documents are the README and all of docs, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, path := range append(paths, "../../README.md", "../../deploy/README.md", "../../CHANGELOG.md", "../../CONTRIBUTING.md") {
		texts[path] = readText(t, path)
	}
	return texts
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// TestDocsConfigs loads every configuration that the documents show. One without backends is a part of a file: it is
// loaded together with the shortest backend.
func TestDocsConfigs(t *testing.T) {
	const backend = "backends: [{name: old, servers: [{address: \"10.0.0.5:110\"}]}]\n"
	loaded := 0
	for path, text := range documents(t) {
		for _, block := range yamlBlock.FindAllStringSubmatch(text, -1) {
			config := block[1]
			if !regexp.MustCompile(`(?m)^backends:`).MatchString(config) {
				config += backend
			}
			file := filepath.Join(t.TempDir(), "popgate.yaml")
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := configs.Load(file, []string{"HOME=/home/popgate"}); err != nil {
				t.Errorf("%s: %v in:\n%s", path, err, block[1])
			}
			loaded++
		}
	}
	if loaded < 10 {
		t.Errorf("got %d configurations in the documents, want 10 at least: are they marked as yaml?", loaded)
	}
}

// TestReadmeFiveLines keeps the README's first configuration and the example the same.
func TestReadmeFiveLines(t *testing.T) {
	want := readText(t, "../../configs/examples/five-line.yaml")
	block := yamlBlock.FindStringSubmatch(readText(t, "../../README.md"))
	if block == nil || block[1] != want {
		t.Errorf("the first configuration of README.md is\n%q\nwant five-line.yaml:\n%s", block, want)
	}
}

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	noAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestDocsLinks follows the links from document to document, to their headings too.
func TestDocsLinks(t *testing.T) {
	for path, text := range documents(t) {
		for _, l := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(l[1], "://") {
				continue
			}
			name, anchor, _ := strings.Cut(l[1], "#")
			target := path
			if name != "" {
				target = filepath.Join(filepath.Dir(path), name)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", path, l[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(readText(t, target)), anchor) {
				t.Errorf("%s: link to %s: there is no such heading", path, l[1])
			}
		}
	}
}

// anchors are the headings of a document as links name them.
func anchors(text string) []string {
	var all []string
	for _, h := range heading.FindAllStringSubmatch(text, -1) {
		all = append(all, strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return all
}

// metricsRow is a row of docs/metrics.md: name, type, labels, meaning.
var metricsRow = regexp.MustCompile("(?m)^\\| `(popgate_\\w+)` *\\| (.+?) *\\|(.*?)\\| (.+?) *\\|$")

// TestMetricsDocs holds docs/metrics.md against what a running gateway registers.
func TestMetricsDocs(t *testing.T) {
	got := map[string]string{}
	for _, row := range metricsRow.FindAllStringSubmatch(readText(t, "../../docs/metrics.md"), -1) {
		if got[row[1]] != "" {
			t.Errorf("%s stands in docs/metrics.md twice", row[1])
		}
		got[row[1]] = metricLine(row[1], row[2], strings.TrimSpace(row[3]), row[4])
	}
	want := registered(t, runGateway(t))
	if len(want) < 20 {
		t.Fatalf("got %d metrics of the gateway, want 20 at least", len(want))
	}
	for name, line := range want {
		if got[name] != line {
			t.Errorf("docs/metrics.md has\n%s\nwant\n%s", got[name], line)
		}
	}
	for name := range got {
		if want[name] == "" {
			t.Errorf("docs/metrics.md has %s, which popgate does not", name)
		}
	}
}

func metricLine(name, kind, labels, meaning string) string {
	return fmt.Sprintf("| `%s` | %s | %s | %s |", name, kind, labels, meaning)
}

// runGateway runs a gateway until the test ends, and returns its metrics. It asks no server before the test is over,
// but has one, and a directory, so that what is counted by server and directory is there.
func runGateway(t *testing.T) *prometheus.Registry {
	t.Helper()
	file := filepath.Join(t.TempDir(), "popgate.yaml")
	secret := filepath.Join(t.TempDir(), "cluster.key")
	if err := os.WriteFile(secret, []byte("these are not random, but 32 bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := `
cluster: {redis: {addresses: ["127.0.0.1:9"]}, key_file: ` + secret + `}
state_dir: ` + t.TempDir() + `
listeners: [{name: pop3s, address: "127.0.0.1:0"}]
backends: [{name: old, servers: [{address: "127.0.0.1:9"}], client_info: xclient}]
directories: [{name: domains, type: dns, allowed_servers: [127.0.0.1]}]
audit: {path: ""}
metrics: {address: ""}
admin: {socket: ` + filepath.Join(t.TempDir(), "popgate.sock") + `}
`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := newGateway(func() (*configs.Config, error) { return configs.Load(file, nil) }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	up, ended := make(chan struct{}), make(chan error, 1)
	g.up = func() { close(up) }
	go func() { ended <- g.run(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-up:
	case err := <-ended:
		ended <- err
		t.Fatal("the gateway ended before it was up")
	case <-time.After(time.Minute):
		t.Fatal("the gateway is not up after a minute")
	}
	return g.registry
}

// description takes a Desc's text apart, since it has no other way to its parts.
var description = regexp.MustCompile(`^Desc\{fqName: "(\w+)", help: "(.*?)",.* variableLabels: \{(.*)\}\}$`)

// registered are the lines that docs/metrics.md must have, by the metrics' names. Descriptions have all metrics, those
// without samples too; types are known of those with samples only.
func registered(t *testing.T, reg *prometheus.Registry) map[string]string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, f := range families {
		types[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	descs := make(chan *prometheus.Desc, 1000)
	reg.Describe(descs)
	close(descs)
	lines := map[string]string{}
	for d := range descs {
		parts := description.FindStringSubmatch(d.String())
		if parts == nil {
			t.Fatalf("got the description %s, which has another form than this test knows", d)
		}
		name := parts[1]
		if !strings.HasPrefix(name, "popgate_") {
			continue
		}
		kind := types[name]
		if kind == "" { // it counts what has not happened, or is about what this gateway does not have
			kind = "gauge"
			if strings.HasSuffix(name, "_total") {
				kind = "counter"
			}
		}
		lines[name] = metricLine(name, kind, strings.ReplaceAll(parts[3], ",", ", "), parts[2])
	}
	return lines
}
