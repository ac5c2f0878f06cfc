package dns

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
	miekg "github.com/miekg/dns"
)

// updater is the provider for server, with the key as tsig-keygen prints it.
func updater(t *testing.T, server, keyName, algorithm, secret string, change ...func(*Config)) *rfc2136 {
	t.Helper()
	c := DefaultConfig()
	c.Provider = ProviderRFC2136
	c.RFC2136 = RFC2136{Server: server, KeyFile: writeFile(t, keyFileText(keyName, algorithm, secret))}
	for _, f := range change {
		f(&c)
	}
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	p, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*rfc2136)
}

func txt(name, value string) []libdns.Record {
	return []libdns.Record{libdns.TXT{Name: name, TTL: time.Minute, Text: value}}
}

// texts are the TXT records that server shows.
func texts(t *testing.T, server, name string) []string {
	t.Helper()
	m, err := query(name, miekg.TypeTXT, false)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := resolverAt(t, server).exchange(t.Context(), m, server)
	if err != nil {
		t.Fatal(err)
	}
	all := textsIn(reply, name)
	slices.Sort(all)
	return all
}

func TestUpdateBIND(t *testing.T) {
	server := startNamed(t)
	t.Run("records", func(t *testing.T) { testUpdateRecords(t, server) })
	t.Run("refusals", func(t *testing.T) { testUpdateRefusals(t, server) })
	t.Run("zones", func(t *testing.T) { testUpdateZones(t, server) })
	t.Run("solver", func(t *testing.T) { testUpdateSolver(t, server) })
}

func testUpdateRecords(t *testing.T, server string) {
	p := updater(t, server, "popgate", "hmac-sha256", testSecret256)
	const name = "_acme-challenge.mail.example.org"
	for _, value := range []string{"first", "second"} {
		got, err := p.AppendRecords(t.Context(), "example.org.", txt("_acme-challenge.mail", value))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].RR().Data != value {
			t.Errorf("added %v, want the one record", got)
		}
	}
	if got := texts(t, server, name); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("after two additions: %q", got)
	}
	if _, err := p.DeleteRecords(t.Context(), "example.org.", txt("_acme-challenge.mail", "first")); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, server, name); !slices.Equal(got, []string{"second"}) {
		t.Errorf("after the removal of one: %q", got)
	}
	for range 2 { // the second time nothing is left to remove
		if _, err := p.DeleteRecords(t.Context(), "example.org", txt("_acme-challenge.mail", "second")); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(t, server, name); len(got) != 0 {
		t.Errorf("after all removals: %q", got)
	}

	long := strings.Repeat("x", 600)
	strong := updater(t, server, "strong", "hmac-sha512", testSecret512)
	if _, err := strong.AppendRecords(t.Context(), "example.org.", txt("@", long)); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, server, "example.org"); !slices.Equal(got, []string{long}) {
		t.Errorf("a value of 600 bytes came back as %d strings", len(got))
	}
}

func testUpdateRefusals(t *testing.T, server string) {
	for _, tt := range []struct {
		name                       string
		keyName, algorithm, secret string
		zone, record               string
		want                       []string
	}{
		{"wrong secret", "popgate", "hmac-sha256", testSecret512, "example.org.", "_acme-challenge.mail", []string{"NOTAUTH (BADSIG)", `another secret for key "popgate"`}},
		{"wrong algorithm", "popgate", "hmac-sha512", testSecret256, "example.org.", "_acme-challenge.mail", []string{"NOTAUTH (BADKEY)", "hmac-sha512"}},
		{"unknown key", "nobody", "hmac-sha256", testSecret256, "example.org.", "_acme-challenge.mail", []string{"NOTAUTH (BADKEY)", `no key "nobody"`}},
		{"not granted", "popgate", "hmac-sha256", testSecret256, "example.org.", "www", []string{"REFUSED", "update-policy { grant popgate "}},
		{"not its zone", "popgate", "hmac-sha256", testSecret256, "example.com.", "www", []string{"NOTAUTH", "rfc2136.zone", "example.com"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := updater(t, server, tt.keyName, tt.algorithm, tt.secret)
			_, err := p.AppendRecords(t.Context(), tt.zone, txt(tt.record, "value"))
			wantError(t, err, append(tt.want, "update zone "+host(tt.zone), server)...)
			if strings.Contains(err.Error(), tt.secret) {
				t.Errorf("error shows the secret: %v", err)
			}
		})
	}
	t.Run("key exchanged", func(t *testing.T) {
		p := updater(t, server, "popgate", "hmac-sha256", testSecret512)
		if _, err := p.AppendRecords(t.Context(), "sub.example.org.", txt("a", "value")); err == nil {
			t.Fatal("a wrong secret went through")
		}
		if err := os.WriteFile(p.config.KeyFile, []byte(keyFileText("popgate", "hmac-sha256", testSecret256)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := p.AppendRecords(t.Context(), "sub.example.org.", txt("a", "value")); err != nil {
			t.Errorf("with the right key in the file: %v", err)
		}
	})
}

func testUpdateZones(t *testing.T, server string) {
	p := updater(t, server, "popgate", "hmac-sha256", testSecret256)
	for name, want := range map[string]string{
		"_acme-challenge.mail.example.org":     "example.org.",
		"_acme-challenge.Mail.sub.Example.org": "sub.example.org.",
		"example.org":                          "example.org.",
		"pop.acme.example.net.":                "acme.example.net.",
	} {
		if got, err := p.Zone(t.Context(), name); err != nil || got != want {
			t.Errorf("zone of %s: %q, %v, want %q", name, got, err, want)
		}
	}
	_, err := p.Zone(t.Context(), "_acme-challenge.example.com")
	wantError(t, err, server, "no zone for _acme-challenge.example.com (REFUSED)", "rfc2136.server")

	given := updater(t, server, "popgate", "hmac-sha256", testSecret256, func(c *Config) { c.RFC2136.Zone = "Example.org" })
	if got, err := given.Zone(t.Context(), "a.sub.example.org"); err != nil || got != "example.org." {
		t.Errorf("given zone: %q, %v", got, err)
	}
	_, err = given.Zone(t.Context(), "badexample.org")
	wantError(t, err, "not in rfc2136.zone Example.org")
}

// The whole way: two values for one domain and its wildcard, in another zone by CNAME, seen at the zone's own name server.
func testUpdateSolver(t *testing.T, server string) {
	c := DefaultConfig()
	c.Provider, c.Resolver = ProviderRFC2136, server
	c.RFC2136 = RFC2136{Server: server, KeyFile: writeFile(t, testSecret256), KeyName: "popgate"}
	s, err := NewSolver(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, s.watch.port, _ = net.SplitHostPort(server)
	const name = "_acme-challenge.pop.example.org"
	for _, value := range []string{"one", "two"} {
		if err := s.Present(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, value := range []string{"one", "two"} {
		if err := s.Wait(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(t, server, "pop.acme.example.net"); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("where the CNAME leads: %q", got)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, value := range []string{"one", "two"} {
		if err := s.CleanUp(gone, name, value); err != nil {
			t.Fatal(err)
		}
	}
	if got := texts(t, server, "pop.acme.example.net"); len(got) != 0 {
		t.Errorf("after cleaning up: %q", got)
	}
	if len(s.places) != 0 {
		t.Errorf("%d places are still remembered", len(s.places))
	}
}

// What BIND does not do: answers of servers that are broken, or not what they seem.
func TestUpdateOddServers(t *testing.T) {
	const other = "b3RoZXItc2VjcmV0LW9mLXRoZS10ZXN0cw=="
	respond := func(change func(*miekg.Msg)) miekg.HandlerFunc {
		return func(w miekg.ResponseWriter, m *miekg.Msg) {
			reply := new(miekg.Msg).SetReply(m)
			change(reply)
			_ = w.WriteMsg(reply)
		}
	}
	tsigError := func(code uint16) miekg.HandlerFunc {
		return respond(func(r *miekg.Msg) {
			r.Rcode = miekg.RcodeNotAuth
			r.Extra = append(r.Extra, &miekg.TSIG{
				Hdr:       miekg.RR_Header{Name: "popgate.", Rrtype: miekg.TypeTSIG, Class: miekg.ClassANY},
				Algorithm: miekg.HmacSHA256, TimeSigned: 1, Fudge: 300, OrigId: r.Id, Error: code,
			})
		})
	}
	for _, tt := range []struct {
		name   string
		handle miekg.HandlerFunc
		want   string
	}{
		{"success unsigned", respond(func(*miekg.Msg) {}), "is not signed"},
		{"clock", tsigError(miekg.RcodeBadTime), "(BADTIME)"},
		{"takes no updates", respond(func(r *miekg.Msg) { r.Rcode = miekg.RcodeNotImplemented }), "NOTIMP: it takes no dynamic updates"},
		{"cannot write", respond(func(r *miekg.Msg) { r.Rcode = miekg.RcodeServerFailure }), "SERVFAIL: it could not write the zone"},
		{"other code", respond(func(r *miekg.Msg) { r.Rcode = miekg.RcodeYXDomain }), "YXDOMAIN: see its log"},
		{"code without a name", respond(func(r *miekg.Msg) { r.Rcode = 13 }), "RCODE13"},
		{"another's answer", respond(func(r *miekg.Msg) { r.Id++ }), "something else than it was asked"},
		{"no answer at all", respond(func(r *miekg.Msg) { r.Response = false }), "something else than it was asked"},
		{"hangs up", func(w miekg.ResponseWriter, _ *miekg.Msg) { _ = w.Close() }, "see that a name server is there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := serveDNS(t, tt.handle)
			_, err := updater(t, server, "popgate", "hmac-sha256", other).AppendRecords(t.Context(), "example.org.", txt("a", "value"))
			wantError(t, err, "update zone example.org at name server "+server, tt.want)
		})
	}
	t.Run("down", func(t *testing.T) {
		_, err := updater(t, "127.0.0.1:"+freePort(t), "popgate", "hmac-sha256", other).AppendRecords(t.Context(), "example.org.", txt("a", "value"))
		wantError(t, err, "connection refused", "takes TCP")
	})
	t.Run("silent", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		// Whoever asked goes away while the server has the question and says nothing.
		server := serveDNS(t, func(miekg.ResponseWriter, *miekg.Msg) { cancel() })
		_, err := updater(t, server, "popgate", "hmac-sha256", other).AppendRecords(ctx, "example.org.", txt("a", "value"))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the caller's end", err)
		}
	})
	t.Run("not TXT", func(t *testing.T) {
		p := updater(t, "127.0.0.1:1", "popgate", "hmac-sha256", other)
		_, err := p.AppendRecords(t.Context(), "example.org.", []libdns.Record{libdns.RR{Name: "a", Type: "A", Data: "192.0.2.1"}})
		wantError(t, err, "only TXT records")
	})
}
