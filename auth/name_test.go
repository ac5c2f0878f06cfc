package auth

import (
	"errors"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	at := NameRules{}
	percent := NameRules{Separators: "@%"}
	home := NameRules{DefaultDomain: "Example.ORG."}
	master := NameRules{Forbidden: "*/"}
	tests := []struct {
		rules NameRules
		typed string
		want  Name // the zero Name: ErrBadName
		full  string
	}{
		{at, "alice", Name{"alice", "alice", "", "alice"}, "alice"},
		{at, "Alice@Example.ORG", Name{"Alice@Example.ORG", "Alice", "example.org", "alice@example.org"}, "Alice@example.org"},
		{at, "alice@example.org. \t ", Name{"alice@example.org.", "alice", "example.org", "alice@example.org"}, "alice@example.org"},
		{at, "alice+news@example.org", Name{"alice+news@example.org", "alice+news", "example.org", "alice@example.org"}, "alice+news@example.org"},
		{at, "+1555@example.org", Name{"+1555@example.org", "+1555", "example.org", "+1555@example.org"}, "+1555@example.org"},
		{at, "a@b@example.org", Name{"a@b@example.org", "a@b", "example.org", "a@b@example.org"}, "a@b@example.org"},
		{at, "alice%example.org", Name{"alice%example.org", "alice%example.org", "", "alice%example.org"}, "alice%example.org"},
		{percent, "alice%example.org", Name{"alice%example.org", "alice", "example.org", "alice@example.org"}, "alice@example.org"},
		{percent, "a@b%example.org", Name{"a@b%example.org", "a@b", "example.org", "a@b@example.org"}, "a@b@example.org"},
		{NameRules{Separators: "§"}, "alice§example.org", Name{"alice§example.org", "alice", "example.org", "alice@example.org"}, "alice@example.org"},
		{home, "alice", Name{"alice", "alice", "example.org", "alice@example.org"}, "alice@example.org"},
		{home, "alice@example.com", Name{"alice@example.com", "alice", "example.com", "alice@example.com"}, "alice@example.com"},
		{at, "jörg@Bücher.example", Name{"jörg@Bücher.example", "jörg", "xn--bcher-kva.example", "jörg@xn--bcher-kva.example"}, "jörg@xn--bcher-kva.example"},
		{at, "JÖRG@XN--BCHER-KVA.example", Name{"JÖRG@XN--BCHER-KVA.example", "JÖRG", "xn--bcher-kva.example", "jörg@xn--bcher-kva.example"}, "JÖRG@xn--bcher-kva.example"},
		{at, "a@ex。example。", Name{"a@ex。example。", "a", "ex.example", "a@ex.example"}, "a@ex.example"},
		{at, "a@my_host.example", Name{"a@my_host.example", "a", "my_host.example", "a@my_host.example"}, "a@my_host.example"},
		{at, "J\xd6rg@example.org", Name{"J\xd6rg@example.org", "J\xd6rg", "example.org", "j\xd6rg@example.org"}, "J\xd6rg@example.org"},
		{at, "alice*root@example.org", Name{"alice*root@example.org", "alice*root", "example.org", "alice*root@example.org"}, "alice*root@example.org"},
		{at, strings.Repeat("a", 320), Name{strings.Repeat("a", 320), strings.Repeat("a", 320), "", strings.Repeat("a", 320)}, strings.Repeat("a", 320)},

		{rules: master, typed: "alice*root"},
		{rules: master, typed: "alice/root@example.org"},
		{rules: at, typed: ""},
		{rules: at, typed: " \t"},
		{rules: at, typed: " alice"},
		{rules: at, typed: "al ice"},
		{rules: at, typed: "al\tice"},
		{rules: at, typed: "alice\r\nDELE 1"},
		{rules: at, typed: "alice\r"},
		{rules: at, typed: "al\x00ice"},
		{rules: at, typed: "al\x7fice"},
		{rules: at, typed: "al\u0085ice"},
		{rules: at, typed: "al\u2028ice"},
		{rules: at, typed: "@example.org"},
		{rules: at, typed: "alice@"},
		{rules: home, typed: "alice@"},
		{rules: home, typed: "alice@."},
		{rules: at, typed: "alice@example..org"},
		{rules: at, typed: "alice@.example.org"},
		{rules: at, typed: "alice@example.org.."},
		{rules: at, typed: "alice@exa!mple.org"},
		{rules: at, typed: "alice@[192.0.2.1]"},
		{rules: at, typed: "alice@xn--a.example"},
		{rules: at, typed: "alice@" + strings.Repeat("a", 64) + ".example"},
		{rules: at, typed: "alice@" + strings.Repeat("a.", 127) + "example"},
		{rules: at, typed: strings.Repeat("a", 321)},
	}
	for _, tt := range tests {
		got, err := tt.rules.Parse([]byte(tt.typed))
		if tt.want == (Name{}) {
			if !errors.Is(err, ErrBadName) || got != (Name{}) {
				t.Errorf("%+v.Parse(%q) = %+v, %v, want ErrBadName", tt.rules, tt.typed, got, err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%+v.Parse(%q) = %+v, %v, want %+v", tt.rules, tt.typed, got, err, tt.want)
		}
		if got.Full() != tt.full {
			t.Errorf("Parse(%q).Full() = %q, want %q", tt.typed, got.Full(), tt.full)
		}
	}
}

// A name keeps its own bytes: the line it was read from is wiped.
func TestParseNameCopies(t *testing.T) {
	line := []byte("alice@example.org")
	n, err := NameRules{}.Parse(line)
	clear(line)
	if err != nil || n.Typed != "alice@example.org" || n.Local != "alice" || n.Key != "alice@example.org" {
		t.Errorf("after its line was wiped: %+v, %v", n, err)
	}
}

func TestDomain(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"example.org":              "example.org",
		"EXAMPLE.org.":             "example.org",
		"faß.example":              "xn--fa-hia.example", // IDNA 2008: not fass
		"\u0130.example":           "xn--i-9bb.example",  // a capital dotted I is an i and a dot above
		"xn--bcher-kva.example":    "xn--bcher-kva.example",
		"_dmarc.example":           "_dmarc.example",
		"R3---SN.example":          "r3---sn.example", // as in lower case, although IDNA refuses it
		"b\u00fccher\uff0eexample": "xn--bcher-kva.example",
	} {
		if got, err := Domain(in); got != want || err != nil {
			t.Errorf("Domain(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		".", "..", "a..b", "*.example.org", "a b", "a:b", "-\u00fc.example", "xn--.example", "\xff.example", "-bad.example",
		"BAD-.example", "a.-", "\uff0dbad.example", "192.0.2.1:110", "[::1]", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a",
	} {
		if got, err := Domain(in); err == nil {
			t.Errorf("Domain(%q) = %q, want an error", in, got)
		}
	}
}

func TestHostname(t *testing.T) {
	for in, want := range map[string]bool{
		"mail.example.org": true, "old_box": true, "_x": true, "a--b.example": true, "192.0.2.1": true, strings.Repeat("a.", 126) + "a": true,
		"": false, ".": false, "a.": false, "a..b": false, "-a.example": false, "a.b-": false, "-": false, "Mail.example.org": false,
		"*.example.org": false, "m\u00fcnchen.example": false, "a b": false, "a\r\n": false, strings.Repeat("a", 63): true,
		strings.Repeat("a", 64): false, strings.Repeat("a.", 126) + "aa": false,
	} {
		if got := Hostname(in); got != want {
			t.Errorf("Hostname(%q) = %v, want %v", in, got, want)
		}
	}
}

func FuzzName(f *testing.F) {
	f.Add("alice@example.org", "", "@", "*")
	f.Add("J\xd6rg+x%B\u00fccher.example. ", "example.org", "@%", "")
	f.Add("a\u0130@xn--i-9bb.\u3002", "\u3002", "\u00a7", "\ufffd")
	f.Fuzz(func(t *testing.T, typed, home, separators, forbidden string) {
		rules := NameRules{DefaultDomain: home, Separators: separators, Forbidden: forbidden}
		n, err := rules.Parse([]byte(typed))
		if err != nil {
			if n != (Name{}) || !errors.Is(err, ErrBadName) {
				t.Fatalf("%+v with %v", n, err)
			}
			return
		}
		for _, s := range []string{n.Typed, n.Local, n.Domain, n.Full(), n.Key} {
			if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				t.Fatalf("a blank or control byte in %q of %+v", s, n)
			}
		}
		if n.Local == "" || n.Key == "" || !strings.HasPrefix(n.Typed, n.Local) || !strings.HasPrefix(typed, n.Typed) {
			t.Fatalf("parts of %q do not fit: %+v", typed, n)
		}
		if again, err := Domain(n.Domain); again != n.Domain || err != nil {
			t.Fatalf("Domain(%q) = %q, %v: not a final form", n.Domain, again, err)
		}
		// Counts must not be escaped by spelling: a name typed as its own key has that key.
		if n.Domain == "" || strings.Contains(n.Key[:len(n.Key)-len(n.Domain)-1], "+") {
			return
		}
		if k, err := (NameRules{}).Parse([]byte(n.Key)); err == nil && k.Key != n.Key {
			t.Fatalf("the key %q of %q has the key %q", n.Key, typed, k.Key)
		}
	})
}

func BenchmarkParseName(b *testing.B) {
	typed := []byte("alice@mail.example.org")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (NameRules{Forbidden: "*"}).Parse(typed); err != nil {
			b.Fatal(err)
		}
	}
}

func TestParseAccounts(t *testing.T) {
	for _, tt := range []struct{ text, key, problem string }{
		{"Bob+news@Example.ORG", "bob@example.org", ""},
		{"bob", "bob", ""},
		{"@Example.org.", "@example.org", ""},
		{"@bücher.example", "@xn--bcher-kva.example", ""},
		{"@", "", `"@" is not a domain: write it such as @example.org`},
		{"@-x", "", `"@-x" is not a domain: write it such as @example.org`},
		{"bob smith\n", "", `"bob smith\n" is not a user: write it such as bob@example.org, or @example.org for a whole domain`},
	} {
		key, err := ParseAccounts(tt.text)
		if key != tt.key || (err != nil || tt.problem != "") && (err == nil || err.Error() != tt.problem) {
			t.Errorf("%q: got %q, %v; want %q, %s", tt.text, key, err, tt.key, tt.problem)
		}
	}
}
