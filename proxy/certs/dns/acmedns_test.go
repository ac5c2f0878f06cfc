package dns

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The account is made up; the shapes are those that acme-dns documents.
const testAccount = `{"username": "c36f50e8-4632-44f0-83fe-e070fef28a10", "password": "htB9mR9DYgcu9bX_afHF62erXaH2TS7bg9KW3F7Z",
"fulldomain": "8e5700ea-a4bf-41c7-8a77-e990661dcc6a.auth.example.net", "subdomain": "8e5700ea-a4bf-41c7-8a77-e990661dcc6a", "allowfrom": []}`

const testValue = "___validation_token_received_from_the_ca___"

// An acmeDouble answers as acme-dns does: it checks the account's headers and keeps the two latest values.
type acmeDouble struct {
	mu     sync.Mutex
	values []string
	busy   int // so many answers of 503 come first
}

func (d *acmeDouble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy > 0 {
		d.busy--
		http.Error(w, "try later", http.StatusServiceUnavailable)
		return
	}
	var a account
	_ = json.Unmarshal([]byte(testAccount), &a)
	var body struct{ Subdomain, TXT string }
	w.Header().Set("Content-Type", "application/json")
	reply := func(status int, text string) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/update":
		reply(http.StatusNotFound, "404 page not found")
	case r.Header.Get("X-Api-User") != a.Username || r.Header.Get("X-Api-Key") != a.Password:
		reply(http.StatusUnauthorized, `{"error": "forbidden"}`)
	case json.NewDecoder(r.Body).Decode(&body) != nil || body.Subdomain != a.Subdomain:
		reply(http.StatusBadRequest, `{"error": "bad_subdomain"}`)
	case len(body.TXT) != 43:
		reply(http.StatusBadRequest, `{"error": "bad_txt"}`)
	default:
		d.values = append(d.values, body.TXT)
		d.values = d.values[max(0, len(d.values)-2):]
		reply(http.StatusOK, `{"txt": "`+body.TXT+`"}`)
	}
}

// acmeDNSAt is the provider for a server with TLS of its own CA, and an account for mail.example.org.
func acmeDNSAt(t *testing.T, h http.Handler) (*acmeDNS, *httptest.Server) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	c := DefaultConfig()
	c.Provider = ProviderACMEDNS
	c.ACMEDNS = ACMEDNS{Server: s.URL + "/", Accounts: t.TempDir(), CAFile: writeFile(t, caOf(s))}
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	saveAccount(t, c.ACMEDNS.Accounts, "mail.example.org", testAccount)
	p, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := p.(*acmeDNS)
	a.api.pause = 1 // nobody waits in tests
	return a, s
}

func caOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func saveAccount(t *testing.T, dir, domain, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, domain+".json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestACMEDNSUpdate(t *testing.T) {
	double := &acmeDouble{busy: 2}
	p, _ := acmeDNSAt(t, double)
	const name = "_acme-challenge.mail.example.org"
	if _, err := p.AppendRecords(t.Context(), name, txt("@", testValue)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(double.values, []string{testValue}) {
		t.Errorf("the server has %q", double.values)
	}
	if got, err := p.DeleteRecords(t.Context(), name, txt("@", testValue)); err != nil || len(got) != 1 {
		t.Errorf("clean up: %v, %v", got, err)
	}
	_, err := p.AppendRecords(t.Context(), name, txt("@", "short"))
	wantError(t, err, "record of "+name, "400 Bad Request", "bad_txt")

	double.busy = apiTries
	_, err = p.AppendRecords(t.Context(), name, txt("@", testValue))
	wantError(t, err, "503 Service Unavailable", "try later")

	saveAccount(t, p.config.Accounts, "mail.example.org", strings.Replace(testAccount, "htB9", "XXXX", 1))
	_, err = p.AppendRecords(t.Context(), name, txt("@", testValue))
	wantError(t, err, "401 Unauthorized", "allowfrom")
	if strings.Contains(err.Error(), "XXXX") {
		t.Errorf("error shows the password: %v", err)
	}
}

func TestACMEDNSOtherServers(t *testing.T) {
	var leaked bool
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { leaked = r.Header.Get("X-Api-Key") != "" }))
	defer thief.Close()
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		"a web site":  {func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>welcome\x1b[31m")) }, `"<html>welcome\x1b[31m" instead of the value`},
		"a redirect":  {func(w http.ResponseWriter) { w.Header().Set("Location", thief.URL); w.WriteHeader(307) }, "redirects are not followed"},
		"much to say": {func(w http.ResponseWriter) { w.WriteHeader(400); _, _ = w.Write(make([]byte, 1<<20)) }, "400 Bad Request: …"},
	} {
		p, s := acmeDNSAt(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tt.answer(w) }))
		_, err := p.AppendRecords(t.Context(), "_acme-challenge.mail.example.org", txt("@", testValue))
		wantError(t, err, s.URL+"/update", tt.want)
		if len(err.Error()) > 4000 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
	if leaked {
		t.Error("the account's key went where a redirect led")
	}

	p, _ := acmeDNSAt(t, &acmeDouble{})
	distrust, err := newAPI("", p.api.timeout)
	if err != nil {
		t.Fatal(err)
	}
	p.api = distrust
	_, err = p.AppendRecords(t.Context(), "_acme-challenge.mail.example.org", txt("@", testValue))
	wantError(t, err, "ca_file")
}

func TestACMEDNSAccounts(t *testing.T) {
	p, s := acmeDNSAt(t, &acmeDouble{})
	got, err := p.Delegate("_acme-challenge.Mail.example.org")
	if err != nil || got != "8e5700ea-a4bf-41c7-8a77-e990661dcc6a.auth.example.net." {
		t.Errorf("delegated to %q, %v", got, err)
	}
	_, err = p.Delegate("_acme-challenge.pop.example.org")
	wantError(t, err, "no acme-dns account for pop.example.org", "curl -X POST "+s.URL+"/register", "pop.example.org.json", "CNAME")
	for _, name := range []string{"_acme-challenge.../../../etc/passwd", "_acme-challenge.", "..", `_acme-challenge.a\b`} {
		_, err := p.Delegate(name)
		wantError(t, err, "is no domain name")
	}
	for text, want := range map[string]string{
		"":       "is empty",
		"secret": "is not the JSON",
		`{"username":"u","password":"secret","subdomain":"s"}`:                          "lacks fulldomain",
		`{"username":"u","password":"secret\n","subdomain":"s","fulldomain":"d"}`:       "lacks password",
		`{"username":"u","password":"secret","subdomain":"s","fulldomain":"example.."}`: "no domain name",
	} {
		saveAccount(t, p.config.Accounts, "bad.example.org", text)
		_, err := p.Delegate("_acme-challenge.bad.example.org")
		wantError(t, err, "bad.example.org", want)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("error shows the file's contents: %v", err)
		}
	}
}

// The delegation is looked at before the server is told anything.
func TestACMEDNSDelegation(t *testing.T) {
	double := &acmeDouble{}
	p, _ := acmeDNSAt(t, double)
	saveAccount(t, p.config.Accounts, "other.example.org", testAccount)
	const full = "8e5700ea-a4bf-41c7-8a77-e990661dcc6a.auth.example.net."
	b := newBook(t, "_acme-challenge.mail.example.org. 60 IN CNAME "+full, full+" 60 IN TXT "+testValue, "example.org. 60 IN A 192.0.2.1")
	s := solverWith(t, p, b)
	err := s.Present(t.Context(), "_acme-challenge.other.example.org", testValue)
	wantError(t, err, "_acme-challenge.other.example.org has no CNAME: add `_acme-challenge.other.example.org. CNAME "+full+"`")
	if len(double.values) != 0 {
		t.Errorf("told the server %q", double.values)
	}
	if err := s.Present(t.Context(), "_acme-challenge.mail.example.org", testValue); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), "_acme-challenge.mail.example.org", testValue); err != nil {
		t.Error(err)
	}
	if err := s.CleanUp(t.Context(), "_acme-challenge.mail.example.org", testValue); err != nil {
		t.Error(err)
	}
}
