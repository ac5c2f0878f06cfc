//go:build unix

// Package peers starts the real servers that tests talk to: Debian's, and Pebble. No program imports it.
//
// What it starts ends with the test that started it. Where a server is not installed, the test is skipped and says what to install;
// with CI=true it fails.
package peers

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Missing ends a test for which something is not installed.
func Missing(t testing.TB, problem string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(problem)
	}
	t.Skip(problem)
}

// Program finds one of the programs of Debian's package pkg, some of which are outside an ordinary user's path.
func Program(t testing.TB, name, pkg string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/", "/usr/sbin/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	Missing(t, "there is no "+name+": install Debian's "+pkg)
	return ""
}

// Dir is a folder whose path leaves room for a socket's name, and into which a server without rights can get. It goes with the test.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Nobody is who a server runs as where the test is root, which some refuse. The folders become nobody's.
func Nobody(t testing.TB, dirs ...string) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	for _, dir := range dirs {
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// WriteProgram writes a file to be run. While it is open for writing no other test may start a program: that would have it open too for a
// moment, and a file that is written to cannot be run (ETXTBSY).
func WriteProgram(t testing.TB, path string, data []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, data, 0o700); err != nil {
		t.Fatal(err)
	}
}
