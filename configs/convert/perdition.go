package convert

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Perdition converts configurations of Perdition, one for each instance that runs: each becomes listeners and a route, its map a
// directory, its outgoing servers a backend.
func Perdition(files []string) ([]byte, error) {
	d := newDraft("perdition")
	given := names{}
	listening := map[string]bool{}
	for _, name := range files {
		data, err := readFile(name)
		if err != nil {
			return nil, err
		}
		options, err := perditionOptions(name, string(data))
		if err != nil {
			return nil, err
		}
		p := &perdition{draft: d, file: name, options: map[string]option{}, given: given, listening: listening}
		for _, o := range options {
			if long, ok := perditionShort[o.name]; ok {
				o.name = long
			}
			p.options[o.name] = o
		}
		p.instance(options)
	}
	if len(d.listeners) == 0 {
		return nil, fmt.Errorf("%s: there is no Perdition for POP3 in it", strings.Join(files, ", "))
	}
	return d.print(files)
}

// A perdition is one instance.
type perdition struct {
	*draft
	file      string
	options   map[string]option
	given     names
	listening map[string]bool
}

func (p *perdition) value(name, otherwise string) string {
	if o, ok := p.options[name]; ok && o.value != "" {
		return o.value
	}
	return otherwise
}

// has says that a switch is on.
func (p *perdition) has(name string) bool {
	_, ok := p.options[name]
	return ok
}

// modes are the ssl_mode words in force.
func (p *perdition) mode(words ...string) bool {
	for _, m := range strings.Split(p.value("ssl_mode", ""), ",") {
		if slices.Contains(words, strings.TrimSpace(m)) {
			return true
		}
	}
	return false
}

func (p *perdition) instance(options []option) {
	protocol := strings.ToUpper(p.value("protocol", "POP3"))
	if protocol != "POP3" && protocol != "POP3S" {
		p.left(p.options["protocol"].place, "protocol "+protocol, "popgate speaks POP3 only: nothing of this file is carried over")
		return
	}
	if !p.has("protocol") {
		p.todoOnce(p.file + " names no protocol: this is for its POP3; where it runs as perdition.pop3s too (/etc/default/perdition), import a copy with the line \"protocol POP3S\" along with it")
	}
	for _, o := range options {
		p.explain(o)
	}
	listeners := p.listen(protocol)
	if len(listeners) == 0 {
		return
	}
	p.tls()
	if o, ok := p.options["timeout"]; ok {
		p.number(o, func(n int) { p.timeouts["idle"] = seconds(n) })
	}
	if o, ok := p.options["authenticate_timeout"]; ok {
		p.number(o, func(n int) { p.timeouts["client_login"] = seconds(n) })
	}
	if o, ok := p.options["connection_limit"]; ok {
		p.number(o, func(n int) { p.limits["sessions"] = strconv.Itoa(n) })
	}
	p.route(listeners, protocol)
}

// number calls set with the number of an option, unless it is 0, which means no limit.
func (p *perdition) number(o option, set func(int)) {
	n, err := strconv.Atoi(o.value)
	switch {
	case err != nil || n < 0 || n > 1<<30:
		p.left(o.place, o.String(), "is no number")
	case n == 0:
		p.left(o.place, o.String(), "popgate's default holds instead of none")
	default:
		set(n)
	}
}

// listen makes the listeners of the instance, and returns their names.
func (p *perdition) listen(protocol string) []string {
	tls, label, port := "starttls", "pop3", "110"
	switch {
	case protocol == "POP3S" || p.mode("ssl_listen", "ssl_all"):
		tls, label = "implicit", "pop3s"
		if protocol == "POP3S" {
			port = "995"
		}
	case !p.mode("tls_listen", "tls_all", "tls_listen_force", "tls_all_force"):
		p.left(place{p.file, 1}, "no ssl_mode for clients", "nobody can log in without TLS: clients of this port have to use STLS")
	}
	port = portNumber(p.value("listen_port", port))
	separators := ""
	if delimiter := p.value("domain_delimiter", "@"); delimiter != "@" && len(delimiter) == 1 {
		separators = delimiter
	}
	var made []string
	for _, address := range strings.Split(p.value("bind_address", ":"+port), ",") {
		host, own := splitServer(strings.TrimSpace(address), port)
		address = p.endpoint(host, own)
		if p.listening[address] {
			p.left(place{p.file, 1}, "listens on "+address, "another instance is there already: it was passed over")
			continue
		}
		p.listening[address] = true
		name := p.given.next(label)
		made = append(made, name)
		p.listeners = append(p.listeners, fields("name", name, "address", address, "tls", tls, "separators", separators))
	}
	return made
}

// portNumber is the number of a port that may be written as a service's name.
func portNumber(s string) string {
	if n, err := net.LookupPort("tcp", s); err == nil {
		return strconv.Itoa(n)
	}
	return s
}

// splitServer takes host[:port] apart.
func splitServer(s, port string) (host, own string) {
	if s == "" || strings.HasPrefix(s, ":") {
		return "", portNumber(or(strings.TrimPrefix(s, ":"), port))
	}
	if h, q, err := net.SplitHostPort(s); err == nil {
		return h, portNumber(or(q, port))
	}
	return strings.Trim(s, "[]"), port
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// tls carries the certificate over.
func (p *perdition) tls() {
	cert := p.value("ssl_cert_file", "/etc/perdition/perdition.crt.pem")
	p.certificate(cert, p.value("ssl_key_file", "/etc/perdition/perdition.key.pem"))
	if o, ok := p.options["ssl_listen_min_proto_version"]; ok {
		switch strings.ToLower(o.value) {
		case "tlsv1.3":
			p.minVersion = "1.3"
		case "tlsv1.2":
		default:
			p.left(o.place, o.String(), "popgate speaks TLS 1.2 and 1.3")
		}
	}
}

// route makes the directory, the backend and the route of the instance.
func (p *perdition) route(listeners []string, protocol string) {
	directory := p.directory()
	tls, port := p.outgoing(protocol, directory)
	var servers []*yaml.Node
	for _, s := range strings.Split(p.value("outgoing_server", ""), ",") {
		if s = strings.TrimSpace(s); s != "" {
			host, own := splitServer(s, port)
			servers = append(servers, flow(fields("address", net.JoinHostPort(host, own))))
		}
	}
	if len(servers) == 0 && directory == "" {
		p.todoOnce("backends: " + p.file + " names neither a map nor an outgoing_server: write the address of the mail server")
		servers = []*yaml.Node{flow(fields("address", "127.0.0.1:"+port))}
	}
	ca := ""
	if tls != "" {
		ca = p.value("ssl_ca_chain_file", p.value("ssl_ca_file", ""))
	}
	backend := p.given.next("mail")
	p.backends = append(p.backends, fields("name", backend, "servers", list(servers),
		"directory_servers", truth(len(servers) == 0), "tls", tls, "tls_ca", ca))
	all := texts(listeners...)
	username := ""
	if directory == "" && p.state("strip_domain", "remote_login") {
		username = "{local}"
	}
	if directory != "" {
		p.routes = append(p.routes, flow(fields("listeners", all, "directory", directory, "backend", backend)))
		if len(servers) == 0 {
			return // who is in no map has nowhere to go
		}
		// Perdition's outgoing servers are for those whom the map does not know.
		if p.state("strip_domain", "remote_login") {
			username = "{local}"
		}
	}
	p.routes = append(p.routes, flow(fields("listeners", all, "backend", backend, "username", username)))
}

// outgoing is how TLS starts towards servers, and the port of those without one.
func (p *perdition) outgoing(protocol, directory string) (tls, port string) {
	port, usual := "110", "110" // Perdition's, and what popgate takes for a host that a directory names
	if protocol == "POP3S" {
		port = "995" // whatever ssl_mode says
	}
	switch {
	case p.mode("ssl_outgoing", "ssl_all"), protocol == "POP3S" && !p.has("ssl_mode"):
		tls, usual = "implicit", "995"
	case p.mode("tls_outgoing", "tls_all", "tls_outgoing_force", "tls_all_force"):
		tls = "starttls"
	}
	port = portNumber(p.value("outgoing_port", port))
	if directory != "" && port != usual {
		p.todoOnce(fmt.Sprintf("%s: a host without a port is port %s for Perdition (outgoing_port) and %s for popgate: write the port into the map, as host:%[2]s",
			p.file, port, usual))
	}
	return tls, port
}

// state says that an option holds in a state.
func (p *perdition) state(name, state string) bool {
	words := strings.Split(p.value(name, ""), ",")
	return slices.Contains(words, state) || slices.Contains(words, "all")
}

// states are those of an option that popgate has too.
func (p *perdition) states(name string) *yaml.Node {
	var kept []string
	for _, s := range strings.Split(p.value(name, ""), ",") {
		switch s = strings.TrimSpace(s); s {
		case "servername_lookup", "remote_login", "all":
			kept = append(kept, s)
		}
	}
	return texts(kept...)
}

// directory makes the directory of the map, and returns its name; "" where there is none.
func (p *perdition) directory() string {
	library := p.options["map_library"]
	options := p.value("map_library_opt", "")
	kind := ""
	var section *yaml.Node
	switch lib := strings.ToLower(library.value); {
	case lib == "":
		return ""
	case strings.Contains(lib, "regex"):
		kind = "popmap_re"
		section = p.popmap(or(options, "/etc/perdition/popmap.re"))
	case strings.Contains(lib, "gdbm"), strings.Contains(lib, "bdb"):
		kind = "popmap"
		path := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(or(options, "/etc/perdition/popmap"), ".db"), ".gdbm"), ".bdb")
		p.todoOnce(path + " must be the text that the map was made of (makegdbm, makebdb): popgate reads that")
		section = p.popmap(path)
	case strings.Contains(lib, "mysql"), strings.Contains(lib, "postgresql"):
		kind = "sql"
		section = p.sql(options, strings.Contains(lib, "mysql"))
	case strings.Contains(lib, "ldap"):
		kind = "ldap"
		var err error
		if section, err = p.ldap(options); err != nil {
			p.left(p.options["map_library_opt"].place, p.options["map_library_opt"].String(), err.Error())
			return ""
		}
	default:
		p.left(library.place, library.String(), "popgate reads popmaps, SQL and LDAP (docs/directories.md), not this kind of map")
		return ""
	}
	name := p.given.next("users")
	p.directories = append(p.directories, fields("name", name, "type", kind,
		"allowed_servers", privateNetworks(p.draft, "Perdition goes wherever the map says;"), kind, section))
	return name
}

// perditionCarried are the options that are looked at, and those that are about nothing popgate has to be told.
var perditionCarried = map[string]bool{
	"protocol": true, "bind_address": true, "listen_port": true, "ssl_mode": true, "ssl_cert_file": true, "ssl_key_file": true,
	"ssl_ca_file": true, "ssl_ca_chain_file": true, "ssl_listen_min_proto_version": true, "timeout": true, "authenticate_timeout": true,
	"connection_limit": true, "map_library": true, "map_library_opt": true, "outgoing_server": true, "outgoing_port": true,
	"domain_delimiter": true, "query_key": true, "username_from_database": true, "strip_domain": true, "add_domain": true,
	"explicit_domain": true, "lower_case": true, "no_daemon": true, "no_lookup": true, "pid_file": true, "quiet": true, "debug": true,
	"imap_capability": true, "managesieve_capability": true, "group": true, "username": true, "ssl_dh_params_file": true,
	"ssl_cert_verify_depth": true,
}

var perditionReasons = map[string]string{
	"authenticate_in":             "popgate does not ask PAM: a directory can check passwords (verify)",
	"no_bind_banner":              "popgate's greeting names no host",
	"connection_logging":          "popgate logs nothing that clients say; the audit has each login",
	"connect_relog":               "the audit has a record at the end of each session",
	"client_server_specification": "users cannot choose a server: it would be any server",
	"log_facility":                "popgate logs to standard error, for systemd",
	"log_passwd":                  "popgate never writes a password down",
	"login_disabled":              "leave the listener out",
	"inetd_mode":                  "popgate runs by itself",
	"ok_line":                     "popgate has words of its own",
	"server_ok_line":              "popgate has words of its own",
	"server_resp_line":            "popgate has words of its own",
	"pop_capability":              "popgate asks the backends what they can do",
	"ssl_ca_path":                 "put the CAs into one file: tls_ca of the backend",
	"ssl_ca_accept_self_signed":   "name the server's certificate in tls_pin_sha256 of the backend",
	"ssl_cert_accept_self_signed": "name the server's certificate in tls_pin_sha256 of the backend",
	"ssl_cert_accept_expired":     "name the server's certificate in tls_pin_sha256 of the backend",
	"ssl_no_cert_verify":          "name the server's certificate in tls_pin_sha256 of the backend",
	"ssl_no_cn_verify":            "name the server in tls_server_name of the backend, or its certificate in tls_pin_sha256",
}

// explain notes an option that is not carried over.
func (p *perdition) explain(o option) {
	name := o.name
	if long, ok := perditionShort[name]; ok {
		name = long
	}
	if perditionCarried[name] {
		if strings.Contains(o.value, "local_authentication") {
			p.left(o.place, o.String(), "popgate does not ask PAM: local_authentication is left out")
		}
		if (name == "add_domain" || name == "strip_domain") && regexp.MustCompile(`,\s*[0-9]+\s*$`).MatchString(o.value) {
			p.left(o.place, o.String(), "look at add_domain_depth of the directory: depths are not carried over")
		}
		return
	}
	if why, ok := perditionReasons[name]; ok {
		p.left(o.place, o.String(), why)
		return
	}
	if strings.HasPrefix(name, "ssl_") {
		p.left(o.place, o.String(), "popgate has the TLS settings that are safe, and no choice")
		return
	}
	p.left(o.place, o.String(), "popgate knows no such thing")
}
