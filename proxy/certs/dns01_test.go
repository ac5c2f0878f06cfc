package certs

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/popgate/popgate/policy/audit"
)

// byDNS is a configuration for DNS-01 alone, which looks for its records at a DNS server.
func (p *pebble) byDNS(provider, server string, domains ...string) Config {
	c := p.config(domains...)
	c.ACME.HTTPAddress = ""
	d := &c.ACME.DNS
	d.Provider, d.Resolver, d.Propagation.Resolvers = provider, server, []string{server}
	return c
}

// ordered has all domains of c ordered, one certificate each, and gives what was logged.
func (p *pebble) ordered(t *testing.T, c Config) []string {
	t.Helper()
	r, v := startRig(t, t.TempDir(), c, nil)
	for _, name := range c.ACME.Domains {
		shaken(t, v.TLS("pop3s"), p.clientFor(strings.Replace(name, "*", "any", 1)))
		eventually(t, "the event of "+name, func() bool { return r.told(audit.CertificateIssued, name) == 1 })
		if got := r.told(audit.CertificateFailed, name); got != 0 {
			t.Errorf("%s: got %d events of failures", name, got)
		}
	}
	return texts(r.log.take())
}

// TestDNSByBIND orders through a real BIND that takes signed updates: in the name's own zone, in another one where a CNAME leads, and two
// values under one name for a domain and its wildcard.
func TestDNSByBIND(t *testing.T) {
	t.Parallel()
	bind := startNamed(t, map[string]namedZone{
		"example.org": {
			records: "ns1 A 127.0.0.1\n_acme-challenge.pop CNAME pop.acme.example.net.\n",
			policy:  "grant popgate name _acme-challenge.mail.example.org. TXT;",
		},
		"example.net":      {policy: "grant popgate name _acme-challenge.example.net. TXT;"},
		"acme.example.net": {policy: "grant popgate subdomain acme.example.net. TXT;"},
	})
	p := startPebble(t, pebbleOptions{dns: bind.address})
	c := p.byDNS("rfc2136", bind.address, "mail.example.org", "pop.example.org", "example.net", "*.example.net")
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, fmt.Appendf(nil, "key \"popgate\" {\n\talgorithm hmac-sha256;\n\tsecret %q;\n};\n", tsigSecret))
	c.ACME.DNS.RFC2136.Server, c.ACME.DNS.RFC2136.KeyFile = bind.address, key
	said := p.ordered(t, c)
	const delegated = "DNS record written name=pop.acme.example.net provider=rfc2136 zone=acme.example.net"
	if !slices.ContainsFunc(said, func(line string) bool { return strings.HasPrefix(line, delegated) }) {
		t.Errorf("nothing was written where the CNAME leads:\n%s", strings.Join(said, "\n"))
	}
	for _, name := range []string{"_acme-challenge.mail.example.org", "pop.acme.example.net", "_acme-challenge.example.net"} {
		if got := bind.texts(name); len(got) != 0 {
			t.Errorf("%s still has %q", name, got)
		}
	}
}

// TestDNSProviders orders through each of the other providers, and looks that what was written is removed.
func TestDNSProviders(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	t.Run("acme_dns", func(t *testing.T) {
		double := &acmeDNSDouble{zone: p.dns, passwords: map[string]string{}}
		server := httptest.NewServer(double)
		defer server.Close()
		c := p.byDNS("acme_dns", p.dns.address, "mail.a.example", "*.mail.a.example")
		c.ACME.DNS.ACMEDNS.Server, c.ACME.DNS.ACMEDNS.Accounts = server.URL, t.TempDir()
		full := register(t, server.URL, filepath.Join(c.ACME.DNS.ACMEDNS.Accounts, "mail.a.example.json"))
		p.dns.set(p.dns.cname, "_acme-challenge.mail.a.example", full+".")
		p.ordered(t, c)
		if got := p.dns.texts(full); len(got) != 2 {
			t.Errorf("the server has %q, want one value for each order", got)
		}
	})
	t.Run("exec", func(t *testing.T) {
		token := filepath.Join(t.TempDir(), "token")
		write(t, token, []byte("sesame"))
		api := &dnsAPI{t: t, zone: p.dns}
		server := httptest.NewServer(http.HandlerFunc(api.records))
		defer server.Close()
		c := p.byDNS("exec", p.dns.address, "mail.b.example", "pop.b.example")
		c.ACME.DNS.Exec.Command = []string{documentedHook(t, server.URL), "--zone", "b.example"}
		c.ACME.DNS.Exec.Env = []string{"TOKEN_FILE=" + token}
		p.ordered(t, c)
		api.balanced(t, "_acme-challenge.mail.b.example", "_acme-challenge.pop.b.example")
	})
	t.Run("webhook", func(t *testing.T) {
		token := filepath.Join(t.TempDir(), "token")
		write(t, token, []byte("sesame\n"))
		api := &dnsAPI{t: t, zone: p.dns}
		server := httptest.NewServer(http.HandlerFunc(api.hook))
		defer server.Close()
		c := p.byDNS("webhook", p.dns.address, "c.example", "*.c.example")
		c.ACME.DNS.Webhook.URL, c.ACME.DNS.Webhook.TokenFile = server.URL+"/acme", token
		p.ordered(t, c)
		api.balanced(t, "_acme-challenge.c.example")
	})
}

func (z *zone) texts(name string) []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.txt[name+"."])
}

// change adds a TXT record or removes it.
func (z *zone) change(name, value string, add bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.txt[name] = slices.DeleteFunc(z.txt[name], func(s string) bool { return s == value })
	if add {
		z.txt[name] = append(z.txt[name], value)
	}
}

// An acmeDNSDouble is what acme-dns is to its users: the two calls of its API, and a zone with the two latest values of each account.
type acmeDNSDouble struct {
	zone      *zone
	passwords map[string]string // by user and subdomain; guarded by the zone's lock
}

func (d *acmeDNSDouble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.zone.mu.Lock()
	defer d.zone.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	var body struct{ Subdomain, TXT string }
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/register":
		user, sub, password := rand.Text(), strings.ToLower(rand.Text()), rand.Text()
		d.passwords[user+" "+sub] = password
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"username": user, "password": password, "subdomain": sub, "fulldomain": sub + ".auth.example", "allowfrom": []string{},
		})
	case r.Method != http.MethodPost || r.URL.Path != "/update":
		http.NotFound(w, r)
	case json.NewDecoder(r.Body).Decode(&body) != nil || len(body.TXT) != 43:
		http.Error(w, `{"error": "bad_txt"}`, http.StatusBadRequest)
	case r.Header.Get("X-Api-Key") == "" || d.passwords[r.Header.Get("X-Api-User")+" "+body.Subdomain] != r.Header.Get("X-Api-Key"):
		http.Error(w, `{"error": "forbidden"}`, http.StatusUnauthorized)
	default:
		name := body.Subdomain + ".auth.example."
		d.zone.txt[name] = append(d.zone.txt[name], body.TXT)
		d.zone.txt[name] = d.zone.txt[name][max(0, len(d.zone.txt[name])-2):]
		_ = json.NewEncoder(w).Encode(map[string]string{"txt": body.TXT})
	}
}

// register makes an account as the documents say, and gives the name that its records appear under.
func register(t *testing.T, server, file string) string {
	t.Helper()
	resp, err := http.Post(server+"/register", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer := must(io.ReadAll(resp.Body))
	write(t, file, answer)
	var account struct{ FullDomain string }
	if err := json.Unmarshal(answer, &account); err != nil || account.FullDomain == "" {
		t.Fatalf("register: %v: %s", err, answer)
	}
	return account.FullDomain
}

// dnsAPI is the service of a DNS company, or of an operator, before a zone.
type dnsAPI struct {
	t              *testing.T
	zone           *zone
	added, removed []string // guarded by the zone's lock
}

// records is the interface that the program in the documents talks to.
func (a *dnsAPI) records(w http.ResponseWriter, r *http.Request) {
	var body struct{ Type, Name, Content string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Type != "TXT" || r.URL.Path != "/records" {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	a.change(w, r, map[string]string{http.MethodPost: "present", http.MethodDelete: "cleanup"}[r.Method], body.Name, body.Content)
}

// hook is the interface of the webhook provider.
func (a *dnsAPI) hook(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Action, FQDN, Value string
		TTL                 int
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPost || r.URL.Path != "/acme" || body.TTL != 60 {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	a.change(w, r, body.Action, body.FQDN, body.Value)
}

func (a *dnsAPI) change(w http.ResponseWriter, r *http.Request, action, name, value string) {
	if r.Header.Get("Authorization") != "Bearer sesame" {
		http.Error(w, "who?", http.StatusUnauthorized)
		return
	}
	a.zone.change(name, value, action == "present")
	a.zone.mu.Lock()
	defer a.zone.mu.Unlock()
	switch action {
	case "present":
		a.added = append(a.added, name+" "+value)
	case "cleanup":
		a.removed = append(a.removed, name+" "+value)
	default:
		http.Error(w, "what?", http.StatusBadRequest)
	}
}

// balanced says that what was added to these names was removed, and nothing else.
func (a *dnsAPI) balanced(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if left := a.zone.texts(name); len(left) != 0 {
			t.Errorf("%s still has %q", name, left)
		}
	}
	a.zone.mu.Lock()
	defer a.zone.mu.Unlock()
	slices.Sort(a.added)
	slices.Sort(a.removed)
	if len(a.added) != 2 || !slices.Equal(a.added, a.removed) {
		t.Errorf("added %q, removed %q, want the same two", a.added, a.removed)
	}
}

// documentedHook is the program in docs/certificates-dns.md, with another server's address.
func documentedHook(t *testing.T, server string) string {
	t.Helper()
	_, block, _ := strings.Cut(string(must(os.ReadFile("../../docs/certificates-dns.md"))), "\n    #!/bin/sh\n")
	script := "#!/bin/sh\n"
	for line := range strings.Lines(block) {
		code, indented := strings.CutPrefix(line, "    ")
		if !indented {
			break
		}
		script += code
	}
	const example = "https://api.dns.example/"
	if !strings.Contains(script, example) {
		t.Fatalf("the documents' program is another one: %s", script)
	}
	path := filepath.Join(t.TempDir(), "dns-hook")
	writeProgram(t, path, []byte(strings.Replace(script, example, server+"/", 1)))
	return path
}
