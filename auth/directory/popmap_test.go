package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
)

// openMap opens a popmap or popmap.re with a text.
func openMap(t testing.TB, kind, text string, change func(c *PopmapConfig)) Opened {
	t.Helper()
	path := filepath.Join(t.TempDir(), "map")
	writeFile(t, path, text)
	c := Config{Type: kind, Popmap: defaultPopmap(), PopmapRE: defaultPopmap()}
	section := &c.Popmap
	if kind == "popmap_re" {
		section = &c.PopmapRE
	}
	section.Path = path
	if change != nil {
		change(section)
	}
	return openFile(t, c)
}

func TestPopmapValue(t *testing.T) {
	for _, tt := range []struct {
		value, delimiter string
		want             Answer
		fault            string
	}{
		{"host", "@", Answer{Server: "host"}, ""},
		{"Mail.Example.ORG:110", "@", Answer{Server: "mail.example.org:110"}, ""},
		{"10.0.0.1", "@", Answer{Server: "10.0.0.1"}, ""},
		{"10.0.0.1:pop3s", "@", Answer{Server: "10.0.0.1:995"}, ""},
		{"jane@foo.bar", "@", Answer{User: "jane", Server: "foo.bar"}, ""},
		{"jane@home@foo.bar:1", "@", Answer{User: "jane@home", Server: "foo.bar:1"}, ""},
		{"jane%foo.bar", "%", Answer{User: "jane", Server: "foo.bar"}, ""},
		{"jane::foo.bar:2", "::", Answer{User: "jane", Server: "foo.bar:2"}, ""},
		{"[2001:db8::1]", "@", Answer{Server: "2001:db8::1"}, ""},
		{"jane@[2001:DB8::1]:110", "@", Answer{User: "jane", Server: "[2001:db8::1]:110"}, ""},
		{"host:", "@", Answer{Server: "host"}, ""},
		{"jane@", "@", Answer{User: "jane"}, ""}, // Perdition: outgoing_server
		{":110", "@", Answer{}, ""},
		{"2001:db8::1", "@", Answer{}, "[2001:db8::1]"},
		{"host:0", "@", Answer{}, "port"},
		{"host:nosuchservice", "@", Answer{}, "port"},
		{"ho st", "@", Answer{}, "host"},
		{"[::1]x", "@", Answer{}, "behind its address"},
		{"a\x01b@host", "@", Answer{}, "control byte"},
	} {
		c := defaultPopmap()
		c.DomainDelimiter = tt.delimiter
		got, err := newPerdition(&c).value(tt.value)
		if tt.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("%q: %v, want %q", tt.value, err, tt.fault)
			}
			continue
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) || err != nil {
			t.Errorf("%q: %v, %v, want %v", tt.value, got, err, tt.want)
		}
	}
}

func TestPopmapQueryKeys(t *testing.T) {
	client := &auth.Client{Addr: netip.MustParseAddrPort("[2001:db8::7]:4711"), Local: netip.MustParseAddrPort("192.0.2.1:995")}
	for _, tt := range []struct{ format, user, want string }{
		{`\U`, "a@b.example", "a@b.example"},
		{`\u`, "a@x@b.example", "a@x"},
		{`\d`, "a@x@b.example", "b.example"},
		{`\u-\d`, "a", "a-"},
		{`\D\d`, "a", "@"},
		{`\i/\p/\I/\P`, "a", "2001:db8::7/4711/192.0.2.1/995"},
		{`x\\\uy`, "a@b.example", `x\ay`},
	} {
		k, err := parseKey(tt.format)
		if err != nil {
			t.Fatal(err)
		}
		c := defaultPopmap()
		if got := string(newPerdition(&c).key(nil, k, []byte(tt.user), client)); got != tt.want {
			t.Errorf("%s of %s: got %q, want %q", tt.format, tt.user, got, tt.want)
		}
	}
}

func TestPopmapConfig(t *testing.T) {
	for _, tt := range []struct {
		key, problem string
		change       func(c *PopmapConfig)
	}{
		{"", "", func(*PopmapConfig) {}},
		{"path", "is missing", func(c *PopmapConfig) { c.Path = "" }},
		{"query_key", "is empty", func(c *PopmapConfig) { c.QueryKey = nil }},
		{"query_key[1]", `has \x`, func(c *PopmapConfig) { c.QueryKey = []string{`\U`, `\x`} }},
		{"query_key[0]", "single backslash", func(c *PopmapConfig) { c.QueryKey = []string{`\U\`} }},
		{"query_key[0]", "same for every user", func(c *PopmapConfig) { c.QueryKey = []string{`U`} }},
		{"domain_delimiter", "", func(c *PopmapConfig) { c.DomainDelimiter = "" }},
		{"domain_delimiter", "", func(c *PopmapConfig) { c.DomainDelimiter = ":" }},
		{"strip_domain", "PAM", func(c *PopmapConfig) { c.StripDomain = []string{"local_authentication"} }},
		{"lower_case", "remote_login", func(c *PopmapConfig) { c.LowerCase = []string{"lookup"} }},
		{"add_domain_depth", "negative", func(c *PopmapConfig) { c.AddDomainDepth = -1 }},
		{"explicit_domain", "no domain", func(c *PopmapConfig) { c.ExplicitDomain = "a b" }},
	} {
		c := defaultPopmap()
		c.Path = "popmap"
		tt.change(&c)
		var keys []string
		c.validate(func(key, problem string) {
			if keys = append(keys, key); !strings.Contains(problem, tt.problem) {
				t.Errorf("%s %s, want %q", key, problem, tt.problem)
			}
		})
		if got := strings.Join(keys, " "); got != tt.key {
			t.Errorf("%+v: faults in %q, want %q", c, got, tt.key)
		}
	}
}

// mapFault opens a map that cannot be read.
func mapFault(t *testing.T, open func(string, PopmapConfig, *slog.Logger) (Opened, error), text, want string) {
	t.Helper()
	c := defaultPopmap()
	c.Path = filepath.Join(t.TempDir(), "map")
	writeFile(t, c.Path, text)
	if _, err := open("m", c, nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%.40q: %v, want %q", text, err, want)
	}
}

func TestPopmapFaults(t *testing.T) {
	for text, want := range map[string]string{
		"alice\n":                       "map:1: is not",
		"# x\n\nalice:\n":               "map:3: is not",
		":host\n":                       "map:1: is not",
		"a:h\nb:h h\n":                  "map:2: has the host",
		"a:h\nb:g\na:i\n":               `map:3: "a" is in line 1 already`,
		"a@X.org:h\na@x.ORG:h\n":        "map:2: ",
		strings.Repeat("k", 400) + ":h": "key of 400 bytes",
	} {
		mapFault(t, newPopmap, text, want)
	}
}

func TestPopmapDomains(t *testing.T) {
	const text = "alice@Example.org:h\nbob:h\n@second.example:h\nThird.example:h\nx@bücher.example:h\n"
	o := openMap(t, "popmap", text, func(c *PopmapConfig) { c.QueryKey = []string{`\U`, `\D\d`, `\d`} })
	for domain, want := range map[string]bool{
		"example.org": true, "second.example": true, "third.example": true, "xn--bcher-kva.example": true, "bob": true, "fourth.example": false,
	} {
		if got, err := o.Source.(DomainKnower).KnowsDomain(t.Context(), domain); got != want || err != nil {
			t.Errorf("knows %s = %t, %v", domain, got, err)
		}
	}
	if got := o.Source.(DomainLister).Domains(); !slices.Equal(got, []string{"example.org", "second.example", "xn--bcher-kva.example"}) {
		t.Errorf("domains %q", got)
	}
	for user, want := range map[string]bool{"x@THIRD.example": true, "Alice@example.org": false, "alice@EXAMPLE.org": true, "BOB": false} {
		q := query(t, user)
		if _, err := o.Lookup(t.Context(), &q); errors.Is(err, auth.ErrUnknownUser) == want || err == nil != want {
			t.Errorf("%s: %v, want known %t", user, err, want)
		}
	}
}

func TestPopmapREDomains(t *testing.T) {
	const text = "@example\\.org$: h\n'@(a|b)\\.example$': h\n.*@.*: h\n^q.example: h\n[!-~]c.example: h\n"
	o := openMap(t, "popmap_re", text, func(c *PopmapConfig) { c.QueryKey = []string{`\U`, `\d`} })
	for domain, want := range map[string]bool{
		"example.org": true, "a.example": true, "b.example": true, "q.example": true, "c.example": false, "any.example": false, "example": false,
	} {
		if got, err := o.Source.(DomainKnower).KnowsDomain(t.Context(), domain); got != want || err != nil {
			t.Errorf("knows %s = %t, %v", domain, got, err)
		}
	}
	if got := o.Source.(DomainLister).Domains(); !slices.Equal(got, []string{"a.example", "b.example", "example.org"}) {
		t.Errorf("domains %q", got)
	}
}

func TestPopmapREFaults(t *testing.T) {
	for text, want := range map[string]string{
		"a: b\nalone\n":                     "map:2: has an expression without",
		"a: b\n\"open: b\n":                 "map:2: has a quote that is not closed",
		"a: b\nc: d":                        "map:2: is the last line and has no end",
		"# x\n(: b\n":                       "map:2: has the expression",
		"'(a)\\1': b\n":                     "back-reference",
		"'a\\b': b\n":                       "GNU",
		"[a: b\n":                           "without its ]",
		"'[[.a.]]': b\n":                    "collating",
		"'a{x}': b\n":                       "begins no count",
		"a: b\x01\n":                        "control byte",
		strings.Repeat("y", 5000) + ": b\n": "cut off",
	} {
		mapFault(t, newPopmapRE, text, want)
	}
	o := openMap(t, "popmap_re", "a$: h\n^(.*)x: $1/$1\n", nil)
	q := query(t, "bx")
	if a, err := o.Lookup(t.Context(), &q); err == nil || errors.Is(err, auth.ErrUnknownUser) || !strings.Contains(err.Error(), "map:2 makes") || !errors.As(err, new(contentError)) {
		t.Errorf("a substitute that makes no host: %v, %v", a, err)
	}
}

func TestAddDomainByHostName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openMap(t, "popmap", "alice@example.org:h\n", func(c *PopmapConfig) { c.AddDomain, c.AddDomainDepth = []string{"all"}, 1 })
		m := o.Source.(*popmap)
		asked, down := 0, false
		m.p.hosts.ask = func(_ context.Context, addr string) ([]string, error) {
			asked++
			if down {
				return nil, errors.New("no answer")
			}
			if addr != "192.0.2.1" {
				return nil, &net.DNSError{IsNotFound: true}
			}
			return []string{"Mail.Example.org."}, nil
		}
		look := func(local string) (Answer, error) {
			q := query(t, "alice")
			q.Client = &auth.Client{Local: netip.MustParseAddrPort(local)}
			return o.Lookup(t.Context(), &q)
		}
		for range 2 {
			if a, err := look("192.0.2.1:995"); err != nil || a.User != "alice@example.org" || asked != 1 {
				t.Errorf("got %v, %v after %d questions", a, err, asked)
			}
		}
		if _, err := look("192.0.2.2:995"); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("an address without a name: %v", err)
		}
		down = true
		<-time.After(hostNameLife + time.Second)
		if a, err := look("192.0.2.1:995"); err != nil || a.Server != "h" {
			t.Errorf("DNS is down and the name is old: %v, %v", a, err)
		}
		asked = 0
		for range 3 {
			if _, err := look("192.0.2.3:995"); err == nil || errors.Is(err, auth.ErrUnknownUser) || asked != 1 {
				t.Errorf("DNS is down and the name not known: %v after %d questions", err, asked)
			}
		}
	})
}

func TestPosix(t *testing.T) {
	for _, tt := range []struct {
		posix   string
		yes, no []string
	}{
		{`^a\.b$`, []string{"a.b"}, []string{"axb"}},
		{`^[\.]$`, []string{`\`, "."}, []string{"x"}},
		{`^[]a]$`, []string{"]", "a"}, []string{"b"}},
		{`^[^]a]$`, []string{"b"}, []string{"]", "a"}},
		{`^[[:digit:]x]+$`, []string{"1x2"}, []string{"y"}},
		{`^a{,2}$`, []string{"", "a", "aa"}, []string{"aaa"}},
		{`^a{2,}$`, []string{"aa", "aaa"}, []string{"a"}},
		{`^\n\@$`, []string{"n@"}, []string{"\n@"}},
		{`^[a^]$`, []string{"a", "^"}, []string{"b"}},
	} {
		text, err := posix(tt.posix)
		if err != nil {
			t.Errorf("%s: %v", tt.posix, err)
			continue
		}
		re, err := regexp.CompilePOSIX(text)
		if err != nil {
			t.Errorf("%s as %s: %v", tt.posix, text, err)
			continue
		}
		for _, s := range tt.yes {
			if !re.MatchString(s) {
				t.Errorf("%s as %s does not match %q", tt.posix, text, s)
			}
		}
		for _, s := range tt.no {
			if re.MatchString(s) {
				t.Errorf("%s as %s matches %q", tt.posix, text, s)
			}
		}
	}
}

// A popmap that is taken gives an answer for each of its keys, and one that can be told to a server.
func FuzzPopmap(f *testing.F) {
	f.Add("alice:a@127.0.0.2:110\n@x.example:[::1]:1\n", "@")
	f.Add(strings.ReplaceAll(perditionMapSeed, "@", "%"), "%")
	f.Fuzz(func(t *testing.T, text, delimiter string) {
		c := defaultPopmap()
		c.Path, c.DomainDelimiter, c.UsernameFromDatabase = "popmap", delimiter, true
		bad := false
		c.validate(func(string, string) { bad = true })
		if bad {
			return
		}
		p := newPerdition(&c)
		tab, err := parseText(func(l *lines, b *builder, f *faults) error { return parsePopmap(l, b, f, p) }, text)
		if err != nil {
			return
		}
		all := checker{allowed: []allowed{{network: netip.MustParsePrefix("0.0.0.0/0")}, {network: netip.MustParsePrefix("::/0")}}}
		tab.users.each(tab.arena, func(key string) {
			place, ok := tab.users.find(tab.arena, []byte(key), true)
			if !ok {
				t.Fatalf("%q is not found", key)
			}
			a := tab.at(place).Answer
			if err := all.check(&a); err != nil && !strings.Contains(err.Error(), "not in allowed_servers") {
				t.Fatalf("%q: %v: %v", key, a, err)
			}
		})
	})
}

const perditionMapSeed = "# c\nalice:127.0.0.2\nbob:bob@there:pop3\n@x.example:host:\n"

// Whatever the file and the name, a popmap.re gives an answer or says why not, and never hangs.
func FuzzPopmapRE(f *testing.F) {
	f.Add("^(.*)@x: $1@h\n", "a@x")
	f.Add("'a\\.b' \"c d\"\\ e # f\n[\\]]{,2}: $0$9\n", "a.b")
	f.Add("y*$: h\n", "")
	f.Fuzz(func(t *testing.T, text, key string) {
		r, err := parsePopmapRE(strings.NewReader(text), "f")
		if err != nil {
			return
		}
		value, line := r.find(key)
		if value != "" && (line < 1 || line > strings.Count(text, "\n")+1) {
			t.Fatalf("%q is by line %d", value, line)
		}
	})
}
