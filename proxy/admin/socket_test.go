package admin

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listenAt makes the socket, to be closed when the test ends.
func listenAt(t *testing.T, path string) net.Listener {
	t.Helper()
	ln, err := ListenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func TestListenSocket(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run", "popgate")
	path := filepath.Join(folder, "popgate.sock")
	ln := listenAt(t, path)
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("got %v, %v, want a socket with mode 0660", info.Mode(), err)
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the folder: got %v, %v, want nothing for others", info.Mode(), err)
	}
	accepted := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			err = conn.Close()
		}
		accepted <- err
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if err := <-accepted; err != nil {
		t.Error(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("got %v, %v in the folder after the end, want nothing", left, err)
	}
}

// A process that was killed leaves its socket behind.
func TestListenSocketStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "popgate.sock")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = dead.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("there is no stale socket to try with: %v", err)
	}
	listenAt(t, path)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestListenSocketInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "popgate.sock")
	listenAt(t, path)
	if ln, err := ListenSocket(t.Context(), path); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, %v, want ErrInUse with the path", ln, err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the one that was there does not answer any more: %v", err)
	}
	_ = conn.Close()
}

func TestListenSocketKeepsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "popgate.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := ListenSocket(t.Context(), path); err == nil {
		_ = ln.Close()
		t.Error("took a file for a socket")
	}
	if text, err := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("the file: got %q, %v, want it untouched", text, err)
	}
}

// What the next gateway has put there is not the last one's to remove.
func TestSocketCloseSparesOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "popgate.sock")
	old := listenAt(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listenAt(t, path)
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the new socket is gone: %v", err)
	}
}

func TestSocketPaths(t *testing.T) {
	for _, tt := range []struct {
		written, systemd, user string
		want                   []string
	}{
		{"", "", "", []string{"/run/popgate/popgate.sock"}},
		{"", "/run/popgate:/run/other", "", []string{"/run/popgate/popgate.sock", "/run/popgate/popgate.sock"}},
		{"", "", "/run/user/7", []string{"/run/user/7/popgate.sock", "/run/popgate/popgate.sock"}},
		{"", "/run/a", "/run/user/7", []string{"/run/a/popgate.sock", "/run/user/7/popgate.sock", "/run/popgate/popgate.sock"}},
		{"", "", "relative", []string{"/run/popgate/popgate.sock"}},
		{"/srv/s", "/run/a", "/run/user/7", []string{"/srv/s"}},
	} {
		env := map[string]string{"RUNTIME_DIRECTORY": tt.systemd, "XDG_RUNTIME_DIR": tt.user}
		if got := (SocketConfig{Socket: tt.written}).Paths(func(name string) string { return env[name] }); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: got %q", tt, got)
		}
	}
}

func TestSocketValidate(t *testing.T) {
	for path, ok := range map[string]bool{
		"": true, "/run/popgate/popgate.sock": true, "popgate.sock": true, "/run/popgate/": false, "/" + strings.Repeat("x", 90): false,
	} {
		faults := 0
		SocketConfig{Socket: path}.Validate(func(key, problem string) {
			faults++
			if key != "socket" || problem == "" {
				t.Errorf("got the fault %q %q", key, problem)
			}
		})
		if (faults == 0) != ok {
			t.Errorf("socket %q: got %d faults, want valid=%v", path, faults, ok)
		}
	}
}

// The longest path that Validate takes can be made.
func TestLongestSocket(t *testing.T) {
	folder, err := os.MkdirTemp("/tmp", "p")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	folder += "/" + strings.Repeat("f", maxSocket-len(folder)-3)
	listenAt(t, folder+"/s")
}
