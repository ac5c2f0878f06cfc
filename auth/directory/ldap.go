package directory

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/popgate/popgate/auth/files"
)

// LDAPConfig is the section `ldap` of a directory.
type LDAPConfig struct {
	// The servers: "ldaps://host:636", "ldap://host:389" or "ldapi:///path/of/socket". They hold the same data; the first that
	// answers is asked.
	URLs []string `yaml:"urls"`
	// Whether to go over to TLS on connections to ldap:// servers, before anything else is said there.
	StartTLS bool `yaml:"start_tls"`
	// Speak to ldap:// servers on other machines without TLS, where everybody in between can read and change what is said, passwords
	// too. To this machine that needs no permission.
	Insecure bool `yaml:"insecure"`
	// A PEM file with the CAs to believe. Empty are those that the system believes.
	TLSCA string `yaml:"tls_ca"`
	// The name that the servers' certificates must carry. Empty is the host in the URL.
	TLSServerName string `yaml:"tls_server_name"`
	// Whom to log in as before searching. Empty searches without logging in.
	BindDN string `yaml:"bind_dn"`
	// A file with the password of `bind_dn`. It is read again for each new connection, so that the password can be changed without a restart.
	PasswordFile string `yaml:"password_file"`
	// The entry below which users are searched, such as "ou=people,dc=example,dc=org".
	Base string `yaml:"base"`
	// How far below: `sub` (everything), `one` (one level) or `base` (that entry alone).
	Scope string `yaml:"scope"`
	// What finds a user, such as "(&(objectClass=inetOrgPerson)(mail={user}))". {user} is the name as typed, {local} and {domain} are its
	// parts. Two entries that match are an error.
	Filter string `yaml:"filter"`
	// What finds a domain, with {domain} in it: an entry that matches means that there are users in it. Certificates for customers' own names
	// ask it. Empty means that this directory knows no domains by themselves.
	DomainFilter string `yaml:"domain_filter"`
	// Which attributes of the entry say what.
	Attributes LDAPAttributes `yaml:"attributes"`
	// Check the user's password by logging in to the LDAP server with it, as the entry that was found. Backends may then be logged in to by
	// a master user or a stored password.
	BindAsUser bool `yaml:"bind_as_user"`
	// How many connections there may be to search, and as many again with `bind_as_user`.
	MaxConnections int `yaml:"max_connections"`
	// How long a connection is kept that nobody uses. 0 keeps it.
	IdleTime time.Duration `yaml:"idle_time"`
}

// LDAPAttributes names the attribute that holds each part of the answer. What is not named, or an entry does not have, is left to the route.
type LDAPAttributes struct {
	// The name of a backend.
	Backend string `yaml:"backend"`
	// The server to go to, as host or host:port.
	Server string `yaml:"server"`
	// The server's host, where its port is apart.
	Host string `yaml:"host"`
	// The port beside `host`.
	Port string `yaml:"port"`
	// How TLS starts at the server: none, starttls or implicit.
	TLS string `yaml:"tls"`
	// The name that the backend is told.
	User string `yaml:"user"`
	// The password for the backend, where it is not the user's own.
	Password string `yaml:"password"`
	// The master user to log in as, with `password`.
	Master string `yaml:"master"`
	// The user's stored password, such as userPassword, for `verify: true`.
	Hash string `yaml:"hash"`
	// The tenant.
	Tenant string `yaml:"tenant"`
	// Whether the account is closed: TRUE or FALSE.
	Disabled string `yaml:"disabled"`
	// Whether the user is being moved to the backend in the route's `then`: TRUE or FALSE.
	Moving string `yaml:"moving"`
	// The networks that the user may log in from, one a value.
	AllowNets string `yaml:"allow_nets"`
}

// An ldapField is a part of the answer and the attribute that holds it.
type ldapField struct{ field, attribute string }

// named lists what has an attribute.
func (a LDAPAttributes) named() []ldapField {
	all := []ldapField{
		{"backend", a.Backend}, {"server", a.Server}, {"host", a.Host}, {"port", a.Port}, {"tls", a.TLS}, {"user", a.User}, {"password", a.Password},
		{"master", a.Master}, {"hash", a.Hash}, {"tenant", a.Tenant}, {"disabled", a.Disabled}, {"moving", a.Moving}, {"allow_nets", a.AllowNets},
	}
	return slices.DeleteFunc(all, func(f ldapField) bool { return f.attribute == "" })
}

// attributeName is an attribute's name or OID with its options, RFC 4512 section 2.5.
var attributeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*(;[A-Za-z0-9-]+)*$`)

// ldapScopes are the values of LDAPConfig.Scope.
var ldapScopes = map[string]int{"base": ldap.ScopeBaseObject, "one": ldap.ScopeSingleLevel, "sub": ldap.ScopeWholeSubtree}

// defaultLDAP is what holds where the section says nothing.
func defaultLDAP() LDAPConfig {
	return LDAPConfig{Scope: "sub", MaxConnections: 16, IdleTime: 5 * time.Minute}
}

// validate reports what is wrong with c by itself. It opens no file and asks nobody.
func (c LDAPConfig) validate(fault func(key, problem string)) {
	c.validateURLs(fault)
	if (c.BindDN == "") != (c.PasswordFile == "") {
		fault("bind_dn", "and password_file belong together; write both or neither")
	}
	if _, err := ldap.ParseDN(c.Base); err != nil {
		fault("base", `is no name of an entry; write one such as "ou=people,dc=example,dc=org"`)
	}
	if _, ok := ldapScopes[c.Scope]; !ok {
		fault("scope", fmt.Sprintf("is %q; write sub, one or base", clip(c.Scope)))
	}
	if _, err := parseFilter(c.Filter, "user", "local", "domain"); err != nil {
		fault("filter", err.Error())
	}
	if c.DomainFilter != "" {
		if _, err := parseFilter(c.DomainFilter, "domain"); err != nil {
			fault("domain_filter", err.Error())
		}
	}
	for _, f := range c.Attributes.named() {
		if !attributeName.MatchString(f.attribute) {
			fault("attributes."+f.field, fmt.Sprintf("is %q; write the name of an attribute, such as mailHost", clip(f.attribute)))
		}
	}
	if c.Attributes.Port != "" && c.Attributes.Host == "" {
		fault("attributes.port", "means nothing without attributes.host")
	}
	if c.MaxConnections < 1 || c.MaxConnections > maxConnections {
		fault("max_connections", fmt.Sprintf("is %d; write a number from 1 to %d", c.MaxConnections, maxConnections))
	}
	if c.IdleTime < 0 {
		fault("idle_time", "is negative; write a duration such as 5m, or 0 to keep connections")
	}
}

func (c LDAPConfig) validateURLs(fault func(key, problem string)) {
	if len(c.URLs) == 0 {
		fault("urls", `is empty; write the servers, such as ["ldaps://ldap.example.org"]`)
	}
	encrypted := false
	for i, written := range c.URLs {
		key := fmt.Sprintf("urls[%d]", i)
		s, err := parseLDAPURL(written)
		if err != nil {
			fault(key, err.Error())
			continue
		}
		encrypted = encrypted || s.tls || c.StartTLS
		if problem := c.urlProblem(s); problem != "" {
			fault(key, problem)
		}
	}
	if !encrypted && (c.TLSCA != "" || c.TLSServerName != "") {
		fault("tls_ca", "and tls_server_name mean nothing without TLS; write ldaps:// or start_tls: true")
	}
}

// urlProblem says what is wrong with speaking to a server as c says.
func (c LDAPConfig) urlProblem(s ldapServer) string {
	switch {
	case s.tls && c.StartTLS:
		return "has TLS from the start; write ldap:// or remove start_tls"
	case s.network == "unix" && c.StartTLS:
		return "is a socket on this machine; remove start_tls"
	case !s.tls && !c.StartTLS && !s.local && !c.Insecure:
		return "is another machine, and everybody in between could read and change what is said; write ldaps://, or start_tls: true, or insecure: true"
	}
	return ""
}

// An ldapServer is one URL.
type ldapServer struct {
	url           string
	network, addr string
	host          string
	tls           bool // from the start
	local         bool // nobody is in between
}

// parseLDAPURL reads what says where a server is; what RFC 4516 has behind that (base, filter) has keys of its own here.
func parseLDAPURL(s string) (ldapServer, error) {
	if path, ok := strings.CutPrefix(s, "ldapi://"); ok {
		path, err := url.PathUnescape(path)
		if err != nil || !strings.HasPrefix(path, "/") || path == "/" {
			return ldapServer{}, errors.New("names no socket; write ldapi:///path/of/socket")
		}
		return ldapServer{url: s, network: "unix", addr: path, local: true}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.Scheme != "ldap" && u.Scheme != "ldaps" {
		return ldapServer{}, errors.New("is no server; write ldaps://host, ldap://host or ldapi:///path/of/socket")
	}
	if u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return ldapServer{}, errors.New("says more than where the server is; write base, filter and bind_dn as keys of their own")
	}
	server := ldapServer{url: u.Scheme + "://" + u.Host, network: "tcp", host: u.Hostname(), tls: u.Scheme == "ldaps"}
	port := u.Port()
	if port == "" {
		port = map[bool]string{true: ldap.DefaultLdapsPort, false: ldap.DefaultLdapPort}[server.tls]
	}
	server.addr = net.JoinHostPort(server.host, port)
	server.local = thisMachine(server.host)
	return server, nil
}

// newLDAP makes the source of a section. It reads the files that the section names, and connects to nothing yet.
func newLDAP(_ string, c LDAPConfig, _ *slog.Logger) (Opened, error) {
	s := &ldapSource{base: c.Base, scope: ldapScopes[c.Scope], fields: c.Attributes.named(), hide: new(hider)}
	var err error
	if s.filter, err = parseFilter(c.Filter, "user", "local", "domain"); err != nil {
		return Opened{}, fmt.Errorf("filter %w", err)
	}
	search := &ldapDialer{bindDN: c.BindDN, passwordFile: c.PasswordFile, startTLS: c.StartTLS, hide: s.hide}
	for _, written := range c.URLs {
		server, err := parseLDAPURL(written)
		if err != nil {
			return Opened{}, fmt.Errorf("urls: %q %w", clip(written), err)
		}
		search.servers = append(search.servers, server)
	}
	search.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if c.TLSCA != "" {
		if search.tls.RootCAs, err = files.Roots(c.TLSCA); err != nil {
			return Opened{}, fmt.Errorf("tls_ca: %w", err)
		}
	}
	if _, err := search.password(); err != nil {
		return Opened{}, fmt.Errorf("password_file: %w", err)
	}
	s.search = newLDAPPool(search, c.MaxConnections, c.IdleTime)
	o := Opened{Source: s, Vary: VaryUser}
	if c.BindAsUser {
		verify := &ldapDialer{servers: search.servers, startTLS: search.startTLS, tls: search.tls, hide: s.hide}
		s.verify = newLDAPPool(verify, c.MaxConnections, c.IdleTime)
		o.Vary |= VarySecret
	}
	if c.DomainFilter != "" {
		domains, err := parseFilter(c.DomainFilter, "domain")
		if err != nil {
			return Opened{}, fmt.Errorf("domain_filter %w", err)
		}
		o.Source = ldapWithDomains{s, domains}
	}
	return o, nil
}
