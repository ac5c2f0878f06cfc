package directory

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
)

var allParams = []string{"user", "local", "domain", "sni", "client", "listener"}

func TestParseStatement(t *testing.T) {
	for _, tt := range []struct {
		driver, query, text, params string
	}{
		{driverPostgres, "SELECT a FROM u WHERE n = :user", "SELECT a FROM u WHERE n = $1", "user"},
		{driverMySQL, "SELECT a FROM u WHERE n=:local AND d=:domain", "SELECT a FROM u WHERE n=? AND d=?", "local domain"},
		{driverSQLite, "SELECT a FROM u WHERE n IN (:user,:user)", "SELECT a FROM u WHERE n IN (?,?)", "user user"},
		{driverPostgres, "SELECT :user, :user", "SELECT $1, $2", "user user"}, // each has a type of its own
		{driverPostgres, "SELECT :client::inet, x::text", "SELECT $1::inet, x::text", "client"},
		{driverPostgres, "SELECT a[1:2], 'now'::timestamp, :user", "SELECT a[1:2], 'now'::timestamp, $1", "user"},
		{driverMySQL, "SELECT @x := :user", "SELECT @x := ?", "user"},
		{driverMySQL, "SELECT a FROM `u:user` WHERE n = :user", "SELECT a FROM `u:user` WHERE n = ?", "user"},
		{driverSQLite, "SELECT a FROM [u:user] WHERE n = :user", "SELECT a FROM [u:user] WHERE n = ?", "user"},
		{driverPostgres, `SELECT ':user', "a:user", 'it''s :user' , :user`, `SELECT ':user', "a:user", 'it''s :user' , $1`, "user"},
		{driverPostgres, `SELECT '\', :user`, `SELECT '\', $1`, "user"}, // no escape here
		{driverPostgres, `SELECT E'\':user', :user`, `SELECT E'\':user', $1`, "user"},
		{driverPostgres, `SELECT type'\', :user`, `SELECT type'\', $1`, "user"}, // the e is another word's
		{driverMySQL, `SELECT '\':user', "\":user", :user`, `SELECT '\':user', "\":user", ?`, "user"},
		{driverSQLite, `SELECT '\', :user`, `SELECT '\', ?`, "user"},
		{driverPostgres, "SELECT $$:user$$, $t$ $$ :user $t$, :user", "SELECT $$:user$$, $t$ $$ :user $t$, $1", "user"},
		{driverPostgres, "SELECT a$b$c, :user", "SELECT a$b$c, $1", "user"}, // a name
		{driverPostgres, "SELECT a ? :user", "SELECT a ? $1", "user"},       // jsonb has such an operator
		{driverPostgres, "SELECT :user -- :no\n, 1", "SELECT $1 -- :no\n, 1", "user"},
		{driverPostgres, "SELECT /* /* :no */ :no */ :user", "SELECT /* /* :no */ :no */ $1", "user"},
		{driverSQLite, "SELECT /* /* :no */ :user", "SELECT /* /* :no */ ?", "user"},
		{driverMySQL, "SELECT :user # :no", "SELECT ? # :no", "user"},
		{driverMySQL, "SELECT 5--3, :user -- :no", "SELECT 5--3, ? -- :no", "user"},
		{driverPostgres, "SELECT 5 # 3, :user", "SELECT 5 # 3, $1", "user"},
		{driverPostgres, " SELECT :user ; -- that is all\n ", "SELECT $1", "user"},
		{driverMySQL, "SELECT :user,:sni,:client,:listener", "SELECT ?,?,?,?", "user sni client listener"},
	} {
		s, err := parseStatement(tt.driver, tt.query, allParams...)
		if err != nil || s.text != tt.text || strings.Join(s.params, " ") != tt.params {
			t.Errorf("%s %q: got %q with %q, %v; want %q with %q", tt.driver, tt.query, s.text, s.params, err, tt.text, tt.params)
		}
	}
}

func TestParseStatementRefuses(t *testing.T) {
	for _, tt := range []struct {
		driver, query, problem string
	}{
		{driverPostgres, "", "is empty"},
		{driverPostgres, " ; ", "is empty"},
		{driverPostgres, "SELECT 1", "no parameter"},
		{driverPostgres, "SELECT ':user'", "no parameter"},
		{driverPostgres, "SELECT :usr", ":usr"},
		{driverPostgres, "SELECT :user1", ":user1"},
		{driverPostgres, "SELECT :password", ":password"},
		{driverPostgres, "SELECT :user; DELETE FROM u", "one statement"},
		{driverPostgres, "SELECT :user;;", "one statement"},
		{driverPostgres, "SELECT $1, :user", "by name"},
		{driverMySQL, "SELECT ?, :user", "by name"},
		{driverSQLite, "SELECT ?1, :user", "by name"},
		{driverSQLite, "SELECT @user, :user", "by name"},
		{driverSQLite, "SELECT $user, :user", "by name"},
		{driverPostgres, "SELECT :user, 'x", "without its end"},
		{driverPostgres, `SELECT :user, "x`, "without its end"},
		{driverMySQL, "SELECT :user, `x", "without its end"},
		{driverMySQL, `SELECT :user, 'x\'`, "without its end"},
		{driverSQLite, "SELECT :user, [x", `without its "]"`},
		{driverPostgres, "SELECT :user, $a$ $b$", "without its end"},
		{driverPostgres, "SELECT :user /* /* */", `without its "*/"`},
		{driverPostgres, "SELECT :user /*", `without its "*/"`},
		{driverPostgres, "SELECT :user; /*", `without its "*/"`},
		{driverMySQL, "SELECT :user /*! , :local */", "MySQL runs"},
		{driverMySQL, "SELECT :user /*M! , :local */", "MySQL runs"},
		{driverPostgres, "SELECT :user\x00", "zero byte"},
		{driverPostgres, strings.Repeat(":user ", 101), "more than 100"},
	} {
		s, err := parseStatement(tt.driver, tt.query, allParams...)
		if err == nil || !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("%s %q: got %q, %v; want an error with %q", tt.driver, tt.query, s.text, err, tt.problem)
		}
	}
}

func TestStatementVary(t *testing.T) {
	for query, want := range map[string]Vary{
		"SELECT :domain":               VaryUser,
		"SELECT :user, :client":        VaryUser | VaryClient,
		"SELECT :sni, :listener":       VaryUser | VarySNI | VaryListener,
		"SELECT :local, ':client' ":    VaryUser,
		"SELECT :user, :client, :sni ": VaryUser | VaryClient | VarySNI,
	} {
		s, err := parseStatement(driverPostgres, query, allParams...)
		if err != nil || s.vary() != want {
			t.Errorf("%q varies by %b, %v; want %b", query, s.vary(), err, want)
		}
	}
}

func TestStatementArgs(t *testing.T) {
	s, err := parseStatement(driverPostgres, "SELECT :user,:local,:domain,:sni,:client,:listener", allParams...)
	if err != nil {
		t.Fatal(err)
	}
	q := &auth.Query{Name: auth.Name{Typed: "A%b", Local: "A", Domain: "b"}}
	if got, want := s.args(q), []any{"A%b", "A", "b", "", nil, ""}; !slices.Equal(got, want) {
		t.Errorf("without a client: got %q, want %q", got, want)
	}
	q.Client = &auth.Client{Addr: netip.MustParseAddrPort("[fe80::1%eth0]:5"), Listener: "pop3s", TLS: &auth.TLS{ServerName: "mail.b"}}
	if got, want := s.args(q), []any{"A%b", "A", "b", "mail.b", "fe80::1", "pop3s"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzParseStatement looks for queries that crash the lexer, and holds what it lets pass to what must always be so: as many
// placeholders as parameters are added, and nothing else is changed.
func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{"SELECT :user", "SELECT E'\\':user' || $a$:user$a$::text, :local; -- x", "SELECT `a`, [b], \"c\", :sni /* /* */ */ # d"} {
		for d := range 3 {
			f.Add(d, s)
		}
	}
	f.Fuzz(func(t *testing.T, d int, query string) {
		driver := []string{driverPostgres, driverMySQL, driverSQLite}[uint(d)%3]
		s, err := parseStatement(driver, query, allParams...)
		if err != nil {
			return
		}
		want := len(strings.TrimSpace(query))
		for i, name := range s.params {
			placeholder := "?"
			if driver == driverPostgres {
				placeholder = fmt.Sprintf("$%d", i+1)
			}
			want += len(placeholder) - len(":"+name)
		}
		if !strings.Contains(query, ";") && len(s.text) != want {
			t.Fatalf("%q has become %q: %d bytes, want %d", query, s.text, len(s.text), want)
		}
		again, err := parseStatement(driver, query+"\n", allParams...)
		if err != nil || again.text != s.text {
			t.Fatalf("%q gives %q, and with a line's end %q, %v", query, s.text, again.text, err)
		}
	})
}
