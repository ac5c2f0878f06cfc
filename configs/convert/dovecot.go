package convert

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Dovecot converts the configuration of a Dovecot that proxies POP3: its listeners, certificates and the passdbs that say where
// users go. It reads the forms of Dovecot 2.3 and 2.4, and what `doveconf -n` prints.
func Dovecot(files []string) ([]byte, error) {
	c := &dovecot{draft: newDraft("dovecot"), names: names{}}
	root := &section{}
	r := dovecotReader{}
	for _, name := range files {
		if err := r.file(name, root, 0); err != nil {
			return nil, err
		}
	}
	protocols := root.value("protocols")
	if protocols != "" && !slices.Contains(strings.Fields(protocols), "pop3") {
		return nil, fmt.Errorf("%s: protocols = %s: there is no pop3 in it", strings.Join(files, ", "), protocols)
	}
	c.root(root)
	return c.print(files)
}

// A section is a block of Dovecot's: settings and blocks, in their order.
type section struct {
	place
	kind, name string // passdb passwd-file, service pop3-login
	settings   []setting
	sections   []*section
}

type setting struct {
	place
	key, value string
}

func (s setting) String() string { return s.key + " = " + s.value }

// find is the last setting of a key: that is the one in force.
func (s *section) find(key string) (setting, bool) {
	for _, x := range slices.Backward(s.settings) {
		if x.key == key {
			return x, true
		}
	}
	return setting{}, false
}

func (s *section) value(key string) string {
	x, _ := s.find(key)
	return x.value
}

// all are the blocks of a kind.
func (s *section) all(kind string) []*section {
	var found []*section
	for _, x := range s.sections {
		if x.kind == kind {
			found = append(found, x)
		}
	}
	return found
}

// A dovecotReader reads files, and counts them.
type dovecotReader struct{ files int }

// file reads a file into a section.
func (r *dovecotReader) file(name string, into *section, depth int) error {
	if r.files++; r.files > maxFiles || depth > maxDepth {
		return fmt.Errorf("%s: too many files are included", name)
	}
	data, err := readFile(name)
	if err != nil {
		return err
	}
	stack := []*section{into}
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		at := place{name, i + 1}
		line := dovecotLine(lines[i])
		for strings.HasSuffix(line, `\`) && i+1 < len(lines) {
			i++
			line = strings.TrimSpace(strings.TrimSuffix(line, `\`)) + " " + dovecotLine(lines[i])
		}
		top := stack[len(stack)-1]
		switch {
		case line == "":
		case line == "}":
			if len(stack) == 1 {
				return fmt.Errorf("%s: a } that closes nothing", at)
			}
			stack = stack[:len(stack)-1]
		case strings.HasPrefix(line, "!include"):
			if err := r.include(line, at, top, depth); err != nil {
				return err
			}
		case strings.HasSuffix(line, "{"):
			words := strings.Fields(strings.TrimSuffix(line, "{"))
			if len(words) == 0 || len(stack) > maxDepth {
				return fmt.Errorf("%s: a block without a name", at)
			}
			inner := &section{place: at, kind: words[0], name: strings.Trim(strings.Join(words[1:], " "), `"`)}
			top.sections = append(top.sections, inner)
			stack = append(stack, inner)
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				return fmt.Errorf("%s: %q is neither a setting nor a block", at, printable(line))
			}
			top.settings = append(top.settings, setting{at, strings.TrimSpace(key), unquote(strings.TrimSpace(value))})
		}
	}
	if len(stack) > 1 {
		return fmt.Errorf("%s: the block %s has no end: a } is missing", stack[len(stack)-1].place, stack[len(stack)-1].kind)
	}
	return nil
}

// dovecotLine is a line without its comment and the blanks around it. A "#" begins a comment at the start of a line or behind a
// blank, outside quotes.
func dovecotLine(line string) string {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '"':
			quoted = !quoted
		case '#':
			if !quoted && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
				return strings.TrimSpace(line[:i])
			}
		}
	}
	return strings.TrimSpace(line)
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// include reads what an !include line names.
func (r *dovecotReader) include(line string, at place, into *section, depth int) error {
	words := strings.Fields(line)
	if len(words) != 2 {
		return fmt.Errorf("%s: %s names no file", at, words[0])
	}
	pattern := words[1]
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(at.file), pattern)
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 && words[0] == "!include" && !strings.ContainsAny(pattern, "*?[") {
		return fmt.Errorf("%s: !include %s: there is no such file", at, words[1])
	}
	for _, name := range files {
		if err := r.file(name, into, depth+1); err != nil {
			return err
		}
	}
	return nil
}

type dovecot struct {
	*draft
	names  names
	domain string // auth_default_realm
}

func (c *dovecot) root(root *section) {
	c.domain = root.value("auth_default_realm")
	c.listen(root)
	c.certificates(root)
	for _, x := range root.settings {
		c.setting(root, x)
	}
	for _, inner := range root.sections {
		switch inner.kind {
		case "passdb":
			c.passdb(inner)
		case "local_name":
			c.certificates(inner)
		case "service", "userdb", "namespace", "plugin", "dict", "mailbox", "auth_policy":
		case "protocol":
			if inner.name == "pop3" {
				for _, x := range inner.settings {
					c.setting(inner, x)
				}
			}
		case "local", "remote":
			c.left(inner.place, inner.kind+" "+inner.name, "settings by address: write listeners or routes (from) for them")
		default:
			c.left(inner.place, strings.TrimSpace(inner.kind+" "+inner.name), "popgate knows no such thing")
		}
	}
	if len(c.routes) == 0 {
		c.todoOnce("routes: there is no passdb here that proxies: write where users go")
		c.backends = append(c.backends, fields("name", "mail", "servers", list([]*yaml.Node{flow(fields("address", "127.0.0.1:110"))})))
		c.routes = append(c.routes, flow(fields("backend", "mail")))
	}
	if len(c.draft.certificates) == 0 {
		c.todoOnce("tls: there is no certificate here; name files, or have them obtained (docs/certificates.md)")
	}
}

// listen makes listeners of service pop3-login.
func (c *dovecot) listen(root *section) {
	ports := map[string]*section{"pop3": {kind: "inet_listener", name: "pop3"}, "pop3s": {kind: "inet_listener", name: "pop3s"}}
	order := []string{"pop3", "pop3s"}
	for _, s := range root.all("service") {
		if s.name != "pop3-login" {
			continue
		}
		for _, l := range s.all("inet_listener") {
			if ports[l.name] == nil {
				order = append(order, l.name)
				ports[l.name] = &section{kind: l.kind, name: l.name}
			}
			// A block that is there again adds to the one before.
			ports[l.name].settings = append(ports[l.name].settings, l.settings...)
		}
	}
	for _, name := range order {
		l := ports[name]
		tls, port := "starttls", l.value("port")
		if l.name == "pop3s" || l.value("ssl") == "yes" {
			tls = "implicit"
		}
		if port == "" {
			port = map[string]string{"pop3": "110", "pop3s": "995"}[name]
		}
		if port == "0" || port == "" {
			continue // that is how a listener is turned off
		}
		for _, address := range c.addresses(or(l.value("address"), root.value("listen")), port) {
			m := fields("name", c.names.next(name), "address", address, "tls", tls, "default_domain", c.domain)
			if l.value("haproxy") == "yes" {
				m.Content = append(m.Content, text("proxy_protocol_from"), c.balancers(root))
			}
			c.listeners = append(c.listeners, m)
		}
	}
}

// addresses are those of a list of hosts, with a port. All hosts are one address: IPv4 and IPv6.
func (c *dovecot) addresses(hosts, port string) []string {
	all := ":" + port
	var found []string
	for _, host := range strings.Fields(strings.ReplaceAll(hosts, ",", " ")) {
		found = append(found, c.endpoint(strings.Trim(host, "[]"), port))
	}
	if found == nil || slices.Contains(found, all) {
		return []string{all}
	}
	return found
}

// balancers are the networks that PROXY headers come from.
func (c *dovecot) balancers(root *section) *yaml.Node {
	trusted := strings.Fields(strings.ReplaceAll(root.value("haproxy_trusted_networks"), ",", " "))
	if len(trusted) == 0 {
		trusted = []string{"127.0.0.1"}
		c.todoOnce("listeners: put the addresses of your load balancers into proxy_protocol_from")
	}
	return texts(trusted...)
}

// certificates carries the certificate of a block over. Dovecot 2.3 writes "<" before a file whose contents are meant.
func (c *dovecot) certificates(s *section) {
	for _, pair := range [][2]string{{"ssl_cert", "ssl_key"}, {"ssl_server_cert_file", "ssl_server_key_file"}, {"ssl_alt_cert", "ssl_alt_key"}} {
		cert, key := s.value(pair[0]), s.value(pair[1])
		if cert == "" {
			continue
		}
		if pair[0] == "ssl_cert" || pair[0] == "ssl_alt_cert" {
			if !strings.HasPrefix(cert, "<") || !strings.HasPrefix(key, "<") {
				x, _ := s.find(pair[0])
				why := "popgate takes certificate and key from files"
				if key == "" {
					why = "doveconf -n hides where " + pair[1] + " is: print it with doveconf -nP"
				}
				c.left(x.place, pair[0], why)
				continue
			}
		}
		c.certificate(strings.TrimSpace(strings.TrimPrefix(cert, "<")), strings.TrimSpace(strings.TrimPrefix(key, "<")))
	}
}

// dovecotReasons are why settings of the root are not carried over.
var dovecotReasons = map[string]string{
	"auth_mechanisms":             "popgate takes USER and PASS, AUTH PLAIN and AUTH LOGIN",
	"auth_username_format":        "popgate lowers the case of the domain, and asks with what username_format, query or filter say",
	"login_greeting":              "popgate's greeting names no host",
	"login_trusted_networks":      "popgate believes PROXY headers alone: proxy_protocol_from",
	"auth_policy_server_url":      "popgate does not ask a policy service here",
	"director_servers":            "popgate takes a user to the same server by itself (balance: hash)",
	"director_mail_servers":       "popgate takes a user to the same server by itself (balance: hash): write them as servers of a backend",
	"mail_max_userip_connections": "counts by user and address; popgate has limits.sessions_per_user and limits.sessions_per_ip",
	"disable_plaintext_auth":      "popgate takes no password without TLS",
	"auth_allow_cleartext":        "popgate takes no password without TLS",
	"ssl_cipher_list":             "popgate has the ciphers that are safe, and no choice",
	"ssl_cipher_suites":           "popgate has the ciphers that are safe, and no choice",
	"ssl_curve_list":              "popgate has the groups that are safe, X25519MLKEM768 among them",
	"ssl_alt_cert":                "", // certificates looks at it
}

// setting carries one setting over, or says why not. Those about mailboxes, indexes, logs and other protocols are passed over.
func (c *dovecot) setting(s *section, x setting) {
	switch x.key {
	case "ssl_min_protocol":
		switch x.value {
		case "TLSv1.3":
			c.minVersion = "1.3"
		case "TLSv1.2":
		default:
			c.left(x.place, x.String(), "popgate speaks TLS 1.2 and 1.3")
		}
	case "ssl":
		if x.value == "no" {
			c.left(x.place, x.String(), "popgate always speaks TLS with clients")
		}
	case "ssl_verify_client_cert", "ssl_request_client_cert", "auth_ssl_require_client_cert":
		ca := strings.TrimPrefix(s.value("ssl_ca")+s.value("ssl_server_ca_file"), "<")
		if x.value == "yes" && ca != "" {
			mode := "request"
			if s.value("auth_ssl_require_client_cert") == "yes" {
				mode = "require"
			}
			c.clientCA = fields("file", ca, "mode", mode)
		}
	case "auth_failure_delay":
		if d, ok := dovecotTime(x.value); ok {
			c.limits["failure_delay"] = short(d)
		}
	case "auth_master_user_separator":
		c.todoOnce("listeners: write forbidden: \"*" + strings.Trim(x.value, `*"`) + "\": popgate lets nobody log in as another, and the backend trusts its address")
	default:
		if why := dovecotReasons[x.key]; why != "" {
			c.left(x.place, x.String(), why)
		}
	}
}

// dovecotTime reads a time as Dovecot writes it: "2 secs", "1 min", "500ms", "2".
func dovecotTime(s string) (time.Duration, bool) {
	i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if i < 0 {
		i = len(s)
	}
	n, err := strconv.ParseInt(s[:i], 10, 32)
	if err != nil {
		return 0, false
	}
	for _, u := range []struct {
		prefix string
		d      time.Duration
	}{{"ms", time.Millisecond}, {"mil", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour}, {"", time.Second}} {
		if strings.HasPrefix(strings.TrimSpace(s[i:]), u.prefix) {
			return time.Duration(n) * u.d, true
		}
	}
	return 0, false
}

// passdb carries one passdb over.
func (c *dovecot) passdb(s *section) {
	driver := s.value("driver")
	if driver == "" {
		driver = s.name // 2.4: passdb sql { … }
	}
	if s.value("master") == "yes" {
		c.left(s.place, "passdb with master = yes", "popgate lets nobody log in as another")
		return
	}
	switch driver {
	case "static":
		c.static(s)
	case "passwd-file":
		c.passwdFile(s)
	case "sql":
		if err := c.sql(s); err != nil {
			c.left(s.place, "passdb sql", err.Error())
		}
	case "ldap":
		c.left(s.place, "passdb ldap", "write a directory of type ldap with these hosts, base and pass_filter (docs/directories.md)")
	default:
		c.left(s.place, "passdb "+driver, "popgate has no such directory; what it checked, backends check")
	}
}

// extras are the fields of a static passdb.
func (s *section) extras() map[string]string {
	found := map[string]string{}
	for _, word := range strings.Fields(s.value("args")) {
		key, value, _ := strings.Cut(word, "=")
		found[key] = value
	}
	for _, block := range append(s.all("fields"), s) {
		for _, x := range block.settings {
			if x.key != "args" && x.key != "driver" {
				found[strings.TrimPrefix(x.key, "fields_")] = x.value
			}
		}
	}
	return found
}

// static makes a backend and a route of a passdb that takes everybody to one place.
func (c *dovecot) static(s *section) {
	extra := s.extras()
	if extra["host"] == "" {
		c.left(s.place, "passdb static", "does not proxy: it has no host")
		return
	}
	tls, port := "", "110"
	switch {
	case extra["ssl"] != "" && extra["ssl"] != "no":
		tls, port = "implicit", "995"
	case extra["starttls"] != "" && extra["starttls"] != "no":
		tls = "starttls"
	}
	if extra["ssl"] == "any-cert" || extra["starttls"] == "any-cert" {
		c.todoOnce("backends: " + extra["host"] + " was taken with any certificate: name its CA in tls_ca, or the certificate in tls_pin_sha256")
	}
	for _, key := range []string{"pass", "master", "proxy_mech"} {
		if extra[key] != "" {
			c.left(s.place, key+" of passdb static", "logins in the name of others are what a directory can say (master, password)")
		}
	}
	name := c.names.next("mail")
	c.backends = append(c.backends, fields("name", name, "tls", tls, "client_info", xclient(),
		"servers", list([]*yaml.Node{flow(fields("address", net.JoinHostPort(extra["host"], or(extra["port"], port))))})))
	username := ""
	if to := extra["destuser"]; to != "" {
		username = template(to)
	}
	c.routes = append(c.routes, flow(fields("backend", name, "username", username)))
}

// template is a text of popgate's with what stands for Dovecot's variables.
func template(s string) string {
	for _, v := range []struct{ from, to string }{
		{"%Lu", "{user}"}, {"%u", "{user}"}, {"%{user}", "{user}"}, {"%Ln", "{local}"}, {"%n", "{local}"}, {"%{user | username}", "{local}"},
		{"%{user|username}", "{local}"}, {"%Ld", "{domain}"}, {"%d", "{domain}"}, {"%{user | domain}", "{domain}"}, {"%{user|domain}", "{domain}"},
	} {
		s = strings.ReplaceAll(s, v.from, v.to)
	}
	return s
}

// passwdFile makes a directory of a passwd-file.
func (c *dovecot) passwdFile(s *section) {
	path := s.value("passwd_file_path") // 2.4
	scheme, format := s.value("default_password_scheme"), s.value("auth_username_format")
	for _, word := range strings.Fields(s.value("args")) {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case !ok:
			path = word
		case key == "scheme":
			scheme = value
		case key == "username_format":
			format = value
		}
	}
	if strings.Contains(path, "%") || path == "" {
		c.left(s.place, "passdb passwd-file "+path, "a directory has one file: write one for each")
		return
	}
	if format != "" && format != "%u" && format != "%n" {
		c.left(s.place, "username_format = "+format, "popgate has %u and %n, and disregards case")
		format = map[bool]string{true: "%n", false: "%u"}[strings.Contains(format, "n")]
	}
	c.directory("passwd_file", fields("path", path, "default_scheme", scheme, "username_format", format))
}

// directory adds a directory that checks passwords, and the route that asks it.
func (c *dovecot) directory(kind string, section *yaml.Node) {
	name, backend := c.names.next("users"), c.names.next("mail")
	c.directories = append(c.directories, fields("name", name, "type", kind, "verify", truth(true),
		"allowed_servers", privateNetworks(c.draft, "Dovecot goes wherever the passdb says;"), kind, section))
	c.backends = append(c.backends, commented(fields("name", backend, "directory_servers", truth(true), "client_info", xclient()),
		"no servers of its own: the directory names one for each user"))
	c.routes = append(c.routes, flow(fields("directory", name, "backend", backend)))
}

// xclient is what a Dovecot that proxies does without being told.
func xclient() *yaml.Node {
	return commented(word("xclient"), "as Dovecot does; servers offer it to login_trusted_networks only")
}

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
	m := fields()
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
