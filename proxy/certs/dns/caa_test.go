package dns

import (
	"testing"

	miekg "github.com/miekg/dns"
)

func TestCAA(t *testing.T) {
	b := newBook(t,
		`example.org. 60 IN CAA 0 issue "letsencrypt.org"`,
		`deep.example.org. 60 IN CAA 128 issue ";"`,
		`alias.example.com. 60 IN CNAME target.example.org.`, `target.example.org. 60 IN CAA 0 issue "other.example"`,
		// This one leads to a name without records, whose parent's do not count for it.
		`alias2.example.com. 60 IN CNAME nothing.example.org.`,
		`plain.example.com. 60 IN A 192.0.2.1`)
	r := resolverAt(t, b.serve(t))
	for _, tt := range []struct{ name, at, text string }{
		{"mail.example.org", "example.org", `example.org CAA 0 issue "letsencrypt.org"`},
		{"*.Example.org.", "example.org", `example.org CAA 0 issue "letsencrypt.org"`},
		{"a.b.deep.example.org", "deep.example.org", `deep.example.org CAA 128 issue ";"`},
		{"alias.example.com", "alias.example.com", `alias.example.com CAA 0 issue "other.example"`},
		{"alias2.example.com", "", "no CAA records"},
		{"plain.example.com", "", "no CAA records"},
		{"unknown.invalid", "", "no CAA records"},
	} {
		got, err := r.CAA(t.Context(), tt.name)
		if err != nil || got.Name != tt.at || got.String() != tt.text {
			t.Errorf("%s: %q %s, %v, want %q %s", tt.name, got.Name, got, err, tt.at, tt.text)
		}
	}
	if n := b.count("com. CAA"); n == 0 {
		t.Error("the climb ended before the top level domain")
	}
	if n := b.count(". CAA"); n != 0 {
		t.Error("the root was asked")
	}
	refuses := serveDNS(t, func(w miekg.ResponseWriter, m *miekg.Msg) {
		_ = w.WriteMsg(new(miekg.Msg).SetRcode(m, miekg.RcodeServerFailure))
	})
	_, err := resolverAt(t, refuses).CAA(t.Context(), "mail.example.org")
	wantError(t, err, "CAA", "SERVFAIL")
}

func TestAllows(t *testing.T) {
	set := func(records ...CAARecord) CAA { return CAA{Name: "example.org", Records: records} }
	issue := func(v string) CAARecord { return CAARecord{Tag: "issue", Value: v} }
	wild := func(v string) CAARecord { return CAARecord{Tag: "issuewild", Value: v} }
	for _, tt := range []struct {
		name          string
		caa           CAA
		plain, starry bool
	}{
		{"none", set(), true, true},
		{"only iodef", set(CAARecord{Tag: "iodef", Value: "mailto:a@example.org"}), true, true},
		{"ours", set(issue("letsencrypt.org")), true, true},
		{"ours with parameters", set(issue(" LetsEncrypt.org ; validationmethods=dns-01")), true, true},
		{"another's", set(issue("other.example")), false, false},
		{"among others", set(issue("other.example"), issue("letsencrypt.org")), true, true},
		{"nobody", set(issue(";")), false, false},
		{"nobody, empty", set(issue("")), false, false},
		{"malformed", set(issue("letsencrypt.org.")), false, false},
		{"malformed too", set(issue("%letsencrypt.org")), false, false},
		{"wildcards by another", set(issue("letsencrypt.org"), wild("other.example")), true, false},
		{"wildcards only", set(issue(";"), wild("letsencrypt.org")), false, true},
		{"wildcards said, plain not", set(wild(";")), true, false},
		{"unknown tag", set(issue("letsencrypt.org"), CAARecord{Tag: "novel"}), true, true},
		{"unknown critical tag", set(issue("letsencrypt.org"), CAARecord{Tag: "novel", Critical: true}), false, false},
		{"critical and known", set(CAARecord{Tag: "issue", Value: "letsencrypt.org", Critical: true}), true, true},
	} {
		ours := []string{"", "Letsencrypt.org"}
		if got := tt.caa.Allows(ours, false); got != tt.plain {
			t.Errorf("%s: name allowed %v, want %v", tt.name, got, tt.plain)
		}
		if got := tt.caa.Allows(ours, true); got != tt.starry {
			t.Errorf("%s: wildcard allowed %v, want %v", tt.name, got, tt.starry)
		}
	}
	if set(issue("")).Allows([]string{""}, false) {
		t.Error("an issuer without a domain matches a property without one")
	}
}
