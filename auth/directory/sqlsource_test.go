//go:build unix

package directory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

// usersTable is one that all three databases take.
var usersTable = []string{
	`CREATE TABLE users (email VARCHAR(320) PRIMARY KEY, backend VARCHAR(64), host VARCHAR(64), port INT, name VARCHAR(64), pw VARCHAR(64),
		master VARCHAR(64), hash VARCHAR(200), tenant CHAR(20), disabled BOOLEAN, moving BOOLEAN, nets VARCHAR(200), tls VARCHAR(10))`,
	`INSERT INTO users VALUES ('full@example.org', 'old', '10.0.0.5', 1110, 'u1', ' pass word ', 'adm', '{SSHA}x', 'acme', false, true,
		'10.0.0.0/8, 192.0.2.7', 'STARTTLS')`,
	`INSERT INTO users (email, port) VALUES ('bare@example.org', 110)`,
	`INSERT INTO users (email, disabled) VALUES ('closed@example.org', true)`,
	`INSERT INTO users (email, backend) VALUES ('twice@example.org', 'a'), ('twice+x@example.org', 'b')`,
	`INSERT INTO users (email, tls) VALUES ('long@example.org', 'none')`,
}

const usersQuery = `SELECT backend, host, port, name AS "user", pw AS password, master, hash, tenant, disabled, moving, nets AS allow_nets, tls
	FROM users WHERE email = :user OR email = :local || '@' || :domain`

func usersQueryFor(driver string) string {
	if driver == driverMySQL { // where || is OR, and " are strings
		return strings.NewReplacer(`"user"`, "`user`", `:local || '@' || :domain`, "concat(:local, '@', :domain)").Replace(usersQuery)
	}
	return usersQuery
}

// sqlAsk asks for a user by name.
func sqlAsk(name string) *auth.Query {
	n, err := auth.NameRules{}.Parse([]byte(name))
	if err != nil {
		panic(err)
	}
	return &auth.Query{Name: n, Client: &auth.Client{
		Addr: netip.MustParseAddrPort("192.0.2.7:50000"), Listener: "pop3s", TLS: &auth.TLS{ServerName: "mail.example.org"}}}
}

// aMinute is a context that lets a loaded machine answer.
func aMinute(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// openTestSQL opens a config for the test.
func openTestSQL(t testing.TB, c SQLConfig) Opened {
	t.Helper()
	c.validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	o, err := newSQL("test", c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func TestSQLite(t *testing.T) {
	d := newSQLiteFile(t, usersTable...)
	conformsSQL(t, d)
	t.Run("replaced", func(t *testing.T) { sqliteReplaced(t, d) })
	t.Run("endless", func(t *testing.T) {
		c := d.config("")
		c.Query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT max(i) AS backend FROM n WHERE :user <> ''"
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := openTestSQL(t, c).Lookup(ctx, sqlAsk("x@y.org")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the time is over", err)
		}
	})
	t.Run("while one writes", func(t *testing.T) { sqliteWhileWritten(t, d) })
}

func TestPostgres(t *testing.T) {
	d := newPostgres(t)
	d.exec(t, usersTable...)
	conformsSQL(t, d)
	t.Run("types", func(t *testing.T) { postgresTypes(t, d) })
	t.Run("column added", func(t *testing.T) {
		c := d.config("")
		c.Query = "SELECT * FROM (SELECT backend FROM v WHERE email = :user) x"
		d.exec(t, "CREATE TABLE v (email text, backend text)", "INSERT INTO v VALUES ('a@b.org', 'old')")
		c.Query = "SELECT v.* FROM v WHERE v.email = :user"
		d.exec(t, "ALTER TABLE v RENAME email TO \"user\"")
		c.Query = `SELECT v.* FROM v WHERE v."user" = :user`
		o := openTestSQL(t, c)
		for _, change := range []string{"SELECT 1", "ALTER TABLE v ADD tenant text DEFAULT 'acme'"} {
			d.exec(t, change)
			if a, err := o.Lookup(aMinute(t), sqlAsk("a@b.org")); err != nil || a.Backend != "old" {
				t.Errorf("after %s: got %v, %v", change, a, err)
			}
		}
	})
	t.Run("pgbouncer", func(t *testing.T) {
		c := newPgBouncer(t, d)
		c.Query, c.Prepare = usersQueryFor(driverPostgres), false
		manyAtOnce(t, openTestSQL(t, c), "u1")
	})
	faultsSQL(t, d)
}

func TestMariaDB(t *testing.T) {
	d := newMariaDB(t)
	d.exec(t, usersTable...)
	conformsSQL(t, d)
	t.Run("characters the column cannot have", func(t *testing.T) {
		d.exec(t, "CREATE TABLE w (email VARCHAR(100) CHARACTER SET latin1)", "INSERT INTO w VALUES ('a@b.org')")
		c := d.config("")
		c.Query = "SELECT 'old' AS backend FROM w WHERE email = :user"
		o := openTestSQL(t, c)
		if _, err := o.Lookup(aMinute(t), sqlAsk("a@b.org")); err != nil {
			t.Error(err)
		}
		if _, err := o.Lookup(aMinute(t), sqlAsk("日本@b.org")); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("got %v, want an unknown user", err)
		}
	})
	faultsSQL(t, d)
}

// conformsSQL is what holds for every database.
func conformsSQL(t *testing.T, d *database) {
	c := d.config("")
	c.Query, c.DomainQuery = usersQueryFor(d.driver), "SELECT 1 FROM users WHERE email LIKE "+
		map[string]string{driverMySQL: "concat('%@', :domain)"}[d.driver]
	if d.driver != driverMySQL {
		c.DomainQuery += "'%@' || :domain"
	}
	o := openTestSQL(t, c)
	if o.Vary != VaryUser || o.Memory {
		t.Errorf("got vary %b, memory %v", o.Vary, o.Memory)
	}
	t.Run("all columns", func(t *testing.T) {
		a, err := o.Lookup(aMinute(t), sqlAsk("full@example.org"))
		want := Answer{Backend: "old", Server: "10.0.0.5:1110", TLS: "starttls", User: "u1", Secret: " pass word ", Master: "adm", Hash: "{SSHA}x",
			Tenant: "acme", Moving: true, AllowNets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32")}}
		if err != nil || !reflect.DeepEqual(a, want) {
			t.Errorf("got %v %q %v, %v; want %v %q %v", a, a.Secret, a.AllowNets, err, want, want.Secret, want.AllowNets)
		}
	})
	t.Run("NULL is not set", func(t *testing.T) {
		if a, err := o.Lookup(aMinute(t), sqlAsk("bare@example.org")); err != nil || !reflect.DeepEqual(a, Answer{}) {
			t.Errorf("got %v, %v; want nothing set", a, err)
		}
		if a, err := o.Lookup(aMinute(t), sqlAsk("closed@example.org")); err != nil || !a.Disabled {
			t.Errorf("got %v, %v; want disabled", a, err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		for _, name := range []string{"nobody@example.org", "x' OR '1'='1", `x\'OR/**/1=1--`, "full@example.org'--", "%", "\xe9t\xe9@example.org", "日本@b.org"} {
			_, err := o.Lookup(aMinute(t), &auth.Query{Name: auth.Name{Typed: name, Local: name, Domain: "example.org"}})
			if !errors.Is(err, auth.ErrUnknownUser) {
				t.Errorf("%q: got %v, want an unknown user", name, err)
			}
		}
	})
	t.Run("domains", func(t *testing.T) {
		knows := o.Source.(DomainKnower)
		for domain, want := range map[string]bool{"example.org": true, "example.com": false, "\xe9.org": false} {
			if got, err := knows.KnowsDomain(aMinute(t), domain); err != nil || got != want {
				t.Errorf("%q: got %v, %v; want %v", domain, got, err, want)
			}
		}
	})
	t.Run("wrong queries", func(t *testing.T) { wrongQueries(t, d) })
	t.Run("many at once", func(t *testing.T) { manyAtOnce(t, o, "u1") })
}

// wrongQueries gives answers that make no sense. None of them may be an unknown user, which a cache would believe.
func wrongQueries(t *testing.T, d *database) {
	long := "'" + strings.Repeat("x", 9000) + "'"
	for _, tt := range []struct{ query, problem string }{
		{"SELECT backend FROM users WHERE email LIKE 'twice%' AND :user <> ''", "more than one row"},
		{"SELECT backend FROM users, users AS b WHERE :user <> ''", ""},
		{"SELECT 'x' AS mailhost, :user AS backend", `"mailhost" means nothing: there are backend, server`},
		{"SELECT 'x' AS backend, :user AS backend", "backend is there twice"},
		{"SELECT 'h' AS host, 's' AS server WHERE :user <> ''", "give one of them"},
		{"SELECT 'perhaps' AS disabled WHERE :user <> ''", "neither true nor false"},
		{"SELECT '10.0.0.0/33' AS allow_nets WHERE :user <> ''", "is no network"},
		{"SELECT " + long + " AS password WHERE :user <> ''", "9000 bytes"},
		{"SELECT backend FROM nowhere WHERE a = :user", "nowhere"},
		{"SELEKT :user", ""},
	} {
		if d.driver == driverMySQL {
			tt.query = strings.Replace(tt.query, " WHERE", " FROM DUAL WHERE", 1)
			tt.query = strings.NewReplacer("FROM users FROM DUAL", "FROM users", "AS b FROM DUAL", "AS b", "nowhere FROM DUAL", "nowhere").Replace(tt.query)
		}
		c := d.config("")
		c.Query = tt.query
		_, err := openTestSQL(t, c).Lookup(aMinute(t), sqlAsk("a@b.org"))
		if err == nil || errors.Is(err, auth.ErrUnknownUser) || !strings.Contains(err.Error(), tt.problem) || strings.Contains(err.Error(), "xxxx") {
			t.Errorf("%.60s: got %v, want an error with %q", tt.query, err, tt.problem)
		}
		if content := tt.problem != "" && tt.problem != "nowhere"; err != nil && tt.problem != "" && errors.As(err, new(contentError)) != content {
			t.Errorf("%.60s: whose fault is %v", tt.query, err)
		}
	}
}

// manyAtOnce has more lookups under way than there are connections. told is the backend's name for full@example.org.
func manyAtOnce(t *testing.T, o Opened, told string) {
	t.Helper()
	ctx := aMinute(t)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if i%2 == 0 {
				if a, err := o.Lookup(ctx, sqlAsk("full@example.org")); err != nil || a.User != told {
					t.Errorf("got %v, %v", a, err)
				}
			} else if _, err := o.Lookup(ctx, sqlAsk(fmt.Sprintf("n%d@example.org", i))); !errors.Is(err, auth.ErrUnknownUser) {
				t.Errorf("got %v, want an unknown user", err)
			}
		})
	}
	wg.Wait()
}

func postgresTypes(t *testing.T, d *database) {
	d.exec(t, "CREATE TABLE n (id int, net cidr, nets inet[], state bigint)",
		"INSERT INTO n VALUES (7, '192.0.2.0/24', '{10.0.0.0/8,192.0.2.1}', 1)")
	c := d.config("")
	c.Query = "SELECT nets AS allow_nets, state AS moving, '{\"a\": 1}'::jsonb ? 'a' AS disabled FROM n WHERE net >> :client::inet AND (id = :local::int OR :sni = '')"
	for _, prepare := range []bool{true, false} {
		c.Prepare = prepare
		o := openTestSQL(t, c)
		a, err := o.Lookup(aMinute(t), sqlAsk("7@example.org"))
		if err != nil || len(a.AllowNets) != 2 || !a.Moving || !a.Disabled {
			t.Errorf("prepare %v: got %v %v, %v", prepare, a, a.AllowNets, err)
		}
		if _, err := o.Lookup(aMinute(t), sqlAsk("seven@example.org")); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("prepare %v: letters for a number: got %v, want an unknown user", prepare, err)
		}
		if o.Vary != VaryUser|VaryClient|VarySNI {
			t.Errorf("got vary %b", o.Vary)
		}
	}
}

func sqliteReplaced(t *testing.T, d *database) {
	c := d.config("")
	c.Query = "SELECT backend FROM users WHERE email = :user"
	o := openTestSQL(t, c)
	lookup := func() (string, error) {
		a, err := o.Lookup(aMinute(t), sqlAsk("full@example.org"))
		return a.Backend, err
	}
	if got, err := lookup(); got != "old" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	next := filepath.Join(d.dir, "next.db")
	fillSQLite(t, next, append(usersTable, "UPDATE users SET backend = 'new'")...)
	if err := os.Rename(next, d.socket); err != nil {
		t.Fatal(err)
	}
	if got, err := lookup(); got != "new" || err != nil {
		t.Errorf("after the file was replaced: got %q, %v; want what the new one says", got, err)
	}
	if err := os.Rename(d.socket, next); err != nil {
		t.Fatal(err)
	}
	if got, err := lookup(); err == nil || errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("without the file: got %q, %v; want that it could not be asked", got, err)
	}
	if err := os.Rename(next, d.socket); err != nil {
		t.Fatal(err)
	}
	if got, err := lookup(); got != "new" || err != nil {
		t.Errorf("when the file is back: got %q, %v", got, err)
	}
}

func sqliteWhileWritten(t *testing.T, d *database) {
	fillSQLite(t, d.socket, "PRAGMA journal_mode = WAL", "CREATE TABLE counts (n INT)")
	c := d.config("")
	c.Query = usersQuery
	o := openTestSQL(t, c)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				fillSQLite(t, d.socket, "INSERT INTO counts VALUES (1)")
			}
		}
	})
	for range 200 {
		if _, err := o.Lookup(aMinute(t), sqlAsk("full@example.org")); err != nil {
			t.Errorf("got %v", err)
			break
		}
	}
	close(stop)
	wg.Wait()
}
