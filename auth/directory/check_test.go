package directory

import (
	"net/netip"
	"strings"
	"testing"
)

func TestCheckServers(t *testing.T) {
	list := []string{"10.0.0.0/8", "192.0.2.7:1110", "[2001:db8::/32]:110", "2001:db8:ffff::1", "mail.example.org", "*.pop.example.org:995", "Bücher.example"}
	c := checker{}
	for _, s := range list {
		a, err := parseAllowed(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		c.allowed = append(c.allowed, a)
	}
	for _, tt := range []struct{ server, tls, want string }{ // want "" is refused
		{"10.1.2.3", "", "10.1.2.3"},
		{"10.1.2.3:4711", "", "10.1.2.3:4711"},
		{"::ffff:10.1.2.3", "", "10.1.2.3"},
		{"11.0.0.1", "", ""},
		{"192.0.2.7:1110", "", "192.0.2.7:1110"},
		{"192.0.2.7:01110", "", "192.0.2.7:1110"},
		{"192.0.2.7:110", "", ""},
		{"192.0.2.7", "", ""},
		{"2001:db8::5", "none", "2001:db8::5"},
		{"[2001:db8::5]", "", "2001:db8::5"},
		{"[2001:DB8::5]:110", "", "[2001:db8::5]:110"},
		{"2001:db8::5", "implicit", ""},
		{"[2001:db8::5]:995", "", ""},
		{"[2001:db8:ffff::1]:995", "", "[2001:db8:ffff::1]:995"},
		{"fe80::1%eth0", "", ""},
		{"mail.example.org", "", "mail.example.org"},
		{"MAIL.example.org.:110", "", "mail.example.org:110"},
		{"evil.mail.example.org", "", ""},
		{"a.pop.example.org", "implicit", "a.pop.example.org"},
		{"a.b.pop.example.org:995", "", "a.b.pop.example.org:995"},
		{"a.pop.example.org", "none", ""},
		{"pop.example.org:995", "", ""},
		{"evilpop.example.org:995", "", ""},
		{"bücher.example", "", "xn--bcher-kva.example"},
		{"localhost", "", ""},
		{"127.0.0.1", "", ""},
		{"0x0a.1.2.3", "", ""}, // what some resolvers take for 10.1.2.3
		{"10.1.2.3:0", "", ""},
		{"10.1.2.3:65536", "", ""},
		{"10.1.2.3:pop3", "", ""},
		{"10.1.2.3:", "", ""},
		{"[10.1.2.3", "", ""},
		{"[10.1.2.3]x", "", ""},
		{":110", "", ""},
		{"10.1.2.3 ", "", ""},
		{"/run/pop3.sock", "", ""},
		{"10.0.0.0/8", "", ""},
	} {
		a := Answer{Server: tt.server, TLS: tt.tls}
		if err := c.check(&a); (err == nil) != (tt.want != "") || err == nil && a.Server != tt.want {
			t.Errorf("%q with tls %q: got %q, %v, want %q", tt.server, tt.tls, a.Server, err, tt.want)
		}
	}
	for _, s := range []string{"", "10.0.0.0/33", "10.0.0.0/8:0", "::ffff:10.0.0.0/104", "fe80::1%eth0", "*", "*.*.example.org", "a b", "[::1", "[::1]x", "mail.example.org:pop3"} {
		if a, err := parseAllowed(s); err == nil {
			t.Errorf("allowed_servers: %q was read as %+v", s, a)
		}
	}
	empty := checker{}
	if err := empty.check(&Answer{Server: "10.1.2.3"}); err == nil {
		t.Error("without allowed_servers a directory could name one")
	}
}

func TestCheckFields(t *testing.T) {
	nets := make([]netip.Prefix, maxNets+1)
	for _, tt := range []struct {
		answer Answer
		part   string // of the error; "" for none
	}{
		{Answer{}, ""},
		{Answer{Backend: "old servers", User: "Anna+x@example.org", Secret: "p ss", Master: "m", Tenant: "A & B", Hash: "{SSHA}x"}, ""},
		{Answer{User: "jörg"}, ""},
		{Answer{User: "J\xf6rg"}, ""},
		{Answer{Backend: "a\r\nDELE 1"}, "its backend"},
		{Answer{User: "a\nb"}, "its user"},
		{Answer{User: "a b"}, "its user"},
		{Answer{User: "a\x00"}, "its user"},
		{Answer{Master: "a\tb", Secret: "x"}, "its master"},
		{Answer{Master: "boss", Secret: "x"}, "without the user whose mailbox"},
		{Answer{Secret: "geheim\r\n"}, "its secret has a control byte"},
		{Answer{Hash: "{PLAIN}geheim\x7f"}, "its hash has a control byte"},
		{Answer{Tenant: "\x1b[31m"}, "its tenant"},
		{Answer{TLS: "ssl"}, "its tls"},
		{Answer{Master: "m"}, "without a password"},
		{Answer{User: strings.Repeat("a", maxField+1)}, "has 1025 bytes"},
		{Answer{Hash: strings.Repeat("a", maxHash+1)}, "its hash"},
		{Answer{AllowNets: nets}, "257 networks"},
	} {
		err := (&checker{}).check(&tt.answer)
		if (err == nil) != (tt.part == "") || err != nil && !strings.Contains(err.Error(), tt.part) {
			t.Errorf("%v: got %v, want %q", tt.answer, err, tt.part)
		}
		if err != nil && strings.Contains(err.Error(), "geheim") {
			t.Errorf("the error has a secret in it: %v", err)
		}
	}
}

// Whatever a source says: what passes is one line to a backend, and the server is an allowed one in one form.
func FuzzCheck(f *testing.F) {
	f.Add("10.1.2.3:110", "anna", "old", "none")
	f.Add("[2001:db8::1]:995", "a\nb", "", "")
	f.Add("a.pop.example.org", "", "", "implicit")
	c := checker{}
	for _, s := range []string{"10.0.0.0/8", "*.pop.example.org"} {
		a, err := parseAllowed(s)
		if err != nil {
			f.Fatal(err)
		}
		c.allowed = append(c.allowed, a)
	}
	f.Fuzz(func(t *testing.T, server, user, backend, tls string) {
		a := Answer{Server: server, User: user, Backend: backend, TLS: tls}
		if c.check(&a) != nil {
			return
		}
		for _, s := range []string{a.Server, a.User, a.Backend} {
			if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("%q passed", s)
			}
		}
		if a.Server == "" {
			return
		}
		host, port, err := cutPort(a.Server)
		addr, notAddr := netip.ParseAddr(host)
		if err != nil || notAddr == nil && !netip.MustParsePrefix("10.0.0.0/8").Contains(addr) || notAddr != nil && !strings.HasSuffix(host, ".pop.example.org") {
			t.Fatalf("%q passed as %q (host %q, port %q, %v)", server, a.Server, host, port, err)
		}
		again := a
		if err := c.check(&again); err != nil || again.Server != a.Server {
			t.Fatalf("%q passed as %q, and that as %q, %v", server, a.Server, again.Server, err)
		}
	})
}

func TestAnswerHidesSecrets(t *testing.T) {
	a := Answer{User: "anna", Secret: "geheim", Hash: "{PLAIN}geheim"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		for _, v := range []any{a, &a, Found{Answer: a}, []Answer{a}} {
			if got := sprintf(verb, v); strings.Contains(got, "geheim") || !strings.Contains(got, "anna") {
				t.Errorf("%s of %T: %s", verb, v, got)
			}
		}
	}
}
