package convert

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// popmap is the section of a map in a file.
func (p *perdition) popmap(path string) *yaml.Node {
	var keys []string
	for _, k := range strings.Split(p.value("query_key", ""), ",") {
		if k = strings.TrimSpace(k); k != "" {
			keys = append(keys, k)
		}
	}
	return fields(
		"path", path, "query_key", texts(keys...), "domain_delimiter", p.value("domain_delimiter", ""),
		"username_from_database", truth(p.has("username_from_database")),
		"strip_domain", p.states("strip_domain"), "add_domain", p.states("add_domain"),
		"explicit_domain", p.value("explicit_domain", ""), "lower_case", p.states("lower_case"),
	)
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// sql is the section of a map in a database: "host:port:db:table:user:password:servercol:usercol:portcol", each with the default that
// perditiondb(5) gives.
func (p *perdition) sql(options string, mysql bool) *yaml.Node {
	part := []string{"localhost", "", "dbPerdition", "tblPerdition", "perdition", "perdition", "servername", "user", "port"}
	for i, s := range strings.SplitN(options, ":", len(part)) {
		if s != "" {
			part[i] = s
		}
	}
	host, _, several := strings.Cut(part[0], ",")
	o := p.options["map_library_opt"]
	if several {
		p.left(o.place, "several database hosts", "popgate asks one: the first was taken")
	}
	for _, i := range []int{3, 6, 7, 8} {
		if !identifier.MatchString(part[i]) {
			p.left(o.place, part[i], "is no plain name of a table or column: write the query by hand")
			part[i] = "unknown"
		}
	}
	p.todoOnce("put the password of the database's user " + part[4] + " into /etc/popgate/sql-password, readable for popgate alone")
	p.todoOnce("the query takes " + part[6] + " for a plain host: names in front of a host (user@host), as a map may have them, need a column of their own")
	dsn := fmt.Sprintf("host=%s port=%s dbname=%s user=%s", host, or(part[1], "5432"), part[2], part[4])
	driver := "postgres"
	if mysql {
		driver = "mysql"
		dsn = fmt.Sprintf("%s@tcp(%s)/%s", part[4], net.JoinHostPort(host, or(part[1], "3306")), part[2])
	}
	who := ":user"
	if p.state("strip_domain", "servername_lookup") {
		who = ":local"
	}
	query := fmt.Sprintf("SELECT %s AS host, %s AS port FROM %s WHERE %s = %s", part[6], part[8], part[3], part[7], who)
	return fields("driver", driver, "dsn", dsn, "password_file", "/etc/popgate/sql-password", "query", query)
}

// ldap is the section of a map in LDAP: "[version:]ldap://host/base?user,server,port?scope?filter".
func (p *perdition) ldap(options string) (*yaml.Node, error) {
	if v, rest, ok := strings.Cut(options, ":"); ok && len(v) == 1 && strings.HasPrefix(rest, "ldap") {
		options = rest
	}
	address, query, _ := strings.Cut(options, "?")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, errors.New("is no LDAP address with a host")
	}
	part := append(strings.Split(query, "?"), "", "", "", "")
	attributes := append(strings.Split(part[0], ","), "", "", "")
	base := strings.TrimPrefix(u.Path, "/")
	if decoded, err := url.PathUnescape(base); err == nil {
		base = decoded
	}
	user := ""
	if p.has("username_from_database") {
		user = or(attributes[0], "username")
	}
	found := fields("host", or(attributes[1], "mailhost"), "port", attributes[2], "user", user)
	filter := strings.ReplaceAll(or(part[2], "(uid=%s)"), "%s", "{user}")
	if p.state("strip_domain", "servername_lookup") {
		filter = strings.ReplaceAll(filter, "{user}", "{local}")
	}
	var insecure *yaml.Node
	if u.Scheme == "ldap" {
		insecure = commented(word("true"), "as Perdition did; better: ldaps:// or start_tls: true")
		p.todoOnce("ldap: " + u.Host + " is asked without TLS, as Perdition did: whoever sees that network can send users to a server of their own")
	}
	return fields("urls", texts(u.Scheme+"://"+u.Host), "insecure", insecure, "base", base, "scope", part[1], "filter", filter, "attributes", flow(found)), nil
}
