//go:build unix

package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Redis starts a redis-server with what settings say, one a line. mode is "", or "--sentinel". ready is a Daemon's Ready: only those who
// configured the server know how to ask it.
func Redis(t testing.TB, mode string, ready func() error, settings ...string) *Daemon {
	t.Helper()
	path := Program(t, "redis-server", "redis-server")
	dir := t.TempDir()
	conf := filepath.Join(dir, "redis.conf")
	text := strings.Join(append(settings, "dir "+dir, `save ""`, "bind 127.0.0.1", "protected-mode no"), "\n") + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{conf}
	if mode != "" {
		args = append(args, mode)
	}
	d := &Daemon{Start: func() *exec.Cmd { return exec.Command(path, args...) }, Ready: ready}
	d.Run(t)
	return d
}
