package directory

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/popgate/popgate/auth"
)

// sqlParams are the parameters of a query, by name.
var sqlParams = map[string]Vary{
	"user":     VaryUser,
	"local":    VaryUser,
	"domain":   VaryUser,
	"sni":      VarySNI,
	"client":   VaryClient,
	"listener": VaryListener,
}

// A statement is a query as the database takes it: with a placeholder for each parameter.
type statement struct {
	text   string
	params []string // their names, in the order of the placeholders
}

// vary says what the answer depends on.
func (s statement) vary() Vary {
	v := VaryUser
	for _, name := range s.params {
		v |= sqlParams[name]
	}
	return v
}

// args are the values of the parameters. That the client is not known is NULL, for "" is no address.
func (s statement) args(q *auth.Query) []any {
	args := make([]any, 0, len(s.params))
	for _, name := range s.params {
		var value any
		switch name {
		case "user":
			value = q.Name.Typed
		case "local":
			value = q.Name.Local
		case "domain":
			value = q.Name.Domain
		case "sni":
			value = ""
			if q.Client != nil {
				value = q.Client.ServerName()
			}
		case "listener":
			value = ""
			if q.Client != nil {
				value = q.Client.Listener
			}
		case "client":
			if q.Client != nil && q.Client.Addr.IsValid() {
				value = q.Client.Addr.Addr().WithZone("").String()
			}
		}
		args = append(args, value)
	}
	return args
}

// parseStatement puts the driver's placeholders where the query has parameters: not in strings, quoted names and comments,
// which it reads as that database does. Each place gets a placeholder of its own, for PostgreSQL finds out the type of each.
func parseStatement(driver, query string, allowed ...string) (statement, error) {
	l := &sqlLexer{driver: driver, query: query, allowed: allowed}
	if err := l.run(); err != nil {
		return statement{}, err
	}
	s := statement{text: strings.TrimSpace(l.out.String()), params: l.params}
	switch {
	case s.text == "":
		return statement{}, errors.New("is empty; write a SELECT")
	case len(s.params) == 0:
		return statement{}, fmt.Errorf("has no parameter, so that it gives everybody the same answer; use %s", l.names())
	case len(s.params) > maxParams:
		return statement{}, fmt.Errorf("has %d parameters, and more than %d are not taken", len(s.params), maxParams)
	}
	return s, nil
}

// maxParams bounds the parameters of one query.
const maxParams = 100

// A sqlLexer walks over a query once. In pos is the next byte; what is before it is in out already.
type sqlLexer struct {
	driver  string
	query   string
	allowed []string
	pos     int
	out     strings.Builder
	params  []string
}

func (l *sqlLexer) run() error {
	if strings.ContainsRune(l.query, 0) {
		return errors.New("has a zero byte")
	}
	for l.pos < len(l.query) {
		if err := l.token(); err != nil {
			return err
		}
	}
	return nil
}

// token takes what comes next: something quoted, a comment, a parameter, a word or one other byte.
func (l *sqlLexer) token() error {
	rest := l.query[l.pos:]
	if n, err := l.quoted(rest); n > 0 || err != nil {
		l.take(n)
		return err
	}
	c := rest[0]
	switch {
	case sqlWord(c):
		l.take(sqlWordLen(rest))
	case c == ':':
		return l.colon(rest)
	case c == ';':
		return l.semicolon(rest)
	case c == '$' && l.driver != driverMySQL || c == '?' && l.driver != driverPostgres || c == '@' && l.driver == driverSQLite:
		return fmt.Errorf("has %q: write parameters by name, as %s", sqlExcerpt(rest), l.names())
	default:
		l.take(1)
	}
	return nil
}

// take moves n bytes to the output as they are.
func (l *sqlLexer) take(n int) {
	l.out.WriteString(l.query[l.pos : l.pos+n])
	l.pos += n
}

// colon takes a parameter, or what else begins with a colon: PostgreSQL's ::cast, MySQL's := .
func (l *sqlLexer) colon(rest string) error {
	if strings.HasPrefix(rest, "::") {
		l.take(2)
		return nil
	}
	n := sqlWordLen(rest[1:])
	if n == 0 || sqlDigit(rest[1]) {
		l.take(1)
		return nil
	}
	name := rest[1 : 1+n]
	if !slices.Contains(l.allowed, name) {
		return fmt.Errorf("has the parameter :%s, which there is not; use %s", clip(name), l.names())
	}
	l.params = append(l.params, name)
	l.pos += 1 + n
	if l.driver == driverPostgres {
		fmt.Fprintf(&l.out, "$%d", len(l.params))
	} else {
		l.out.WriteByte('?')
	}
	return nil
}

// semicolon ends the query: blanks and comments may follow, and are left out with it.
func (l *sqlLexer) semicolon(rest string) error {
	for i := 1; i < len(rest); {
		switch n, err := l.comment(rest[i:]); {
		case err != nil:
			return err
		case n > 0:
			i += n
		case sqlBlank(rest[i]):
			i++
		default:
			return fmt.Errorf("goes on behind its \";\" with %q: write one statement", sqlExcerpt(rest[i:]))
		}
	}
	l.pos = len(l.query)
	return nil
}

// names lists the parameters there are.
func (l *sqlLexer) names() string {
	return ":" + strings.Join(l.allowed, ", :")
}

func sqlExcerpt(s string) string {
	if len(s) > 20 {
		s = strings.ToValidUTF8(s[:20], "") + "…"
	}
	return s
}

func sqlBlank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
func sqlDigit(c byte) bool { return c >= '0' && c <= '9' }

// sqlWord tells the bytes of names, numbers and keywords; those above ASCII may be in names everywhere.
func sqlWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || sqlDigit(c) || c == '_' || c >= 0x80
}

func sqlWordLen(s string) int {
	n := 0
	for n < len(s) && sqlWord(s[n]) {
		n++
	}
	return n
}
