package directory

import (
	"errors"
	"strings"
)

// quoted tells how long the string, quoted name or comment is that s begins with; 0 where it begins with none.
func (l *sqlLexer) quoted(s string) (int, error) {
	switch c := s[0]; {
	case c == '\'':
		return l.until(s, 0, c, l.driver == driverMySQL)
	case c == '"':
		return l.until(s, 0, c, l.driver == driverMySQL) // a string there, a name elsewhere
	case c == '`' && l.driver != driverPostgres:
		return l.until(s, 0, c, false)
	case c == '[' && l.driver == driverSQLite:
		if n := strings.IndexByte(s, ']'); n > 0 {
			return n + 1, nil
		}
		return 0, errors.New(`has a "[" without its "]"`)
	case sqlWord(c) || c == '$':
		if l.driver == driverPostgres {
			return l.postgresWord(s)
		}
		return 0, nil
	}
	return l.comment(s)
}

// postgresWord takes what is quoted in PostgreSQL's own ways: E'with \' escapes' and $tag$dollars$tag$. A name may have dollars
// inside, and then begins no such string.
func (l *sqlLexer) postgresWord(s string) (int, error) {
	if len(s) > 1 && (s[0] == 'e' || s[0] == 'E') && s[1] == '\'' {
		return l.until(s, 1, '\'', true)
	}
	if s[0] != '$' {
		if n := strings.IndexFunc(s, func(r rune) bool { return r < 0x80 && !sqlWord(byte(r)) && r != '$' }); n >= 0 {
			return n, nil
		}
		return len(s), nil
	}
	n := sqlWordLen(s[1:])
	if 1+n >= len(s) || s[1+n] != '$' || sqlDigit(s[1]) {
		return 0, nil
	}
	tag := s[:n+2]
	end := strings.Index(s[len(tag):], tag)
	if end < 0 {
		return 0, errors.New("has " + clip(tag) + " without its end")
	}
	return end + 2*len(tag), nil
}

// until finds the quote that ends what begins at start; a doubled one stands for itself.
func (l *sqlLexer) until(s string, start int, quote byte, backslash bool) (int, error) {
	for i := start + 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && backslash:
			i++
		case s[i] != quote:
		case i+1 < len(s) && s[i+1] == quote:
			i++
		default:
			return i + 1, nil
		}
	}
	return 0, errors.New("has a " + string(quote) + " without its end")
}

// comment tells how long the comment is that s begins with; 0 where it begins with none.
func (l *sqlLexer) comment(s string) (int, error) {
	switch {
	case strings.HasPrefix(s, "--") && (l.driver != driverMySQL || len(s) == 2 || sqlBlank(s[2])), // in MySQL, 5--3 is 8
		s[0] == '#' && l.driver == driverMySQL:
		if n := strings.IndexByte(s, '\n'); n >= 0 {
			return n + 1, nil
		}
		return len(s), nil
	case strings.HasPrefix(s, "/*"):
		return l.block(s)
	}
	return 0, nil
}

// block takes a comment in /* */, which PostgreSQL nests. MySQL runs what stands in those that begin with "!".
func (l *sqlLexer) block(s string) (int, error) {
	if l.driver == driverMySQL && (strings.HasPrefix(s, "/*!") || strings.HasPrefix(s, "/*M!")) {
		return 0, errors.New(`has a "/*!", which MySQL runs; write what is in it without the comment`)
	}
	depth := 1
	for i := 2; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			if l.driver == driverPostgres {
				depth++
				i++
			}
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1, nil
			}
		}
	}
	return 0, errors.New(`has a "/*" without its "*/"`)
}
