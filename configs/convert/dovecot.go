package convert

import (
	"fmt"
	"net"
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
