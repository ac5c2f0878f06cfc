package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/cluster"
)

// A server is a real one of its own, started by the test; sockets and data are in a folder that goes with it.
type server struct {
	cmd   *exec.Cmd
	start func() *exec.Cmd
	ready func() error
	log   *bytes.Buffer
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

func (s *server) up(t testing.TB) {
	t.Helper()
	s.log = new(bytes.Buffer)
	s.cmd = s.start()
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	// A server that outlives its test would hold the next one's port or memory.
	if s.cmd.SysProcAttr == nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server is up", s.ready)
}

func (s *server) down(t testing.TB) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGINT) // for PostgreSQL: end sessions, but in order
	_ = s.cmd.Wait()
}

// eventually waits until try succeeds, looking often; what is waited for shows outside of this process alone.
func eventually(t testing.TB, what string, try func() error) {
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

type redisServer struct {
	server
	config cluster.Config
}

// newRedis starts a Redis with a password, which keeps its data over a restart, on a Unix socket.
func newRedis(t testing.TB) *redisServer {
	t.Helper()
	path := program(t, "redis-server", "redis-server")
	dir := shortDir(t)
	attr := nobody(t, dir)
	socket := filepath.Join(dir, "s")
	r := &redisServer{config: cluster.DefaultConfig()}
	r.config.Addresses = []string{socket}
	r.config.PasswordFile = secretFile(t, "open sesame\n")
	r.start = func() *exec.Cmd {
		cmd := exec.Command(path, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "777", "--dir", dir, "--appendonly", "yes",
			"--appendfsync", "no", "--save", "", "--requirepass", "open sesame")
		cmd.SysProcAttr = attr
		return cmd
	}
	client, err := cluster.New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	r.ready = func() error { return client.Health(t.Context()) }
	r.up(t)
	t.Cleanup(func() { r.down(t) })
	return r
}

type postgresServer struct {
	server
	config Postgres
}

// newPostgres starts a PostgreSQL with a password, on a Unix socket.
func newPostgres(t testing.TB) *postgresServer {
	t.Helper()
	path, initdb := program(t, "postgres", "postgresql"), program(t, "initdb", "postgresql")
	dir := shortDir(t)
	attr := nobody(t, dir)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("open sesame\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	init := exec.Command(initdb, "-D", data, "-U", "popgate", "-A", "scram-sha-256", "--pwfile", secret, "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8")
	init.SysProcAttr, init.Dir = attr, dir
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p := &postgresServer{config: DefaultConfig().Postgres}
	p.config.Connection = "host=" + dir + " user=popgate dbname=postgres sslmode=disable"
	p.config.PasswordFile = secret
	p.start = func() *exec.Cmd {
		cmd := exec.Command(path, "-D", data, "-k", dir, "-h", "", "-F")
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}
	probe, err := openPostgres(p.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(probe.close)
	p.ready = func() error { return probe.health(t.Context()) }
	p.up(t)
	t.Cleanup(func() { p.down(t) })
	return p
}

func secretFile(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// newKeyFile is what the documentation has the operator make.
func newKeyFile(t testing.TB) string {
	t.Helper()
	material := make([]byte, 32)
	rand.Read(material)
	return secretFile(t, base64.StdEncoding.EncodeToString(material)+"\n")
}

// hole is an address that takes connections and never answers.
func hole(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// within fails the test where f takes longer than d.
func within(t testing.TB, d time.Duration, f func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*d, errors.New("far too late"))
	defer cancel()
	begun := time.Now()
	err := f(ctx)
	if took := time.Since(begun); took > d {
		t.Errorf("took %v, want %v at most (%v)", took, d, err)
	}
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// variant is one way to store.
type variant struct {
	name   string
	config Config
}

// variants are all kinds of storage, with and without encryption. Each has a server of its own, which all of its tests share.
func variants(t testing.TB) []variant {
	t.Helper()
	keys := []string{newKeyFile(t)}
	files, redis, postgres := DefaultConfig(), DefaultConfig(), DefaultConfig()
	redis.Type, redis.Redis = TypeRedis, newRedis(t).config
	postgres.Type, postgres.Postgres = TypePostgres, newPostgres(t).config
	var all []variant
	for _, c := range []Config{files, redis, postgres} {
		sealed := c
		sealed.EncryptionKeyFiles = keys
		c.Encryption = EncryptionNone
		c.Redis.Prefix, sealed.Redis.Prefix = "plain", "sealed"
		c.Postgres.Schema, sealed.Postgres.Schema = "plain", "sealed"
		all = append(all, variant{c.Type + "/plain", c}, variant{c.Type + "/sealed", sealed})
	}
	return all
}

// openTest opens a store whose leases are short, and closes it with the test.
func openTest(t testing.TB, c Config, stateDir string) *Store {
	t.Helper()
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	s, err := open(c, stateDir, nil, testLease)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	s.copying.Store(true) // as with Run, which is tested by itself
	return s
}

const testLease = 2 * time.Second

// helperEnv has the test's program hold a lock for another process: see TestLockOfKilledHolder.
const helperEnv = "POPGATE_STORAGE_TEST_HOLDS"

func TestMain(m *testing.M) {
	if text := os.Getenv(helperEnv); text != "" {
		if err := holdForever(text); err != nil {
			fmt.Println(strings.ReplaceAll(err.Error(), "\n", " "))
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}
