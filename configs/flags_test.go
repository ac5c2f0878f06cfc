package configs

import (
	"reflect"
	"strings"
	"testing"
)

func TestFromFlags(t *testing.T) {
	env := append([]string{"POPGATE_LIMITS_SESSIONS=9"}, home...)
	c, err := FromFlags(Flags{To: []string{"192.0.2.1", "pop.example.org:1110"}, Listen: "127.0.0.1:1995", Domain: "mail.example.org"}, env)
	if err != nil {
		t.Fatal(err)
	}
	c.places = nil
	want := mustLoad(t, `
listeners: [{name: pop3s, address: "127.0.0.1:1995", default_name: mail.example.org}]
backends: [{name: default, servers: [{address: 192.0.2.1}, {address: "pop.example.org:1110"}]}]
limits: {sessions: 9}
`)
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant what the file gives: %+v", c, want)
	}
	c, err = FromFlags(Flags{To: []string{"[::1]:110"}}, home)
	if err != nil {
		t.Fatal(err)
	}
	if l := c.Listeners[0]; l.Address != ":995" || l.DefaultName != "" || l.DefaultDomain != "" {
		t.Errorf("got %+v, want :995 and no names", l)
	}
}

func TestFromFlagsACME(t *testing.T) {
	f := Flags{To: []string{"192.0.2.1"}, ACMEDomains: []string{"mail.example.org", "pop.example.org"}, ACMEEmail: "postmaster@example.org", ACMEAgree: true}
	c, err := FromFlags(f, home)
	if err != nil {
		t.Fatal(err)
	}
	c.places = nil
	want := mustLoad(t, `
listeners: [{name: pop3s, address: ":995", default_name: mail.example.org}]
tls: {acme: {domains: [mail.example.org, pop.example.org], email: postmaster@example.org, agree: true}}
backends: [{name: default, servers: [{address: 192.0.2.1}]}]
`)
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant what the file gives: %+v", c, want)
	}
	f.Domain = "pop.example.org"
	if c, err = FromFlags(f, home); err != nil || c.Listeners[0].DefaultName != "pop.example.org" {
		t.Errorf("got %v; want --domain as the name of clients that name none", err)
	}
}

// TestAgreed: the flag agrees for a file that does not say so, and for one that says otherwise.
func TestAgreed(t *testing.T) {
	for _, agree := range []string{"", "agree: false, "} {
		file := []byte("tls: {acme: {" + agree + "domains: [mail.example.org]}}\nbackends: [{name: a, servers: [{address: h}]}]\n")
		if _, err := loadText(file, home, newReport("f")); err == nil || !strings.Contains(err.Error(), "tls.acme.agree: must be true") ||
			!strings.Contains(err.Error(), "`agree: true`") || !strings.Contains(err.Error(), "--acme-agree") {
			t.Errorf("%q: got %v, want a fault with both ways to agree", agree, err)
		}
		if c, err := loadText(file, Agreed(home), newReport("f")); err != nil || !c.TLS.ACME.Agree {
			t.Errorf("%q: got %v", agree, err)
		}
	}
}

// TestAgreedForNothing: whoever agrees for all files does so for those that obtain nothing.
func TestAgreedForNothing(t *testing.T) {
	c, err := loadText([]byte(plain), Agreed(home), newReport("f"))
	if err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "no names to obtain") {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestFromFlagsFaults(t *testing.T) {
	for _, e := range []struct {
		flags Flags
		want  []string // the beginnings
	}{
		{Flags{}, []string{"--to: is empty; a backend needs at least one server"}},
		{Flags{To: []string{"a b"}, Listen: "995", Domain: "a b"}, []string{"--domain: is \"a b\"", "--listen: is \"995\"", "--to: has the host \"a b\""}},
		{Flags{To: []string{"h", "h:110"}}, []string{"--to: is the same server"}},
		{Flags{To: []string{"h"}, Listen: "127.0.0.1:9995"}, []string{`metrics.address: is "127.0.0.1:9995", which overlaps with "127.0.0.1:9995" of --listen`}},
		{Flags{To: []string{"h"}, ACMEDomains: []string{"mail.example.org"}}, []string{"--acme-agree: must be true"}},
		{Flags{To: []string{"h"}, ACMEDomains: []string{"m.example", "a b"}, ACMEAgree: true}, []string{"--acme-domain: \"a b\" is neither"}},
		{Flags{To: []string{"h"}, ACMEAgree: true}, []string{"--acme-domain: is missing"}},
		{Flags{To: []string{"h"}, ACMEEmail: "a@b.example"}, []string{"--acme-domain: is missing"}},
		{Flags{To: []string{"${HOST}"}}, []string{"--to: has the host \"${host}\""}},
	} {
		_, err := FromFlags(e.flags, home)
		faults, _ := err.(Faults)
		if len(faults) != len(e.want) {
			t.Errorf("%+v: got %v, want %q", e.flags, err, e.want)
			continue
		}
		for i, f := range faults {
			if !strings.HasPrefix(f.Error(), e.want[i]) {
				t.Errorf("%+v: got %s, want %s", e.flags, f, e.want[i])
			}
		}
	}
}
