//go:build unix

package directory

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/peers"
)

func openTestLDAP(t testing.TB, c LDAPConfig) Opened {
	t.Helper()
	c.validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	o, err := newLDAP("test", c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// withSecret asks with a password.
func withSecret(name, password string) *auth.Query {
	q := sqlAsk(name)
	q.Secret = auth.NewSecret([]byte(password))
	return q
}

var fullEntry = Answer{Backend: "old", Server: "10.0.0.5:1110", User: "full", Tenant: "acme", Disabled: true,
	AllowNets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32")}}

func TestLDAP(t *testing.T) {
	s := newSlapd(t)
	plain, encrypted := newFaultProxy(t, "unix", s.socket), newTLSFaultProxy(t, "unix", s.socket, s.tls)
	socket := s.config("ldapi://" + s.socket)
	starttls := s.config("ldap://" + plain.addr())
	starttls.StartTLS, starttls.TLSCA = true, s.ca
	ldaps := s.config("ldaps://" + encrypted.addr())
	ldaps.TLSCA = s.ca
	for name, c := range map[string]LDAPConfig{"socket": socket, "plain": s.config("ldap://" + plain.addr()), "StartTLS": starttls, "ldaps": ldaps} {
		t.Run(name, func(t *testing.T) {
			a, err := openTestLDAP(t, c).Lookup(aMinute(t), sqlAsk("full@example.org"))
			if err != nil || !reflect.DeepEqual(a, fullEntry) {
				t.Errorf("got %v %v, %v; want %v", a, a.AllowNets, err, fullEntry)
			}
		})
	}
	t.Run("entries", func(t *testing.T) { ldapEntries(t, openTestLDAP(t, socket)) })
	t.Run("domains", func(t *testing.T) { ldapDomains(t, socket) })
	t.Run("bind as user", func(t *testing.T) { ldapBind(t, starttls) })
	t.Run("cannot answer", func(t *testing.T) { ldapCannot(t, s, starttls, ldaps) })
	t.Run("several servers", func(t *testing.T) { ldapSeveral(t, s, plain) })
	t.Run("faults", func(t *testing.T) { faultsLDAP(t, s, plain, starttls) })
	t.Run("faults of ldaps", func(t *testing.T) { faultsLDAP(t, s, encrypted, ldaps) })
}

func ldapEntries(t *testing.T, o Opened) {
	if o.Vary != VaryUser {
		t.Errorf("got vary %b", o.Vary)
	}
	a, err := o.Lookup(aMinute(t), sqlAsk("bare@example.org"))
	if err != nil || !reflect.DeepEqual(a, Answer{User: "bare"}) {
		t.Errorf("got %v, %v", a, err)
	}
	for _, name := range []string{"nobody@example.org", "*", "f*@example.org", "full@example.org)(uid=*", "*)(|(uid=*", `full\40example.org`,
		"x)(|(mail=*", "\xe9@example.org", "日本@example.org", strings.Repeat("x", 300)} {
		_, err := o.Lookup(aMinute(t), &auth.Query{Name: auth.Name{Typed: name, Local: name}})
		if !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%q: got %v, want an unknown user", name, err)
		}
	}
	// A name may really have those characters.
	if a, err := o.Lookup(aMinute(t), sqlAsk(`(*)\@example.org`)); err != nil || a.User != `(*)\` {
		t.Errorf("got %v, %v", a, err)
	}
	for name, problem := range map[string]string{"three@example.org": "more than one entry", "two@example.org": "has 2 values"} {
		if _, err := o.Lookup(aMinute(t), sqlAsk(name)); err == nil || errors.Is(err, auth.ErrUnknownUser) || !strings.Contains(err.Error(), problem) || !errors.As(err, new(contentError)) {
			t.Errorf("%s: got %v, want an error with %q that is no outage", name, err, problem)
		}
	}
	manyAtOnce(t, o, "full")
}

func ldapDomains(t *testing.T, c LDAPConfig) {
	c.DomainFilter = "(mail=*@{domain})"
	knows := openTestLDAP(t, c).Source.(DomainKnower)
	for domain, want := range map[string]bool{"example.org": true, "example.com": false, "*": false, "\xe9": false} {
		if got, err := knows.KnowsDomain(aMinute(t), domain); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", domain, got, err, want)
		}
	}
}

func ldapBind(t *testing.T, c LDAPConfig) {
	c.BindAsUser, c.Attributes = true, LDAPAttributes{User: "cn"}
	c.MaxConnections = 2 // so that each is used by many
	o := openTestLDAP(t, c)
	if o.Vary != VaryUser|VarySecret {
		t.Errorf("got vary %b", o.Vary)
	}
	for range 5 {
		for _, tt := range []struct {
			name, password string
			user           string // "" is a refused password
		}{
			{"full@example.org", "right", "full"},
			{"full@example.org", "hunter2", ""},
			{"full@example.org", "right too", ""}, // another's
			{"full@example.org", "", ""},          // which servers take
			{"full@example.org", "right\x00", ""},
			{"bare@example.org", "right too", "bare"},
			{"nopassword@example.org", "", ""},
			{"nopassword@example.org", "any", ""},
			{`(*)\@example.org`, "right", "a,b (c)*"}, // whose DN has what must be escaped
		} {
			a, err := o.Lookup(aMinute(t), withSecret(tt.name, tt.password))
			switch {
			case tt.user == "":
				if !errors.Is(err, auth.ErrWrongPassword) || a.Verified {
					t.Errorf("%s with %q: got %v, %v; want a refused password", tt.name, tt.password, a, err)
				}
				if tt.password == "hunter2" && err != nil && strings.Contains(err.Error(), tt.password) {
					t.Errorf("the password is in %q", err)
				}
			case err != nil || !a.Verified || a.User != tt.user:
				t.Errorf("%s with %q: got %v, %v; want %s, verified", tt.name, tt.password, a, err, tt.user)
			}
		}
	}
	if _, err := o.Lookup(aMinute(t), withSecret("nobody@example.org", "right")); !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("got %v, want an unknown user", err)
	}
	// popgate route has no password: it is told where the user goes, and nothing is verified.
	if a, err := o.Lookup(aMinute(t), sqlAsk("full@example.org")); err != nil || a.Verified || a.User != "full" {
		t.Errorf("without a password: got %v, %v", a, err)
	}
}

// ldapCannot has everything wrong that can be at the start of a connection. Users must not seem unknown by it.
func ldapCannot(t *testing.T, s *slapd, starttls, ldaps LDAPConfig) {
	other, _ := testCertificate(t, peers.Dir(t))
	badPassword := writeText(t, filepath.Join(t.TempDir(), "p"), "not the password")
	for _, tt := range []struct {
		name    string
		config  LDAPConfig
		change  func(*LDAPConfig)
		problem string
	}{
		{"wrong password", starttls, func(c *LDAPConfig) { c.PasswordFile = badPassword }, "log in as cn=admin,dc=example,dc=org: LDAP Result Code 49"},
		{"not logged in", starttls, func(c *LDAPConfig) { c.BindDN, c.PasswordFile = "", "" }, ""},
		{"wrong base", starttls, func(c *LDAPConfig) { c.Base = "dc=example,dc=com" }, "search dc=example,dc=com"},
		{"referral", starttls, func(c *LDAPConfig) { c.Base = "ou=elsewhere,ou=people,dc=example,dc=org" }, "Referral"},
		{"CA", starttls, func(c *LDAPConfig) { c.TLSCA = other }, "certificate"},
		{"CA of ldaps", ldaps, func(c *LDAPConfig) { c.TLSCA = other }, "certificate"},
		{"name", starttls, func(c *LDAPConfig) { c.TLSServerName = "ldap.example.org" }, "ldap.example.org"},
		{"TLS where there is none", starttls, func(c *LDAPConfig) {
			c.StartTLS, c.URLs = false, []string{"ldaps" + strings.TrimPrefix(c.URLs[0], "ldap")}
		}, "TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.config
			tt.change(&c)
			_, err := openTestLDAP(t, c).Lookup(aMinute(t), sqlAsk("full@example.org"))
			if err == nil || errors.Is(err, auth.ErrUnknownUser) || errors.Is(err, auth.ErrWrongPassword) || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("got %v, want an error with %q", err, tt.problem)
			}
			if err != nil && (strings.Contains(err.Error(), "not the password") || strings.Contains(err.Error(), realPassword)) {
				t.Errorf("the password is in %q", err)
			}
		})
	}
}

// ldapSeveral has the first server down, in every way.
func ldapSeveral(t *testing.T, s *slapd, second *faultProxy) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	first := newFaultProxy(t, "unix", s.socket)
	for _, f := range []fault{faultHang, faultRefuse, faultGarbage} {
		first.set(f)
		before := first.count()
		o := openTestLDAP(t, s.config("ldap://"+nobody, "ldap://"+first.addr(), "ldap://"+second.addr()))
		ctx, cancel := context.WithTimeout(t.Context(), timeForTwo)
		for range 2 {
			if a, err := o.Lookup(ctx, sqlAsk("full@example.org")); err != nil || a.User != "full" {
				t.Errorf("fault %d: got %v, %v", f, a, err)
			}
		}
		cancel()
		if got := first.count() - before; got != 1 {
			t.Errorf("fault %d: the first server was tried %d times, want once", f, got)
		}
	}
}

// faultsLDAP breaks the connections to a server in every way, and the server itself.
func faultsLDAP(t *testing.T, s *slapd, p *faultProxy, c LDAPConfig) {
	c.BindAsUser = true
	o := openTestLDAP(t, c)
	answers := func(t *testing.T) {
		t.Helper()
		if a, err := o.Lookup(aMinute(t), withSecret("full@example.org", "right")); err != nil || !a.Verified {
			t.Errorf("got %v, %v; want an answer", a, err)
		}
	}
	for name, tt := range map[string]struct {
		fault fault
		end   ending
	}{"hangs": {faultHang, byDeadline}, "refuses": {faultRefuse, byItself}, "garbage": {faultGarbage, either}, "10 MB": {faultFlood, either}} {
		t.Run(name, func(t *testing.T) {
			answers(t)
			p.set(tt.fault)
			unanswered(t, o, tt.end)
			unanswered(t, o, tt.end)
			p.set(faultNone)
			answers(t)
		})
	}
	t.Run("one connection hangs", func(t *testing.T) {
		c := c
		c.MaxConnections = 1
		o := openTestLDAP(t, c)
		p.set(faultHang)
		unanswered(t, o, byDeadline)
		p.set(faultNone)
		if _, err := o.Lookup(aMinute(t), sqlAsk("full@example.org")); err != nil {
			t.Error(err)
		}
	})
	t.Run("hangs, and another does not", func(t *testing.T) {
		other := newFaultProxy(t, "unix", s.socket)
		c := c
		c.Insecure, c.StartTLS, c.TLSCA, c.BindAsUser = true, false, "", false
		c.URLs = []string{"ldap://" + p.addr(), "ldap://" + other.addr()}
		if p.tls {
			c.URLs[0], c.TLSCA = "ldaps://"+p.addr(), s.ca
		}
		o := openTestLDAP(t, c)
		if _, err := o.Lookup(aMinute(t), sqlAsk("full@example.org")); err != nil {
			t.Error(err)
		}
		p.set(faultHang)
		defer p.set(faultNone)
		unanswered(t, o, byDeadline) // by the one that was connected to
		if _, err := o.Lookup(aMinute(t), sqlAsk("full@example.org")); err != nil || other.count() != 1 {
			t.Errorf("got %v; the other was asked %d times, want once", err, other.count())
		}
	})
	t.Run("cut", func(t *testing.T) {
		answers(t)
		p.cut()
		answers(t)
	})
	t.Run("dies and comes back", func(t *testing.T) {
		answers(t)
		s.Down(t)
		unanswered(t, o, byItself)
		started := openTestLDAP(t, c)
		unanswered(t, started, byItself)
		s.Up(t)
		answers(t)
		if _, err := started.Lookup(aMinute(t), sqlAsk("full@example.org")); err != nil {
			t.Error(err)
		}
	})
}
