package directory

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"github.com/popgate/popgate/auth"
)

// timeForTwo is time for two servers, the first of which hangs.
const timeForTwo = 10 * time.Second

func goodLDAP(urls ...string) LDAPConfig {
	c := defaultLDAP()
	c.URLs, c.Base, c.Filter = urls, "dc=example,dc=org", "(mail={user})"
	return c
}

func TestLDAPConfigFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		urls   []string
		change func(*LDAPConfig)
		keys   string // "" for no fault
	}{
		{"ldaps", []string{"ldaps://ldap.example.org"}, func(*LDAPConfig) {}, ""},
		{"StartTLS", []string{"ldap://ldap.example.org"}, func(c *LDAPConfig) { c.StartTLS, c.TLSCA = true, "ca.pem" }, ""},
		{"this machine", []string{"ldap://127.0.0.1", "ldap://[::1]:1389/", "ldap://localhost", "ldapi:///run/slapd/ldapi"}, func(*LDAPConfig) {}, ""},
		{"insecure", []string{"ldap://10.0.0.1"}, func(c *LDAPConfig) { c.Insecure = true }, ""},
		{"all", []string{"ldaps://h"}, func(c *LDAPConfig) {
			c.BindDN, c.PasswordFile, c.DomainFilter, c.Attributes.Hash, c.Attributes.Backend = "cn=a", "p", "(dc={domain})", "userPassword", "1.2.3;lang-en"
		}, ""},
		{"none", nil, func(*LDAPConfig) {}, "urls"},
		{"plain", []string{"ldap://10.0.0.1"}, func(*LDAPConfig) {}, "urls[0]"},
		{"plain beside ldaps", []string{"ldaps://a", "ldap://b"}, func(*LDAPConfig) {}, "urls[1]"},
		{"not that machine", []string{"ldap://localhost.example.org"}, func(*LDAPConfig) {}, "urls[0]"},
		{"StartTLS twice", []string{"ldaps://a"}, func(c *LDAPConfig) { c.StartTLS = true }, "urls[0]"},
		{"StartTLS on a socket", []string{"ldapi:///a"}, func(c *LDAPConfig) { c.StartTLS = true }, "urls[0]"},
		{"no URL", []string{"ldap.example.org", "http://a", "ldap://", "ldapi://", "ldapi://a"}, func(*LDAPConfig) {}, "urls[0] urls[1] urls[2] urls[3] urls[4]"},
		{"more than a server", []string{"ldaps://a/dc=example", "ldaps://a?x", "ldaps://u:p@a"}, func(*LDAPConfig) {}, "urls[0] urls[1] urls[2]"},
		{"CA without TLS", []string{"ldap://127.0.0.1"}, func(c *LDAPConfig) { c.TLSCA = "ca.pem" }, "tls_ca"},
		{"no password", []string{"ldaps://a"}, func(c *LDAPConfig) { c.BindDN = "cn=a" }, "bind_dn"},
		{"no name", []string{"ldaps://a"}, func(c *LDAPConfig) { c.PasswordFile = "p" }, "bind_dn"},
		{"base", []string{"ldaps://a"}, func(c *LDAPConfig) { c.Base = "example.org" }, "base"},
		{"scope", []string{"ldaps://a"}, func(c *LDAPConfig) { c.Scope = "all" }, "scope"},
		{"no filter", []string{"ldaps://a"}, func(c *LDAPConfig) { c.Filter = "" }, "filter"},
		{"domain_filter of a user", []string{"ldaps://a"}, func(c *LDAPConfig) { c.DomainFilter = "(dc={user})" }, "domain_filter"},
		{"attribute", []string{"ldaps://a"}, func(c *LDAPConfig) { c.Attributes.User = "u id" }, "attributes.user"},
		{"port alone", []string{"ldaps://a"}, func(c *LDAPConfig) { c.Attributes.Port = "p" }, "attributes.port"},
		{"connections", []string{"ldaps://a"}, func(c *LDAPConfig) { c.MaxConnections = 0 }, "max_connections"},
		{"idle_time", []string{"ldaps://a"}, func(c *LDAPConfig) { c.IdleTime = -1 }, "idle_time"},
	} {
		c := goodLDAP(tt.urls...)
		tt.change(&c)
		var keys []string
		c.validate(func(key, problem string) { keys = append(keys, key) })
		if got := strings.Join(keys, " "); got != tt.keys {
			t.Errorf("%s: faults at %q, want at %q", tt.name, got, tt.keys)
		}
	}
}

func TestLDAPOpenFaults(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for problem, change := range map[string]func(*LDAPConfig){
		"password_file: open ": func(c *LDAPConfig) { c.BindDN, c.PasswordFile = "cn=a", none },
		"tls_ca: open ":        func(c *LDAPConfig) { c.TLSCA = none },
	} {
		c := goodLDAP("ldaps://a")
		change(&c)
		if _, err := newLDAP("test", c, nil); err == nil || !strings.HasPrefix(err.Error(), problem) {
			t.Errorf("got %v, want %q", err, problem)
		}
	}
}

// That a server which hangs is left when its time is over, and the next one is asked, needs no server.
func TestLDAPHangingServers(t *testing.T) {
	p := newFaultProxy(t, "tcp", "127.0.0.1:1")
	p.set(faultHang)
	c := goodLDAP("ldap://"+p.addr(), "ldap://localhost:"+p.port())
	c.StartTLS = true
	o, err := newLDAP("test", c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = o.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := o.Lookup(ctx, &auth.Query{Name: auth.Name{Typed: "a"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that the time is over", err)
	}
	if p.count() != 2 {
		t.Errorf("%d servers were tried, want both", p.count())
	}
}

func TestParseFilter(t *testing.T) {
	name := auth.Name{Typed: "a*b@c", Local: "a*b", Domain: "c"}
	for template, want := range map[string]string{
		"(mail={user})":                      `(mail=a\2ab@c)`,
		"(&(uid={local})(dc={domain}))":      `(&(uid=a\2ab)(dc=c))`,
		"(|(mail={user})(alias=x-{user}-*))": `(|(mail=a\2ab@c)(alias=x-a\2ab@c-*))`,
		"(cn:dn:2.4.6:={local})":             `(cn:dn:2.4.6:=a\2ab)`,
		"(a>={local})":                       `(a>=a\2ab)`,
	} {
		f, err := parseFilter(template, "user", "local", "domain")
		if err != nil || f.fill(name) != want {
			t.Errorf("%s: got %s, %v; want %s", template, f.fill(name), err, want)
		}
	}
	for template, problem := range map[string]string{
		"":                   "is empty",
		"(mail=x)":           "same for everybody",
		"(mail={name})":      "has {name",
		"(mail={user)":       "has {user)",
		"({user}=x)":         "where no value is",
		"({user})":           "where no value is",
		"(a=x)({user}=x)":    "where no value is",
		"{user}":             "where no value is",
		"(&{user}(a=b))":     "where no value is",
		`(mail=\{user})`:     "where no value is",
		`(mail=\2{user})`:    "no filter",
		"(mail={user}":       "no filter",
		"(mail={user}))":     "no filter",
		"(a=(b={user}))":     "no filter",
		"(mail={user})(a=b)": "no filter",
	} {
		if f, err := parseFilter(template, "user", "local", "domain"); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: got %v, %v; want an error with %q", template, f, err, problem)
		}
	}
}

// FuzzFilter puts any name into any filter: what the server gets must be the same filter with that value, and nothing else.
func FuzzFilter(f *testing.F) {
	for _, template := range []string{"(mail={user})", "(&(uid={local})(!(dc={domain})))", "(cn=*{user}*)", "(a:dn:={user})", `(a=\{user})`, "({user}=a)"} {
		for _, name := range []string{"a@b", "*", "a)(b=*", `\2a`, "\\", "\x00", "{user}", "\xff"} {
			f.Add(template, name)
		}
	}
	f.Fuzz(func(t *testing.T, template, name string) {
		tmpl, err := parseFilter(template, "user", "local", "domain")
		if err != nil {
			return
		}
		const plain = "qzxpopgate" // what no template has
		if strings.Contains(template, plain) {
			return
		}
		want, err := ldap.CompileFilter(tmpl.fill(auth.Name{Typed: plain, Local: plain, Domain: plain}))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ldap.CompileFilter(tmpl.fill(auth.Name{Typed: name, Local: name, Domain: name}))
		if err != nil {
			t.Fatalf("%q with %q: %v", template, name, err)
		}
		sameFilter(t, got, want, plain, name)
	})
}

// sameFilter says that got is want with name in place of plain, node by node.
func sameFilter(t *testing.T, got, want *ber.Packet, plain, name string) {
	if got.Identifier != want.Identifier || len(got.Children) != len(want.Children) {
		t.Fatalf("with %q the filter has another shape: %v, want %v", name, got.Identifier, want.Identifier)
	}
	if len(want.Children) == 0 {
		if g, w := got.Data.String(), strings.ReplaceAll(want.Data.String(), plain, name); g != w {
			t.Fatalf("with %q a value is %q, want %q", name, g, w)
		}
	}
	for i := range want.Children {
		sameFilter(t, got.Children[i], want.Children[i], plain, name)
	}
}

func TestLDAPServersInOrder(t *testing.T) {
	d := &ldapDialer{servers: []ldapServer{{url: "a"}, {url: "b"}, {url: "c"}}}
	order := func() string {
		var urls []string
		for _, s := range d.order() {
			urls = append(urls, s.url)
		}
		return strings.Join(urls, "")
	}
	for _, step := range []struct {
		server int
		until  time.Duration
		want   string
	}{{0, time.Hour, "bca"}, {1, time.Hour, "cab"}, {0, 0, "acb"}, {2, time.Hour, "abc"}, {1, -time.Hour, "abc"}} {
		d.mark(d.servers[step.server], time.Now().Add(step.until))
		if got := order(); got != step.want {
			t.Errorf("after %v: got %s", step, got)
		}
	}
	if got := slices.Collect(func(yield func(string) bool) { yield(d.servers[0].url) }); got[0] != "a" {
		t.Errorf("the servers themselves were put in order: %v", d.servers)
	}
}
