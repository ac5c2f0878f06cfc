//go:build unix

// Package servers starts real Redis and PostgreSQL servers for the tests of certs and what is below it.
package servers

import (
	"bytes"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/popgate/popgate/policy/cluster"
)

const password = "open sesame"

// A Server is one of a test's own; sockets and data are in a folder that goes with the test.
type Server struct {
	cmd   *exec.Cmd
	start func() *exec.Cmd
	ready func() error
	log   *bytes.Buffer

	Redis        cluster.Config // how to reach what NewRedis made
	Connection   string         // how to reach what NewPostgres made
	PasswordFile string         // beside Connection
}

// program finds one of Debian's, some of which are outside an ordinary user's path.
func program(t testing.TB, name, pkg string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/", "/usr/sbin/"} {
		if found, _ := filepath.Glob(pattern + name); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("there is no %s: install Debian's %s", name, pkg)
	}
	t.Skipf("there is no %s: install Debian's %s", name, pkg)
	return ""
}

// shortDir is a folder whose path leaves room for a socket's name, and into which a server without rights can get.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Up starts the server again, and waits until it answers. It ends with the test.
func (s *Server) Up(t testing.TB) {
	t.Helper()
	s.log = new(bytes.Buffer)
	s.cmd = s.start()
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Down(t) })
	Eventually(t, "the server is up", s.ready)
}

// Down ends the server, in order. Its data stay.
func (s *Server) Down(t testing.TB) {
	t.Helper()
	if s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGINT) // for PostgreSQL: end sessions, but in order
	_ = s.cmd.Wait()
	if t.Failed() {
		t.Logf("%s:\n%s", filepath.Base(s.cmd.Path), s.log)
	}
}

// Eventually waits until try succeeds, looking often; what is waited for shows outside of this process alone.
func Eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// nobody is who a server runs as where the test is root; PostgreSQL refuses root.
func nobody(t testing.TB, dir string) *syscall.SysProcAttr {
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
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// NewRedis starts a Redis with a password, which keeps its data over a restart, on a Unix socket.
func NewRedis(t testing.TB) *Server {
	t.Helper()
	path := program(t, "redis-server", "redis-server")
	dir := shortDir(t)
	attr := nobody(t, dir)
	socket := filepath.Join(dir, "s")
	r := &Server{Redis: cluster.DefaultConfig()}
	r.Redis.Addresses = []string{socket}
	r.Redis.PasswordFile = writeSecret(t, dir)
	r.start = func() *exec.Cmd {
		cmd := exec.Command(path, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "777", "--dir", dir, "--appendonly", "yes",
			"--appendfsync", "no", "--save", "", "--requirepass", password)
		cmd.SysProcAttr = attr
		return cmd
	}
	client, err := cluster.New(r.Redis)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	r.ready = func() error { return client.Health(t.Context(), "test") }
	r.Up(t)
	return r
}

// NewPostgres starts a PostgreSQL with a password, on a Unix socket.
func NewPostgres(t testing.TB) *Server {
	t.Helper()
	path, initdb := program(t, "postgres", "postgresql"), program(t, "initdb", "postgresql")
	dir := shortDir(t)
	attr := nobody(t, dir)
	secret := writeSecret(t, dir)
	data := filepath.Join(dir, "data")
	prepare := exec.Command(initdb, "-D", data, "-U", "popgate", "-A", "scram-sha-256", "--pwfile", secret, "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8")
	prepare.SysProcAttr, prepare.Dir = attr, dir
	if out, err := prepare.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p := &Server{Connection: "host=" + dir + " user=popgate dbname=postgres sslmode=disable", PasswordFile: secret}
	p.start = func() *exec.Cmd {
		cmd := exec.Command(path, "-D", data, "-k", dir, "-h", "", "-F")
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}
	p.ready = func() error {
		c, err := pgx.Connect(t.Context(), p.Connection+" password='"+password+"'")
		if err != nil {
			return err
		}
		return c.Close(t.Context())
	}
	p.Up(t)
	return p
}

// writeSecret makes the file with the password. The servers' own user reads it too.
func writeSecret(t testing.TB, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "secret")
	if err := os.WriteFile(name, []byte(password+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
