package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// twoIssuers is a manager nobody runs, with two issuers that both have a challenge for a name: the second one's order is at work, and the
// node that had the first one's was killed.
func twoIssuers(t *testing.T, kind, name string) (*doors, *acmeView) {
	t.Helper()
	c := DefaultConfig()
	c.ACME.Agree, c.ACME.Domains = true, []string{name}
	c.ACME.Issuers = []Issuer{{CA: "https://one.example/dir"}, {CA: "https://two.example/dir"}}
	m, v := unrun(t, c, Deps{})
	for n, token := range []string{"left-behind", "at-work"} {
		data := must(json.Marshal(acme.Challenge{
			Type: kind, Token: token, KeyAuthorization: token + ".thumb", Identifier: acme.Identifier{Type: "dns", Value: name},
		}))
		if err := v.acme.store.storage.Store(t.Context(), challengeKey(v.acme.issuers[n].acme.IssuerKey(), name), data); err != nil {
			t.Fatal(err)
		}
	}
	return newDoors(m), v.acme
}

func TestAnswerIsTheTokens(t *testing.T) {
	const name = "mail.example.org"
	d, _ := twoIssuers(t, acme.ChallengeTypeHTTP01, name)
	for _, tt := range []struct {
		method, host, path string
		want               string // "" for a 404
	}{
		{"GET", name, challengePath + "at-work", "at-work.thumb"},
		{"GET", "MAIL.Example.org:80", challengePath + "at-work", "at-work.thumb"},
		{"GET", name, challengePath + "left-behind", "left-behind.thumb"},
		{"POST", name, challengePath + "at-work", ""},
		{"GET", "pop.example.org", challengePath + "at-work", ""},
		{"GET", "../../" + name, challengePath + "at-work", ""},
		{"GET", "[::1]:80", challengePath + "at-work", ""},
		{"GET", name, challengePath + "made-up", ""},
		{"GET", name, challengePath, ""},
		{"GET", name, "/at-work", ""},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		d.answer(w, r)
		got := strings.TrimSpace(string(must(io.ReadAll(w.Body))))
		if tt.want == "" && w.Code != http.StatusNotFound || tt.want != "" && got != tt.want {
			t.Errorf("%s %s at %s: got %d %q, want %q", tt.method, tt.path, tt.host, w.Code, got, tt.want)
		}
	}
}

// TestAnswerIsTheLast: over TLS an issuer does not say which challenge it means.
func TestAnswerIsTheLast(t *testing.T) {
	const name = "mail.example.org"
	_, v := twoIssuers(t, acme.ChallengeTypeTLSALPN01, name)
	want := must(acmez.TLSALPN01ChallengeCert(acme.Challenge{
		KeyAuthorization: "at-work.thumb", Identifier: acme.Identifier{Type: "dns", Value: name},
	}))
	ask := func(name string, protos ...string) (*tls.Certificate, error) {
		return v.answerALPN(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protos})
	}
	got, err := ask("Mail.example.org", acmez.ACMETLS1Protocol)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := proof(t, got), proof(t, want); a != b {
		t.Errorf("got the proof %x, want that of the order at work, %x", a, b)
	}
	for _, tt := range []struct {
		name   string
		protos []string
	}{{name, nil}, {name, []string{"pop3"}}, {name, []string{acmez.ACMETLS1Protocol, "h2"}}, {"pop.example.org", []string{acmez.ACMETLS1Protocol}}} {
		if _, err := ask(tt.name, tt.protos...); err == nil {
			t.Errorf("%s %v: an answer", tt.name, tt.protos)
		}
	}
}

// proof is what a certificate proves by acmeIdentifier (RFC 8737, 3).
func proof(t *testing.T, c *tls.Certificate) string {
	t.Helper()
	leaf := must(x509.ParseCertificate(c.Certificate[0]))
	for _, e := range leaf.Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" {
			return string(e.Value)
		}
	}
	t.Fatal("no acmeIdentifier")
	return ""
}
