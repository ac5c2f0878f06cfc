package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// SocketConfig is the section `admin`.
type SocketConfig struct {
	// The Unix socket on which a running popgate can be asked and told things, by `popgate certs` for instance. Who may open it, may do
	// all of that: it is there for popgate's user and group (mode 0660), and nothing that changes or lists anything is served elsewhere.
	// Empty is `popgate.sock` in the runtime folder: the one that systemd gives (`$RUNTIME_DIRECTORY`), else the user's
	// (`$XDG_RUNTIME_DIR`), else `/run/popgate`. popgate starts without a socket, and says so, where it cannot be made there.
	Socket string `yaml:"socket"`
}

// socketName is the socket's file in a runtime folder.
const socketName = "popgate.sock"

// maxSocket is below the 104 octets that all systems take (unix(7)), for a socket is made under a longer name first.
const maxSocket = 90

// Validate reports what cannot work, by key.
func (c SocketConfig) Validate(fault func(key, problem string)) {
	switch {
	case len(c.Socket) > maxSocket:
		fault("socket", fmt.Sprintf("is %d octets long, and a socket's path can have %d; choose a shorter one", len(c.Socket), maxSocket))
	case strings.HasSuffix(c.Socket, "/"):
		fault("socket", fmt.Sprintf("is %q, which is a folder; write a file in it, such as %q", c.Socket, c.Socket+socketName))
	}
}

// Paths are the places of the socket, by preference: the one that is written, or the default ones in the environment that
// getenv looks into. A gateway makes the first. Who looks for a gateway tries all, since it may run in another environment.
func (c SocketConfig) Paths(getenv func(string) string) []string {
	if c.Socket != "" {
		return []string{c.Socket}
	}
	// systemd parts several folders by colons.
	systemd, _, _ := strings.Cut(getenv("RUNTIME_DIRECTORY"), ":")
	var paths []string
	for _, dir := range []string{systemd, getenv("XDG_RUNTIME_DIR"), "/run/popgate"} {
		if filepath.IsAbs(dir) {
			paths = append(paths, filepath.Join(dir, socketName))
		}
	}
	return paths
}

// ErrInUse is a socket on which another process answers.
var ErrInUse = errors.New("another popgate answers there; stop it, or give this one a socket of its own with admin.socket")

// ListenSocket makes the socket at path with mode 0660, and its folder, should that be missing. A socket that nobody serves any
// more is replaced; one that is served fails with ErrInUse, and anything else at path is left alone. Closing the listener
// removes the socket.
func ListenSocket(ctx context.Context, path string) (net.Listener, error) {
	ln, err := listenSocket(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return ln, nil
}

func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return nil, err
	}
	if err := vacant(ctx, path); err != nil {
		return nil, err
	}
	// It is made where nobody else can come, or there would be a moment between bind and chmod in which the umask
	// decides who may connect. The rename then takes the place of a stale socket in one step.
	private, err := os.MkdirTemp(folder, ".p")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private) //nolint:errcheck // what is left is an empty folder
	made := filepath.Join(private, "s")
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", made)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // it would look for the name before the rename
	s := &socket{Listener: ln, path: path}
	if err := errors.Join(os.Chmod(made, 0o660), os.Rename(made, path)); err != nil {
		_ = ln.Close()
		return nil, err
	}
	if s.made, err = os.Lstat(path); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return s, nil
}

// vacant says whether a socket can be made at path: nothing is there, or one that nobody serves.
func vacant(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("something else than a socket is there; remove it, or choose another admin.socket")
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return ErrInUse
	}
	// Anything else than a refusal may come from one that lives, with its queue full for instance.
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("see who has the socket that is there: %w", err)
}

// A socket is a listener that takes its file away when it closes.
type socket struct {
	net.Listener
	path string
	made fs.FileInfo
	once sync.Once
}

// Close ends the listener and removes its file, unless another process has put its own there by now.
func (s *socket) Close() error {
	// First the file: who finds it, then finds somebody behind it.
	s.once.Do(func() {
		if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.made) {
			_ = os.Remove(s.path) // nothing is lost with a stale one
		}
	})
	return s.Listener.Close()
}
