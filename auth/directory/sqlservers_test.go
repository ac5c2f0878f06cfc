//go:build unix

package directory

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/popgate/popgate/auth/peers"
)

// realPassword is the one of every real server in these tests. It has what has to be escaped somewhere.
const realPassword = "open s%same/@:'x"

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
	*peers.Daemon
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
	p := peers.NewPostgres(t, realPassword)
	d := &database{Daemon: p.Daemon, driver: driverPostgres, dir: p.Dir, socket: filepath.Join(p.Dir, ".s.PGSQL.5432"), passwordFile: p.PasswordFile}
	d.config = func(addr string) SQLConfig {
		c := defaultSQL()
		c.Driver, c.PasswordFile, c.DSN = driverPostgres, d.passwordFile, p.Connection
		if addr != "" {
			c.DSN = "postgres://popgate@" + addr + "/postgres?sslmode=disable"
		}
		return c
	}
	return d
}

// newMariaDB starts a MariaDB with a password, on a Unix socket.
func newMariaDB(t testing.TB) *database {
	t.Helper()
	mariadbd, install := peers.Program(t, "mariadbd", "mariadb-server"), peers.Program(t, "mariadb-install-db", "mariadb-server")
	dir := peers.Dir(t)
	attr := peers.Nobody(t, dir)
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
	d.Daemon = &peers.Daemon{Ready: func() error { return pinged(t, d.config("")) }, Start: func() *exec.Cmd {
		cmd := exec.Command(mariadbd, "--no-defaults", "--datadir="+data, "--socket="+d.socket, "--skip-networking", "--init-file="+users,
			"--pid-file="+filepath.Join(dir, "pid"), "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin")
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}}
	d.Run(t)
	return d
}

// newPgBouncer starts a PgBouncer in transaction mode before a PostgreSQL, and returns a config that goes through it.
func newPgBouncer(t testing.TB, behind *database) SQLConfig {
	t.Helper()
	path := peers.Program(t, "pgbouncer", "pgbouncer")
	dir := peers.Dir(t)
	attr := peers.Nobody(t, dir)
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
	d := &peers.Daemon{Start: func() *exec.Cmd {
		cmd := exec.Command(path, ini)
		cmd.SysProcAttr, cmd.Dir = attr, dir
		return cmd
	}}
	d.Ready = func() error {
		c := c
		c.Prepare = false
		return pinged(t, c)
	}
	d.Run(t)
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
