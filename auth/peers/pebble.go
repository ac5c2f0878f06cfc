//go:build unix

package peers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Pebble builds the Pebble, an ACME issuer for tests, that the tools' module pins, once for all tests on this machine, and gives its path:
// Debian's knows neither ARI nor profiles.
var Pebble = sync.OnceValues(func() (path string, err error) {
	const module = "github.com/letsencrypt/pebble/v2"
	ours, err := goCommand("env", "GOMOD")
	if err != nil {
		return "", err
	}
	tools := "-modfile=" + filepath.Join(filepath.Dir(ours), ".ci/tools/go.mod")
	version, err := goCommand("list", tools, "-m", "-f", "{{.Version}}", module)
	if err != nil {
		return "", err
	}
	cache, err := goCommand("env", "GOCACHE")
	if err != nil {
		return "", err
	}
	path = filepath.Join(filepath.Dir(cache), "popgate-tools", "pebble-"+version)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	// Other packages' tests may be building it too: each makes its own, and the last one stays.
	built := fmt.Sprintf("%s.%d", path, os.Getpid())
	if _, err := goCommand("build", tools, "-o", built, module+"/cmd/pebble"); err != nil {
		return "", err
	}
	return path, os.Rename(built, path)
})

func goCommand(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}
