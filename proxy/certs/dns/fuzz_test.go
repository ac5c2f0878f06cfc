package dns

import (
	"encoding/base64"
	"strings"
	"testing"

	miekg "github.com/miekg/dns"
)

func FuzzParseKey(f *testing.F) {
	f.Add([]byte(keyFileText("popgate", "hmac-sha256", testSecret256)), "", "")
	f.Add([]byte(testSecret256), "popgate", "hmac-sha512")
	f.Add([]byte("/**/key k{secret\"YQ==\";}#"), "k", "")
	f.Fuzz(func(t *testing.T, data []byte, name, algorithm string) {
		k, err := parseKey(data, name, algorithm)
		if err != nil {
			return
		}
		if _, ok := miekg.IsDomainName(k.name); !ok || !strings.HasSuffix(k.name, ".") {
			t.Errorf("key name %q", k.name)
		}
		if raw, err := base64.StdEncoding.DecodeString(k.secret); err != nil || len(raw) == 0 {
			t.Error("a secret that cannot sign")
		}
		if k.algorithm != miekg.HmacSHA256 && k.algorithm != miekg.HmacSHA512 {
			t.Errorf("algorithm %q", k.algorithm)
		}
	})
}

func FuzzParseAccount(f *testing.F) {
	f.Add([]byte(testAccount))
	f.Add([]byte(`{"username":"u","password":"p\r\n","subdomain":"s","fulldomain":"d"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAccount(data)
		if err != nil {
			return
		}
		for _, v := range []string{a.Username, a.Password, a.Subdomain, a.FullDomain} {
			if v == "" || strings.ContainsAny(v, "\r\n") {
				t.Errorf("account %+v cannot be put into a request", a)
			}
		}
	})
}

// An issuer nobody named must never be allowed by what a property says.
func FuzzIssuer(f *testing.F) {
	for _, v := range []string{"letsencrypt.org", " a.b ; x=y", ";", "", "a..b", "-a.b", "\x00", "LETSENCRYPT.ORG"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, value string) {
		c := CAA{Records: []CAARecord{{Tag: "issue", Value: value}}}
		if c.Allows([]string{"", "."}, false) {
			t.Errorf("%q allows an issuer without a name", value)
		}
		issuer, ok := issuerOf(value)
		if c.Allows([]string{"letsencrypt.org"}, false) != (ok && issuer == "letsencrypt.org") {
			t.Errorf("%q: allowed against its issuer %q", value, issuer)
		}
		if ok && !strings.Contains(strings.ToLower(value), issuer) {
			t.Errorf("%q names no %q", value, issuer)
		}
	})
}

// Whatever bytes a server sends: bounded, and nothing that was not asked for.
func FuzzAnswer(f *testing.F) {
	for _, lines := range [][]string{
		{"example.org. 60 IN A 192.0.2.1", "example.com. 60 IN A 192.0.2.2"},
		{"example.org. 60 IN CNAME a.example.", "a.example. 60 IN AAAA 2001:db8::1", `a.example. 60 IN CAA 0 issue ";"`, "a.example. 60 IN TXT x"},
		{"example.org. 60 IN CNAME example.org."},
	} {
		m := new(miekg.Msg)
		m.SetQuestion("example.org.", miekg.TypeA)
		for _, line := range lines {
			rr, err := miekg.NewRR(line)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		data, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(miekg.Msg)
		if m.Unpack(data) != nil {
			return
		}
		all := addrsIn(m, "example.org")
		if len(all) > maxAddrs || len(caaIn(m, "example.org.")) > maxCAA {
			t.Error("more than is bounded came through")
		}
		textsIn(m, "example.org")
		owned := false
		for _, rr := range m.Answer {
			owned = owned || fqdn(rr.Header().Name) == "example.org."
		}
		if !owned && len(all) > 0 {
			t.Errorf("%v are of another name", all)
		}
	})
}
