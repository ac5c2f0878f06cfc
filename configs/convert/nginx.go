package convert

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Nginx converts the mail block of nginx's configuration: its servers for POP3 become listeners, its auth_http service a
// directory, so that it goes on working as it is.
func Nginx(files []string) ([]byte, error) {
	d := newDraft("nginx")
	n := &nginx{draft: d, dir: filepath.Dir(files[0]), services: map[string]string{}, listening: map[string]bool{}}
	r := &nginxReader{dir: n.dir}
	for _, name := range files {
		all, err := r.file(name)
		if err != nil {
			return nil, err
		}
		if all, err = r.expand(all, 0); err != nil {
			return nil, err
		}
		for _, mail := range all {
			if mail.name != "mail" || mail.block == nil {
				continue
			}
			if err := n.mail(mail, r); err != nil {
				return nil, err
			}
		}
	}
	if len(d.listeners) == 0 {
		return nil, fmt.Errorf("%s: there is no mail block with a server for POP3 in it", strings.Join(files, ", "))
	}
	if len(d.certificates) == 0 {
		d.todoOnce("tls: there is no certificate here; name files, or have them obtained (docs/certificates.md)")
	}
	return d.print(files)
}

type nginx struct {
	*draft
	dir       string
	services  map[string]string // the names of directories, by what they ask
	backends  map[string]bool
	listening map[string]bool
	names     names
	lowest    string // of the servers' TLS versions
}

// A scope is one server and the mail block around it.
type scope struct {
	server, mail []*directive
}

// all are the lines of one name that hold in the server: its own, else those around it.
func (s scope) all(name string) []*directive {
	for _, block := range [][]*directive{s.server, s.mail} {
		var found []*directive
		for _, d := range block {
			if d.name == name {
				found = append(found, d)
			}
		}
		if found != nil {
			return found
		}
	}
	return nil
}

// one is the line of a name that holds; nil where there is none.
func (s scope) one(name string) *directive {
	if found := s.all(name); found != nil {
		return found[len(found)-1]
	}
	return nil
}

func (s scope) value(name string) string {
	if d := s.one(name); d != nil {
		return d.arg(0)
	}
	return ""
}

func (n *nginx) mail(mail *directive, r *nginxReader) error {
	block, err := r.expand(mail.block, 0)
	if err != nil {
		return err
	}
	for _, d := range block {
		if d.name != "server" {
			n.explain(d)
			continue
		}
		server, err := r.expand(d.block, 0)
		if err != nil {
			return err
		}
		s := scope{server, block}
		if p := s.protocol(); p != "pop3" {
			n.left(d.place, "server for "+p, "popgate speaks POP3 only")
			continue
		}
		for _, inner := range server {
			n.explain(inner)
		}
		n.server(s)
	}
	return nil
}

// protocol is the server's own word for it, or what its ports suggest, as nginx has it.
func (s scope) protocol() string {
	if p := s.value("protocol"); p != "" {
		return p
	}
	for _, l := range s.all("listen") {
		switch _, port := splitListen(l.arg(0)); port {
		case "110", "995":
			return "pop3"
		case "143", "993":
			return "imap"
		case "25", "465", "587":
			return "smtp"
		}
	}
	return "an unknown protocol"
}

// splitListen takes an address of nginx's apart: "995", "*:995", "[::]:995", "mail.example.org:995".
func splitListen(s string) (host, port string) {
	if !strings.Contains(s, ":") {
		if _, err := strconv.Atoi(s); err == nil {
			return "", s
		}
		return s, ""
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return s, ""
	}
	if host == "*" || host == "::" || host == "0.0.0.0" {
		host = "" // popgate's ":995" is IPv4 and IPv6
	}
	return host, port
}

// server carries one server over.
func (n *nginx) server(s scope) {
	listeners := n.listen(s)
	n.certificates(s)
	n.clients(s, listeners)
	n.versions(s)
	if d := s.one("timeout"); d != nil {
		n.duration(d, n.timeouts, "client_login")
	}
	if d := s.one("proxy_timeout"); d != nil {
		n.duration(d, n.timeouts, "idle")
	}
	if d := s.one("max_errors"); d != nil {
		n.bounds["bad_commands"] = d.arg(0)
	}
	n.where(s, listeners)
}

// listen makes the server's listeners, and returns their names.
func (n *nginx) listen(s scope) []string {
	if n.names == nil {
		n.names = names{}
	}
	var made []string
	for _, l := range s.all("listen") {
		host, port := splitListen(l.arg(0))
		if strings.HasPrefix(l.arg(0), "unix:") || port == "" {
			n.left(l.place, l.String(), "popgate listens on TCP addresses with a port")
			continue
		}
		address := n.endpoint(host, port)
		if n.listening[address] {
			continue // the other of "995" and "[::]:995"
		}
		n.listening[address] = true
		tls, label := "starttls", "pop3"
		switch {
		case slices.Contains(l.args, "ssl") || s.value("ssl") == "on":
			tls, label = "implicit", "pop3s"
		case s.value("starttls") == "" || s.value("starttls") == "off":
			n.left(l.place, l.String(), "nobody can log in without TLS here: clients of this port have to use STLS")
		}
		name := n.names.next(label)
		made = append(made, name)
		m := fields("name", name, "address", address, "tls", tls, "default_name", hostname(s.value("server_name")))
		if slices.Contains(l.args, "proxy_protocol") {
			m.Content = append(m.Content, text("proxy_protocol_from"), n.balancers(s, l))
		}
		n.listeners = append(n.listeners, m)
	}
	return made
}

// hostname is a name that a certificate can have, or nothing.
func hostname(s string) string {
	if !strings.Contains(s, ".") || strings.ContainsAny(s, "*$~ ") {
		return ""
	}
	return s
}

// balancers are the networks that PROXY headers come from.
func (n *nginx) balancers(s scope, l *directive) *yaml.Node {
	var networks []string
	for _, d := range s.all("set_real_ip_from") {
		if _, err := netip.ParsePrefix(d.arg(0)); err == nil {
			networks = append(networks, d.arg(0))
		} else if _, err := netip.ParseAddr(d.arg(0)); err == nil {
			networks = append(networks, d.arg(0))
		} else {
			n.left(d.place, d.String(), "write the addresses into proxy_protocol_from")
		}
	}
	if networks == nil {
		n.left(l.place, l.String(), "nginx takes a PROXY header from anybody: put the addresses of your load balancers into proxy_protocol_from")
		networks = []string{"127.0.0.1"}
	}
	return texts(networks...)
}

func (n *nginx) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(n.dir, p)
}

func (n *nginx) certificates(s scope) {
	certs, keys := s.all("ssl_certificate"), s.all("ssl_certificate_key")
	for i, c := range certs {
		if strings.ContainsAny(c.arg(0), "$") || strings.HasPrefix(c.arg(0), "data:") || i >= len(keys) {
			n.left(c.place, c.String(), "popgate takes certificate and key from files")
			continue
		}
		if strings.HasPrefix(keys[i].arg(0), "engine:") || strings.HasPrefix(keys[i].arg(0), "store:") {
			n.left(keys[i].place, keys[i].String(), "popgate takes keys from files")
			continue
		}
		n.certificate(n.path(c.arg(0)), n.path(keys[i].arg(0)))
	}
}

// certificate adds a pair of files, once.
func (d *draft) certificate(cert, key string) {
	pair := flow(fields("cert", cert, "key", key))
	if !slices.ContainsFunc(d.certificates, func(n *yaml.Node) bool {
		return n.Content[1].Value == cert && n.Content[3].Value == key
	}) {
		d.certificates = append(d.certificates, pair)
	}
}

// clients carries the certificates of clients over.
func (n *nginx) clients(s scope, listeners []string) {
	d, ca := s.one("ssl_verify_client"), s.one("ssl_client_certificate")
	if d == nil || d.arg(0) == "off" {
		return
	}
	mode := map[string]string{"on": "require", "optional": "request"}[d.arg(0)]
	switch {
	case mode == "" || ca == nil:
		n.left(d.place, d.String(), "a client's certificate must be vouched for by a CA of ssl_client_certificate")
	case n.clientCA != nil:
		n.left(d.place, d.String(), "popgate has one section tls.client_ca: add these listeners there, if the CA is the same")
	default:
		n.clientCA = fields("file", n.path(ca.arg(0)), "mode", mode, "listeners", texts(listeners...))
	}
}

// versions carries ssl_protocols over: the lowest of all servers counts, and 1.2 is popgate's default.
func (n *nginx) versions(s scope) {
	version := "1.2"
	if d := s.one("ssl_protocols"); d != nil {
		if !slices.Contains(d.args, "TLSv1.2") && slices.Contains(d.args, "TLSv1.3") {
			version = "1.3"
		}
		for _, old := range []string{"SSLv2", "SSLv3", "TLSv1", "TLSv1.1"} {
			if slices.Contains(d.args, old) {
				n.left(d.place, d.String(), "popgate speaks TLS 1.2 and 1.3")
				break
			}
		}
		if n.lowest != "" && n.lowest != version {
			n.left(d.place, d.String(), "popgate has one tls.min_version for all listeners: the lowest was taken")
		}
	}
	if n.lowest == "" || version < n.lowest {
		n.lowest = version
	}
	n.minVersion = ""
	if n.lowest != "1.2" {
		n.minVersion = n.lowest
	}
}

// where carries auth_http over: a directory, a backend that speaks as nginx does, and a route.
func (n *nginx) where(s scope, listeners []string) {
	d := s.one("auth_http")
	if d == nil || len(listeners) == 0 {
		return
	}
	to, ok := n.service(d)
	if !ok {
		return
	}
	proxied := s.value("proxy_protocol") == "on"
	name := n.directory(s, d, to)
	backend := "mail"
	info := ""
	if proxied {
		backend, info = "mail-proxy", "proxy_v1"
	}
	if n.backends == nil {
		n.backends = map[string]bool{}
	}
	if !n.backends[backend] {
		n.backends[backend] = true
		b := fields("name", backend, "directory_servers", truth(true), "client_info", info)
		n.draft.backends = append(n.draft.backends, commented(b, "no servers of its own: the service names one for each user"))
	}
	n.routes = append(n.routes, flow(fields("listeners", texts(listeners...), "directory", name, "backend", backend)))
}

// service is the address of an auth_http line as popgate wants it.
func (n *nginx) service(d *directive) (string, bool) {
	to := d.arg(0)
	switch {
	case to == "off" || to == "":
		n.left(d.place, d.String(), "without a service, write where users go into routes")
		return "", false
	case strings.HasPrefix(to, "unix:"):
		return to, true
	case strings.HasPrefix(to, "http://unix:"):
		return strings.TrimPrefix(to, "http://"), true
	case !strings.Contains(to, "://"):
		to = "http://" + to
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" {
		n.left(d.place, d.String(), "is no address of a service")
		return "", false
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u.String(), true
}

// directory is the name of the directory that asks the service of this server as nginx did.
func (n *nginx) directory(s scope, d *directive, to string) string {
	h := fields("url", to)
	if u, err := url.Parse(to); err == nil && u.Scheme == "http" {
		if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsLoopback() {
			h.Content = append(h.Content, text("insecure"), commented(word("true"), "the service is asked without TLS: whoever sees that network sees passwords"))
			n.todoOnce("auth_http: passwords go to " + u.Host + " in clear, as with nginx: better give the service TLS, and write https://")
		}
	}
	var headers []*yaml.Node
	for _, line := range s.all("auth_http_header") {
		if strings.Contains(line.arg(1), "$") {
			n.left(line.place, line.String(), "popgate has no variables")
			continue
		}
		headers = append(headers, flow(fields("name", line.arg(0), "value", text(line.arg(1)))))
	}
	if l := list(headers); l != nil {
		h.Content = append(h.Content, text("headers"), l)
	}
	timeout := time.Minute // nginx's own
	if t := s.one("auth_http_timeout"); t != nil {
		if v, ok := nginxTime(t.arg(0)); ok {
			timeout = v
		}
	}
	key, _ := yaml.Marshal(h) // it is what makes two services different
	if name, ok := n.services[string(key)+timeout.String()]; ok {
		return name
	}
	name := n.names.next("auth_http")
	n.services[string(key)+timeout.String()] = name
	n.directories = append(n.directories, fields(
		"name", name, "type", "http", "timeout", word(short(timeout)),
		"allowed_servers", privateNetworks(n.draft, "nginx goes wherever the service says;"), "http", h))
	return name
}
