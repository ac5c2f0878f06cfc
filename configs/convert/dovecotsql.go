package convert

import (
	"errors"
	"net"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// sql makes a directory of a passdb that asks a database.
func (c *dovecot) sql(s *section) error {
	driver, connect, query := "", "", s.value("query")
	at := s.place
	if args := s.value("args"); args != "" { // 2.3: a file with everything in it
		file := &section{}
		if err := (&dovecotReader{}).file(args, file, 0); err != nil {
			return err
		}
		x, _ := file.find("password_query")
		driver, connect, query, at = file.value("driver"), file.value("connect"), x.value, x.place
	}
	if query == "" {
		return errors.New("has no query: write a directory of type sql (docs/directories.md)")
	}
	sel, err := c.query(query, at)
	if err != nil {
		return err
	}
	var m *yaml.Node
	switch driver {
	case "pgsql":
		dsn, user := c.connect(connect, at)
		c.todoOnce("put the password of the database's user " + user + " into /etc/popgate/sql-password, readable for popgate alone")
		m = fields("driver", "postgres", "dsn", strings.Join(dsn, " "), "password_file", "/etc/popgate/sql-password")
	case "mysql":
		m = c.mysql(connect, at)
	case "sqlite":
		m = fields("driver", "sqlite", "dsn", strings.TrimPrefix(connect, "path="))
	default:
		c.todoOnce("directories: write driver and dsn of the database")
		m = fields("driver", "postgres", "dsn", "host=127.0.0.1 dbname=mail user=popgate", "password_file", "/etc/popgate/sql-password")
	}
	m.Content = append(m.Content, text("query"), text(sel))
	c.directory("sql", m)
	return nil
}

// connect takes a connect line of a database apart, without the password and what is Dovecot's own.
func (c *dovecot) connect(line string, at place) (kept []string, user string) {
	for _, word := range strings.Fields(line) {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case key == "password", key == "maxconns":
		case key == "host" && slices.ContainsFunc(kept, func(k string) bool { return strings.HasPrefix(k, "host=") }):
			c.left(at, word, "popgate asks one database: the first was taken")
		default:
			kept = append(kept, word)
		}
		if key == "user" {
			user = value
		}
	}
	return kept, user
}

func (c *dovecot) mysql(line string, at place) *yaml.Node {
	kept, user := c.connect(line, at)
	value := map[string]string{"host": "127.0.0.1", "port": "3306"}
	for _, word := range kept {
		k, v, _ := strings.Cut(word, "=")
		value[k] = v
	}
	address := "tcp(" + net.JoinHostPort(value["host"], value["port"]) + ")"
	if strings.HasPrefix(value["host"], "/") {
		address = "unix(" + value["host"] + ")"
	}
	c.todoOnce("put the password of the database's user " + user + " into /etc/popgate/sql-password, readable for popgate alone")
	return fields("driver", "mysql", "dsn", user+"@"+address+"/"+value["dbname"], "password_file", "/etc/popgate/sql-password", "tls_ca", value["ssl_ca"])
}

// columns are the answers of a password_query by Dovecot's names, and what popgate calls them. Those that are empty need not be said.
var columns = map[string]string{
	"host": "host", "port": "port", "destuser": "user", "pass": "password", "password": "hash", "master": "master", "nologin": "disabled",
	"allow_nets": "allow_nets", "proxy": "", "proxy_maybe": "", "nopassword": "", "user": "", "username": "", "domain": "",
}

// query is a password_query with popgate's parameters and columns.
func (c *dovecot) query(q string, at place) (string, error) {
	lower := strings.ToLower(q)
	from := strings.Index(lower, " from ")
	if !strings.HasPrefix(lower, "select ") || from < 0 {
		return "", errors.New("its query is not SELECT … FROM …: write it by hand (docs/directories.md)")
	}
	var kept []string
	for _, item := range splitColumns(q[len("select "):from]) {
		expr, name := columnName(item)
		to, known := columns[strings.ToLower(name)]
		switch {
		case known && to != "":
			kept = append(kept, expr+" AS "+to)
		case !known && !strings.HasPrefix(strings.ToLower(name), "userdb_"):
			c.left(at, item, "popgate has no such column")
		}
	}
	if len(kept) == 0 {
		return "", errors.New("its query has no column about proxying: write it by hand (docs/directories.md)")
	}
	rest := q[from+1:]
	for _, v := range []struct{ from, to string }{
		{"'%Lu'", ":user"}, {"'%u'", ":user"}, {"'%{user}'", ":user"}, {"'%Ln'", ":local"}, {"'%n'", ":local"}, {"'%{user | username}'", ":local"},
		{"'%Ld'", ":domain"}, {"'%d'", ":domain"}, {"'%{user | domain}'", ":domain"}, {"'%r'", ":client"}, {"'%{rip}'", ":client"},
	} {
		rest = strings.ReplaceAll(rest, v.from, v.to)
		for i := range kept {
			kept[i] = strings.ReplaceAll(kept[i], v.from, v.to)
		}
	}
	q = "SELECT " + strings.Join(kept, ", ") + " " + rest
	if strings.Contains(q, "%") {
		c.left(at, "a variable in the query", "popgate has :user, :local, :domain, :client, :sni and :listener: put them in the place of %…")
		c.todoOnce("directories: the query still has variables of Dovecot's")
	}
	return q, nil
}

// splitColumns parts a list of columns at the commas that are in no brackets and no quotes.
func splitColumns(s string) []string {
	var all []string
	depth, begin := 0, 0
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"' || c == '`':
			quote = c
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			all = append(all, strings.TrimSpace(s[begin:i]))
			begin = i + 1
		}
	}
	return append(all, strings.TrimSpace(s[begin:]))
}

// columnName is what a column is called: behind AS, or the last part of a plain one.
func columnName(item string) (expr, name string) {
	if i := strings.LastIndex(strings.ToLower(item), " as "); i >= 0 {
		return strings.TrimSpace(item[:i]), strings.Trim(strings.TrimSpace(item[i+4:]), "\"`")
	}
	name = item
	if i := strings.LastIndex(item, "."); i >= 0 {
		name = item[i+1:]
	}
	return item, strings.Trim(name, "\"`")
}
