package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// TestRenewalByIssuersWish: an issuer that wants a certificate renewed now (ARI) is heard.
func TestRenewalByIssuersWish(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	dir := t.TempDir()
	c := p.config("mail.example.org")
	r, v := startRig(t, dir, c, nil)
	first := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	certPEM, _, err := r.k.Export(t.Context(), "mail.example.org")
	if err != nil {
		t.Fatal(err)
	}
	r.stop()

	// The issuer's own answer was to look again in hours: let them be over.
	files, err := filepath.Glob(filepath.Join(dir, "acme/certificates/*/mail.example.org/*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	var res certmagic.CertificateResource
	var cert acme.Certificate
	if err := json.Unmarshal(must(os.ReadFile(files[0])), &res); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(res.IssuerData, &cert); err != nil || cert.RenewalInfo == nil {
		t.Fatalf("no renewal information: %v", err)
	}
	hours := time.Now().Add(-time.Hour)
	cert.RenewalInfo.RetryAfter = &hours
	res.IssuerData = must(json.Marshal(cert))
	write(t, files[0], must(json.Marshal(res)))
	block, _ := pem.Decode(certPEM)
	now := time.Now().UTC()
	wish := must(json.Marshal(map[string]string{
		"Certificate": string(pem.EncodeToMemory(block)),
		"ARIResponse": `{"suggestedWindow":{"start":"` + now.Add(-2*time.Hour).Format(time.RFC3339) + `","end":"` + now.Add(-time.Hour).Format(time.RFC3339) + `"}}`,
	}))
	resp, err := p.client().Post("https://"+p.manage+"/set-renewal-info/", "application/json", bytes.NewReader(wish))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("Pebble takes no wish: %s", resp.Status)
	}

	r, v = startRig(t, dir, c, nil)
	r.log.wait(t, "certificate obtained")
	if again := shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org")); again.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("the certificate is the old one")
	}
}

// due has a name visited now, and waits until that is over.
func (r *rig) due(name string) {
	r.t.Helper()
	m := r.k.acme
	var o *order
	eventually(r.t, "no visit at work", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		e := m.all[name]
		if e.pending != nil {
			return false
		}
		e.due = time.Time{}
		m.schedule(time.Now())
		o = e.pending
		return true
	})
	<-o.done
}

func TestBackoff(t *testing.T) {
	refused := acme.Problem{Type: acme.ProblemTypeUnauthorized}
	limited := acme.Problem{Type: acme.ProblemTypeRateLimited}
	for _, tt := range []struct {
		name     string
		err      error
		failures int
		from, to time.Duration
	}{
		{"unreachable", io.EOF, 1, 9 * time.Second, 10 * time.Second},
		{"unreachable for long", io.EOF, 50, 9 * time.Minute, 10 * time.Minute},
		{"refused", refused, 1, 4 * time.Minute, 5 * time.Minute},
		{"refused again", refused, 2, 13 * time.Minute, 15 * time.Minute},
		{"refused for long", refused, 1000, 10 * time.Hour, 12 * time.Hour},
		{"too many", limited, 1, 50 * time.Minute, time.Hour},
		{"our own reasons", &refusal{reason: "x"}, 1, 4 * time.Minute, 5 * time.Minute},
		{"the client's fault", &refusal{reason: "x", fleeting: true}, 9, 10 * time.Second, 10 * time.Second},
	} {
		for range 100 {
			if got := backoff(tt.err, tt.failures); got < tt.from || got > tt.to {
				t.Errorf("%s: got %v, want %v to %v", tt.name, got, tt.from, tt.to)
			}
		}
	}
	// What Let's Encrypt takes of failed validations for one name.
	hour := time.Duration(0)
	n := 1
	for ; hour < time.Hour; n++ {
		hour += backoff(refused, n)
	}
	if n-1 > 5 {
		t.Errorf("%d failures in an hour", n-1)
	}
}

func TestAcmeConfig(t *testing.T) {
	on := func(edit func(*ACME)) Config {
		c := DefaultConfig()
		c.ACME.Domains, c.ACME.Agree = []string{"mail.example.org"}, true
		edit(&c.ACME)
		return c
	}
	for _, tt := range []struct {
		name string
		c    Config
		want string // key and a part of the problem
	}{
		{"good", on(func(*ACME) {}), ""},
		{"no agreement", on(func(a *ACME) { a.Agree = false }), "acme.agree Let's Encrypt (https://letsencrypt.org/repository/)"},
		{"no agreement with another", on(func(a *ACME) { a.Agree = false; a.Issuers = []Issuer{{CA: "https://ca.example/dir"}} }), "acme.agree https://ca.example/dir"},
		{"port 995 alone", on(func(a *ACME) { a.HTTPAddress, a.TLSALPNAddress = "", "" }), "acme.http_address only DNS-01 works"},
		{"wildcard", on(func(a *ACME) { a.Domains = []string{"*.example.org"} }), "acme.domains[0] DNS-01"},
		{"twice", on(func(a *ACME) { a.Domains = []string{"a.example", "A.example."} }), "acme.domains[1] domains[0]"},
		{"no name", on(func(a *ACME) { a.Domains = []string{"mail server"} }), "acme.domains[0] correct it"},
		{"key", on(func(a *ACME) { a.Key = "dsa" }), `acme.key write p256, p384 or rsa2048`},
		{"missing", on(func(a *ACME) { a.Missing = "panic" }), "acme.missing write alert or local_ca"},
		{"issuer", on(func(a *ACME) { a.Issuers = []Issuer{{CA: "http://ca.example"}} }), "acme.issuers[0].ca https"},
		{"RSA twice", on(func(a *ACME) { a.Key = "rsa2048"; a.Issuers = []Issuer{{Key: "rsa2048", RSAToo: true}} }), "acme.issuers[0].rsa_too remove"},
		{"account", on(func(a *ACME) { a.Issuers = []Issuer{{ExternalAccount: ExternalAccount{KeyID: "1"}}} }), "acme.issuers[0].external_account.hmac_key_file write"},
		{"account key", on(func(a *ACME) { a.Issuers = []Issuer{{ExternalAccount: ExternalAccount{HMACKeyFile: "1"}}} }), "acme.issuers[0].external_account.key_id write"},
		{"template", on(func(a *ACME) { a.OnDemand.Names = []string{"{domain}.example.org"} }), "acme.on_demand.names[0] must end in {domain}"},
		{"half a label", on(func(a *ACME) { a.OnDemand.Names = []string{"mail{domain}"} }), "acme.on_demand.names[0] whole labels"},
		{"resolver", on(func(a *ACME) { a.OnDemand.Resolver = "a b" }), "acme.on_demand.resolver"},
		{"names", on(func(a *ACME) { a.OnDemand.MaxNames = 0 }), "acme.on_demand.max_names write 1"},
		{"address", on(func(a *ACME) { a.HTTPAddress = "80" }), `acme.http_address ":port"`},
		{"off but for a word", func() Config { c := DefaultConfig(); c.ACME.Email = "a@b.example"; return c }(), "acme.domains list the names"},
		{"client CA", func() Config { c := DefaultConfig(); c.ClientCA.Mode = "require"; return c }(), "client_ca.file write"},
		{"mode", func() Config { c := DefaultConfig(); c.ClientCA.File = "x"; return c }(), "client_ca.mode write request or require"},
	} {
		var got []string
		tt.c.Validate(func(key, problem string) { got = append(got, key+" "+problem) })
		key, part, _ := strings.Cut(tt.want, " ")
		if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], key+" ") || !strings.Contains(got[0], part)) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestTemplate(t *testing.T) {
	for _, tt := range []struct{ template, name, domain string }{
		{"mail.{domain}", "mail.example.org", "example.org"},
		{"mail.{domain}", "mail.org", ""},
		{"mail.{domain}", "pop.example.org", ""},
		{"MX.Mail.{domain}", "mx.mail.example.org", "example.org"},
		{"{domain}", "example.org", "example.org"},
	} {
		got, err := parseTemplate(tt.template)
		if err != nil {
			t.Fatal(err)
		}
		if d := got.domain(tt.name); d != tt.domain {
			t.Errorf("%s in %s: got %q, want %q", tt.template, tt.name, d, tt.domain)
		}
		if tt.domain != "" && got.name(tt.domain) != tt.name {
			t.Errorf("%s of %s: got %q", tt.template, tt.domain, got.name(tt.domain))
		}
	}
}

func TestZapGoesToDebug(t *testing.T) {
	log, logger := newLog()
	newZap(logger).Named("obtain").With(zap.String("identifier", "mail.example.org")).Warn("trouble", zap.String("why", "it rains"))
	recs := log.take()
	if len(recs) != 1 {
		t.Fatalf("got %d records", len(recs))
	}
	line := text(recs[0])
	for _, want := range []string{"acme: trouble", "level=warn", "part=obtain", "identifier=mail.example.org", "why=it rains"} {
		if !strings.Contains(line, want) {
			t.Errorf("got %q, want %q in it", line, want)
		}
	}
}

// TestSilentIssuerHoldsUpNothing: an issuer that takes questions and gives no answer is asked a few times, for all names together, and a
// name that has no certificate gets one meanwhile.
func TestSilentIssuerHoldsUpNothing(t *testing.T) {
	dir, deaf := t.TempDir(), make(chan struct{})
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-deaf:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(deaf)
	p := startPebble(t, pebbleOptions{})
	c := p.config("mail.example.org")
	root := filepath.Join(t.TempDir(), "root.pem")
	write(t, root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	c.ACME.Issuers = append(c.ACME.Issuers, Issuer{CA: server.URL + "/dir", CARoot: root})
	past := c
	past.ACME.Issuers = c.ACME.Issuers[1:]
	names := store10k(t, dir, past, 20)
	hours := time.Now().Add(-time.Hour)
	info := acme.Certificate{RenewalInfo: &acme.RenewalInfo{RetryAfter: &hours}}
	info.RenewalInfo.SuggestedWindow.Start, info.RenewalInfo.SuggestedWindow.End = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	for _, name := range names {
		at := place{issuer: (&certmagic.ACMEIssuer{CA: server.URL + "/dir"}).IssuerKey(), name: name}
		meta := must(json.Marshal(certmagic.CertificateResource{IssuerData: must(json.Marshal(info))}))
		write(t, filepath.Join(dir, "acme", at.metaKey()), meta)
	}
	c.ACME.Domains = append(c.ACME.Domains, names...)
	r, v := startRig(t, dir, c, func(r *rig) { r.k.acme.heed = 200 * time.Millisecond })
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	m := r.k.acme
	eventually(t, "the visits' end", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, e := range m.all {
			if e.pending != nil {
				return false
			}
		}
		return true
	})
	r.log.wait(t, "an issuer does not say when to renew its certificates: they are renewed when it said last, and it is asked again later")
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		e := m.all[name]
		if e.shown.Load() == nil || e.lastErr != nil {
			t.Errorf("%s: not served, or in trouble: %v", name, e.lastErr)
		}
		if wait := time.Until(e.due); wait < recheck/2 {
			t.Errorf("%s is looked after again in %v", name, wait)
		}
	}
	if most := int32(deafAfter + wishers - 1); asked.Load() == 0 || asked.Load() > most {
		t.Errorf("it was asked %d times, want %d at most", asked.Load(), most)
	}
}

func TestHearing(t *testing.T) {
	var h hearing
	now := time.Now()
	if h.heard(false) || h.silence().After(now) {
		t.Error("one question without an answer silences")
	}
	if !h.heard(false) || time.Until(h.silence()) < deafFor-time.Minute {
		t.Errorf("%d without an answer do not silence for an hour", deafAfter)
	}
	for range 20 {
		if h.heard(false) {
			t.Error("the news is told twice")
		}
	}
	if wait := time.Until(h.silence()); wait < deafMost-time.Minute || wait > deafMost {
		t.Errorf("the silence is %v, want %v", wait, deafMost)
	}
	if h.heard(true) || !h.silence().IsZero() {
		t.Error("an answer does not end the silence")
	}
}

// TestOverdueByTheIssuersWindow: an issuer that wants its certificates renewed late, or at once, is the one to say when that is too late.
func TestOverdueByTheIssuersWindow(t *testing.T) {
	const day = 24 * time.Hour
	from := time.Now()
	leaf := &x509.Certificate{NotBefore: from, NotAfter: from.Add(100 * day)}
	for _, tt := range []struct {
		name                 string
		selected, start, end time.Duration // from then; 0 for none
		fine, late           time.Duration
	}{
		{name: "no word of it", fine: 68 * day, late: 69 * day},
		{name: "late", selected: 82 * day, start: 80 * day, end: 85 * day, fine: 86 * day, late: 88 * day},
		{name: "at once", selected: 5 * day, start: 4 * day, end: 6 * day, fine: 7 * day, late: 9 * day},
		{name: "to the end", selected: 90 * day, start: 80 * day, end: 99 * day, fine: 94 * day, late: 96 * day},
		{name: "too late", selected: 98 * day, start: 97 * day, end: 99 * day, fine: 68 * day, late: 69 * day},
	} {
		s := &site{cert: &tls.Certificate{Leaf: leaf}}
		if tt.selected != 0 {
			s.acme.RenewalInfo = &acme.RenewalInfo{SelectedTime: from.Add(tt.selected)}
			s.acme.RenewalInfo.SuggestedWindow.Start, s.acme.RenewalInfo.SuggestedWindow.End = from.Add(tt.start), from.Add(tt.end)
		}
		info := Info{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, late: s.late()}
		if info.overdue(from.Add(tt.fine)) {
			t.Errorf("%s: overdue after %v days", tt.name, tt.fine.Hours()/24)
		}
		if !info.overdue(from.Add(tt.late)) {
			t.Errorf("%s: not overdue after %v days", tt.name, tt.late.Hours()/24)
		}
	}
}
