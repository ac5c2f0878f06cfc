//go:build unix

package directory

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// realPassword is the one of every real server in these tests. It has what has to be escaped somewhere.
const realPassword = "open s%same/@:'x"

// debianProgram finds one of Debian's, some of which are outside an ordinary user's path.
func debianProgram(t testing.TB, name, pkg string) string {
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

// serverDir is a folder whose path leaves room for a socket's name, and into which a server without rights can get.
func serverDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// A daemon is a real server of a test's own.
type daemon struct {
	cmd   *exec.Cmd
	start func() *exec.Cmd
	ready func() error
	log   *bytes.Buffer
}

// run starts the server for the test, with which it ends.
func (d *daemon) run(t testing.TB) {
	t.Helper()
	t.Cleanup(func() { d.down(t) })
	d.up(t)
}

// up starts the server, also again, and waits until it answers.
func (d *daemon) up(t testing.TB) {
	t.Helper()
	d.log = new(bytes.Buffer)
	d.cmd = d.start()
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventuallyNil(t, filepath.Base(d.cmd.Path)+" is up", d.ready)
}

// down ends the server; its data stay.
func (d *daemon) down(t testing.TB) {
	t.Helper()
	if d.cmd == nil || d.cmd.Process == nil || d.cmd.ProcessState != nil {
		return
	}
	end := syscall.SIGTERM
	if filepath.Base(d.cmd.Path) == "postgres" {
		end = syscall.SIGINT // which ends sessions first
	}
	_ = d.cmd.Process.Signal(end)
	_ = d.cmd.Wait()
	if t.Failed() {
		t.Logf("%s:\n%s", filepath.Base(d.cmd.Path), d.log)
	}
}

// eventuallyNil waits until try succeeds; what is waited for shows outside of this process alone.
func eventuallyNil(t testing.TB, what string, try func() error) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	look := time.NewTicker(20 * time.Millisecond)
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

// asUser is who a server runs as where the test is root, which some refuse.
func asUser(t testing.TB, name string, dirs ...string) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(name)
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

// writeText writes a file that servers may read too, and returns its path.
func writeText(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// A database is a real one, and how to reach it.
type database struct {
	*daemon
	driver       string
	socket       string                      // its Unix socket
	config       func(addr string) SQLConfig // by way of a TCP address, or "" for the socket
	passwordFile string
	dir          string
}

// exec runs statements in the database.
func (d *database) exec(t testing.TB, statements ...string) {
	t.Helper()
	if d.driver == driverSQLite {
		fillSQLite(t, d.socket, statements...)
		return
	}
	db, err := openSQL(d.config(""), new(hider), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// pinged says whether the database of a config takes questions.
func pinged(t testing.TB, c SQLConfig) error {
	var db *sql.DB
	db, err := openSQL(c, new(hider), nil)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return db.PingContext(t.Context())
}

// newPostgres starts a PostgreSQL with a password, on a Unix socket.
func newPostgres(t testing.TB) *database {
	t.Helper()
	postgres, initdb := debianProgram(t, "postgres", "postgresql"), debianProgram(t, "initdb", "postgresql")
	dir := serverDir(t)
	attr := asUser(t, "nobody", dir)
	d := &database{driver: driverPostgres, dir: dir, socket: filepath.Join(dir, ".s.PGSQL.5432")}
	d.passwordFile = writeText(t, filepath.Join(dir, "secret"), realPassword+"\n")
	data := filepath.Join(dir, "data")
	prepare := exec.Command(initdb, "-D", data, "-U", "popgate", "-A", "scram-sha-256", "--pwfile", d.passwordFile, "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8")
	prepare.SysProcAttr, prepare.Dir = attr, dir
	if out, err := prepare.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	d.config = func(addr string) SQLConfig {
		c := defaultSQL()
		c.Driver, c.PasswordFile = driverPostgres, d.passwordFile
		c.DSN = "host=" + dir + " user=popgate dbname=postgres sslmode=disable"
		if addr != "" {
			c.DSN = "postgres://popgate@" + addr + "/postgres?sslmode=disable"
		}
		return c
	}
	d.daemon = &daemon{ready: func() error { return pinged(t, d.config("")) }, start: func() *exec.Cmd {
		cmd := exec.Command(postgres, "-D", data, "-k", dir, "-h", "", "-F")
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}}
	d.run(t)
	return d
}

// newMariaDB starts a MariaDB with a password, on a Unix socket.
func newMariaDB(t testing.TB) *database {
	t.Helper()
	mariadbd, install := debianProgram(t, "mariadbd", "mariadb-server"), debianProgram(t, "mariadb-install-db", "mariadb-server")
	dir := serverDir(t)
	attr := asUser(t, "nobody", dir)
	d := &database{driver: driverMySQL, dir: dir, socket: filepath.Join(dir, "s")}
	d.passwordFile = writeText(t, filepath.Join(dir, "secret"), realPassword+"\n")
	data := filepath.Join(dir, "data")
	prepare := exec.Command(install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db")
	prepare.SysProcAttr, prepare.Dir = attr, dir
	if out, err := prepare.CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	users := writeText(t, filepath.Join(dir, "init.sql"), `CREATE DATABASE IF NOT EXISTS mail CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS 'popgate'@'%' IDENTIFIED BY '`+"open s%same/@:\\'x"+`';
GRANT ALL ON mail.* TO 'popgate'@'%';
`)
	d.config = func(addr string) SQLConfig {
		c := defaultSQL()
		c.Driver, c.PasswordFile = driverMySQL, d.passwordFile
		c.DSN = "popgate@unix(" + d.socket + ")/mail"
		if addr != "" {
			c.DSN = "popgate@tcp(" + addr + ")/mail"
		}
		return c
	}
	d.daemon = &daemon{ready: func() error { return pinged(t, d.config("")) }, start: func() *exec.Cmd {
		cmd := exec.Command(mariadbd, "--no-defaults", "--datadir="+data, "--socket="+d.socket, "--skip-networking", "--init-file="+users,
			"--pid-file="+filepath.Join(dir, "pid"), "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin")
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}}
	d.run(t)
	return d
}

// newPgBouncer starts a PgBouncer in transaction mode before a PostgreSQL, and returns a config that goes through it.
func newPgBouncer(t testing.TB, behind *database) SQLConfig {
	t.Helper()
	path := debianProgram(t, "pgbouncer", "pgbouncer")
	dir := serverDir(t)
	attr := asUser(t, "nobody", dir)
	users := writeText(t, filepath.Join(dir, "users"), fmt.Sprintf("%q %q\n", "popgate", realPassword))
	ini := writeText(t, filepath.Join(dir, "ini"), `[databases]
postgres = host=`+behind.dir+` port=5432 dbname=postgres user=popgate
[pgbouncer]
unix_socket_dir = `+dir+`
listen_addr =
auth_type = plain
auth_file = `+users+`
pool_mode = transaction
default_pool_size = 2
`)
	c := defaultSQL()
	c.Driver, c.PasswordFile = driverPostgres, behind.passwordFile
	c.DSN = "host=" + dir + " port=6432 user=popgate dbname=postgres sslmode=disable"
	d := &daemon{start: func() *exec.Cmd {
		cmd := exec.Command(path, ini)
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}}
	d.ready = func() error {
		c := c
		c.Prepare = false
		return pinged(t, c)
	}
	d.run(t)
	return c
}

// newSQLiteFile makes a database file.
func newSQLiteFile(t testing.TB, statements ...string) *database {
	t.Helper()
	d := &database{driver: driverSQLite, dir: t.TempDir()}
	d.socket = filepath.Join(d.dir, "users ?#%.db")
	d.config = func(string) SQLConfig {
		c := defaultSQL()
		c.Driver, c.DSN = driverSQLite, d.socket
		return c
	}
	fillSQLite(t, d.socket, statements...)
	return d
}

// fillSQLite runs statements in a file, which is made where there is none.
func fillSQLite(t testing.TB, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(30000)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
