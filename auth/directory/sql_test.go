package directory

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
)

func TestSQLConfigFaults(t *testing.T) {
	good := func(driver string) SQLConfig {
		c := defaultSQL()
		c.Driver, c.DSN, c.Query = driver, "x", "SELECT :user AS backend"
		return c
	}
	for _, tt := range []struct {
		name, driver string
		change       func(*SQLConfig)
		key          string // "" for no fault
	}{
		{"postgres", driverPostgres, func(*SQLConfig) {}, ""},
		{"mysql", driverMySQL, func(c *SQLConfig) { c.TLSCA = "ca.pem" }, ""},
		{"sqlite", driverSQLite, func(c *SQLConfig) { c.DomainQuery = "SELECT :domain" }, ""},
		{"pgbouncer", driverPostgres, func(c *SQLConfig) { c.Prepare, c.IdleTime = false, 0 }, ""},
		{"no driver", "", func(*SQLConfig) {}, "driver"},
		{"other driver", "oracle", func(*SQLConfig) {}, "driver"},
		{"no dsn", driverPostgres, func(c *SQLConfig) { c.DSN = "" }, "dsn"},
		{"two dsns", driverPostgres, func(c *SQLConfig) { c.DSNFile = "f" }, "dsn"},
		{"no query", driverPostgres, func(c *SQLConfig) { c.Query = "" }, "query"},
		{"domain_query of a user", driverPostgres, func(c *SQLConfig) { c.DomainQuery = "SELECT :user" }, "domain_query"},
		{"no connections", driverPostgres, func(c *SQLConfig) { c.MaxConnections = 0 }, "max_connections"},
		{"many connections", driverPostgres, func(c *SQLConfig) { c.MaxConnections = 1001 }, "max_connections"},
		{"idle_time", driverPostgres, func(c *SQLConfig) { c.IdleTime = -1 }, "idle_time"},
		{"tls_ca elsewhere", driverPostgres, func(c *SQLConfig) { c.TLSCA = "ca.pem" }, "tls_ca"},
		{"password of a file", driverSQLite, func(c *SQLConfig) { c.PasswordFile = "p" }, "password_file"},
		{"prepare elsewhere", driverMySQL, func(c *SQLConfig) { c.Prepare = false }, "prepare"},
	} {
		c := good(tt.driver)
		tt.change(&c)
		var keys []string
		c.validate(func(key, problem string) { keys = append(keys, key) })
		if got := strings.Join(keys, " "); got != tt.key {
			t.Errorf("%s: faults at %q, want at %q", tt.name, got, tt.key)
		}
	}
}

func TestSQLOpenFaults(t *testing.T) {
	dir := t.TempDir()
	empty, two := filepath.Join(dir, "empty"), filepath.Join(dir, "two")
	for file, text := range map[string]string{empty: "\n", two: "a\nb\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		change  func(*SQLConfig)
		problem string
	}{
		{func(c *SQLConfig) { c.DSN, c.DSNFile = "", filepath.Join(dir, "none") }, "dsn_file: open "},
		{func(c *SQLConfig) { c.DSN, c.DSNFile = "", empty }, "is empty"},
		{func(c *SQLConfig) { c.PasswordFile = two }, "password_file: " + two + " has more than one line"},
		{func(c *SQLConfig) { c.Driver, c.DSN, c.TLSCA = driverMySQL, "u@tcp(h)/d", two }, "tls_ca: " + two + " has no certificate"},
		{func(c *SQLConfig) { c.DSN = "host=h sslmode=verify-full sslrootcert=" + filepath.Join(dir, "none") }, "dsn: open " + filepath.Join(dir, "none")},
		{func(c *SQLConfig) { c.Driver, c.DSN = driverSQLite, "file:" }, "names no file"},
		{func(c *SQLConfig) { c.Driver, c.DSN = driverSQLite, ":memory:" }, "names no file"},
		{func(c *SQLConfig) { c.Driver, c.DSN = driverSQLite, "file://host/x" }, "names the host"},
	} {
		c := defaultSQL()
		c.Driver, c.DSN, c.Query = driverPostgres, "host=h", "SELECT :user AS backend"
		tt.change(&c)
		if _, err := newSQL("test", c, nil); err == nil || !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("got %v, want an error with %q", err, tt.problem)
		}
	}
}

// Whatever is wrong with a DSN or the server it names, its password is in no error and no log line.
func TestSQLErrorsHidePasswords(t *testing.T) {
	refusing := newFaultProxy(t, "tcp", "127.0.0.1:1")
	refusing.set(faultRefuse)
	at := refusing.addr()
	for _, tt := range []struct{ driver, dsn string }{
		{driverPostgres, "postgres://u:%s@" + at + "/d"},
		{driverPostgres, "postgres://u:%s@" + at + "/d?sslmode=nonsense"},
		{driverPostgres, "postgres://u:%s@127.0.0.1:99999/d"},
		{driverPostgres, "postgres://u:%s@[::1/d"},
		{driverPostgres, "postgres://u:%s:5432:x@" + at + "/d"},
		{driverPostgres, "host=127.0.0.1 port=" + refusing.port() + " user=u password=%s"},
		{driverPostgres, "host=127.0.0.1 port=x user=u password=%s"},
		{driverPostgres, "host=127.0.0.1 password='%s"},
		{driverPostgres, "host=127.0.0.1 passwort %s"},
		{driverMySQL, "u:%s@tcp(" + at + ")/d"},
		{driverMySQL, "u:%s@tcp(" + at + ")/d?tls=nonsense"},
		{driverMySQL, "u:%s@tcp(" + at + ")"},
		{driverMySQL, "u:%s@" + at + "/d"},
		{driverMySQL, "u:%s/d"},
		{driverMySQL, "u:%s@udp(x)/d"},
		{driverMySQL, "u:%s"},
	} {
		for _, password := range []string{"hunter2", "hunter2/xyz", "hunter2@xyz", "hunter2(xyz"} {
			var logged strings.Builder
			log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
			c := defaultSQL()
			c.Driver, c.DSN, c.Query = tt.driver, fmt.Sprintf(tt.dsn, password), "SELECT :user AS backend"
			o, err := newSQL("test", c, log)
			if err == nil {
				_, err = o.Lookup(t.Context(), &auth.Query{Name: auth.Name{Typed: "a"}})
				if closed := o.Close(); closed != nil {
					t.Error(closed)
				}
			}
			if err == nil || errors.Is(err, auth.ErrUnknownUser) {
				t.Errorf("%s: got %v, want that nobody could be asked", c.DSN, err)
			}
			for ; err != nil; err = errors.Unwrap(err) {
				if all := fmt.Sprintf("%v %+v %#v", err, err, err) + logged.String(); strings.Contains(all, "hunter2") || strings.Contains(all, "xyz") {
					t.Errorf("%s: the password is in %s", c.DSN, all)
				}
			}
		}
	}
}

func TestHider(t *testing.T) {
	h := new(hider)
	h.add("", "p%s w", "p%s w")
	if got := h.text("a p%s w b p%25s+w c p%25s%20w d"); got != "a [secret] b [secret] c [secret] d" {
		t.Errorf("got %q", got)
	}
	if got := h.text("a:\n\tb\n"); got != "a: b" {
		t.Errorf("got %q, want one line", got)
	}
	for i := range 2 * maxHidden {
		h.add(fmt.Sprintf("pw%02d.", i))
	}
	if len(h.secrets) != maxHidden || h.text("pw31.") == "pw31." {
		t.Errorf("got %d secrets, want %d with the newest", len(h.secrets), maxHidden)
	}
	if got := h.text(strings.Repeat("é", 1000)); len(got) > maxErrorText+3 {
		t.Errorf("an error of %d bytes", len(got))
	}
}

func TestSQLWarnsOfPlaintext(t *testing.T) {
	for _, tt := range []struct {
		driver, dsn string
		warns       bool
	}{
		{driverPostgres, "postgres://u@db.example.org/d", true}, // prefer is the driver's default
		{driverPostgres, "postgres://u@db.example.org/d?sslmode=disable", true},
		{driverPostgres, "postgres://u@127.0.0.1,db.example.org/d?sslmode=disable", true},
		{driverPostgres, "postgres://u@db.example.org/d?sslmode=require", false},
		{driverPostgres, "postgres://u@127.0.0.1/d", false},
		{driverPostgres, "host=/run/postgresql", false},
		{driverMySQL, "u@tcp(db.example.org:3306)/d", true},
		{driverMySQL, "u@tcp(db.example.org:3306)/d?tls=preferred", true},
		{driverMySQL, "u@tcp(db.example.org:3306)/d?tls=true", false},
		{driverMySQL, "u@tcp(localhost:3306)/d", false},
		{driverMySQL, "u@unix(/run/mysqld/mysqld.sock)/d", false},
	} {
		var logged strings.Builder
		c := defaultSQL()
		c.Driver, c.DSN, c.Query = tt.driver, tt.dsn, "SELECT :user AS backend"
		o, err := newSQL("test", c, slog.New(slog.NewTextHandler(&logged, nil)))
		if err != nil {
			t.Errorf("%s: %v", tt.dsn, err)
			continue
		}
		_ = o.Close()
		if got := strings.Contains(logged.String(), "without TLS"); got != tt.warns {
			t.Errorf("%s: warned %v, want %v: %s", tt.dsn, got, tt.warns, logged.String())
		}
	}
}
