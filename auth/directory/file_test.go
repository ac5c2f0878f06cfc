package directory

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/popgate/popgate/auth"
)

// query is that of a user without a password.
func query(t testing.TB, user string) auth.Query {
	t.Helper()
	n, err := auth.NameRules{}.Parse([]byte(user))
	if err != nil {
		t.Fatalf("%q: %v", user, err)
	}
	return auth.Query{Name: n, Client: &auth.Client{}}
}

// parseText reads a text as one kind of list.
func parseText(parse func(*lines, *builder, *faults) error, text string) (*table, error) {
	b, f := newBuilder(int64(len(text))), faults{path: "f"}
	if err := parse(newLines(strings.NewReader(text)), b, &f); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b.table(), f.err()
}

const csvList = `# the list of a provider
user,backend,server,tls,name,password,master,hash,tenant,allow_nets,disabled,moving,domain
Alice@Example.org,old,,,"al,ice",,,,"a ""tenant""",,,yes,
"bob@bücher.example",,10.0.0.5:110,none,,,,{SSHA}x,t,"10.0.0.0/8 192.0.2.1",,,

carol,new,,,,pa$$ word,boss,$6$x$y,,,true,,
alice+work@example.org,work,,,,,,,,,,,
,domainwide,,,{local}/{domain},,,,,,,,example.org
,wild,,,,,,,,,,,*.Example.NET
,exact,,,,,,,,,,,a.b.example.net
`

const yamlList = `# the list of a provider
---
- user: Alice@Example.org
  backend: old
  name: "al,ice"
  tenant: 'a "tenant"'
  moving: yes
- {user: bob@bücher.example, server: "10.0.0.5:110", tls: none, hash: "{SSHA}x", tenant: t, allow_nets: [10.0.0.0/8, 192.0.2.1]}

-   user: carol # without a domain
    backend: new
    password: pa$$ word
    master: boss
    hash: $6$x$y
    disabled: true
- backend: work
  user: >-
    alice+work@example.org
- domain: example.org
  backend: domainwide
  name: "{local}/{domain}"
- domain: "*.Example.NET"
  backend: wild
- domain: a.b.example.net
  backend: exact
`

func TestFile(t *testing.T) {
	nets := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32")}
	tests := []struct {
		user string
		want Answer // the zero Answer for nobody
	}{
		{"alice@example.org", Answer{Backend: "old", User: "al,ice", Tenant: `a "tenant"`, Moving: true}},
		{"ALICE+news@EXAMPLE.org", Answer{Backend: "old", User: "al,ice", Tenant: `a "tenant"`, Moving: true}},
		{"Alice+Work@example.org", Answer{Backend: "work"}},
		{"bob@xn--bcher-kva.example", Answer{Server: "10.0.0.5:110", TLS: "none", Hash: "{SSHA}x", Tenant: "t", AllowNets: nets}},
		{"Carol", Answer{Backend: "new", User: "carol", Secret: "pa$$ word", Master: "boss", Hash: "$6$x$y", Disabled: true}},
		{"carol@example.com", Answer{}},
		{"Dave@example.org", Answer{Backend: "domainwide", User: "Dave/example.org"}},
		{"x@example.net", Answer{}},
		{"x@b.example.net", Answer{Backend: "wild"}},
		{"x@a.b.example.net", Answer{Backend: "exact"}},
		{"x@z.a.b.example.net", Answer{Backend: "wild"}},
		{"x@bücher.example", Answer{}},
		{"nobody", Answer{}},
	}
	for name, text := range map[string]string{"list.csv": csvList, "list.yaml": yamlList} {
		path := filepath.Join(t.TempDir(), name)
		writeFile(t, path, text)
		o := openFile(t, Config{Type: "file", File: FileConfig{Path: path}})
		for _, tt := range tests {
			q := query(t, tt.user)
			got, err := o.Lookup(t.Context(), &q)
			unknown := reflect.DeepEqual(tt.want, Answer{})
			if !reflect.DeepEqual(got, tt.want) || unknown != errors.Is(err, auth.ErrUnknownUser) || !unknown && err != nil {
				t.Errorf("%s: %s:\n got %+v, %v\nwant %+v", name, tt.user, got, err, tt.want)
			}
		}
		for domain, want := range map[string]bool{
			"example.org": true, "xn--bcher-kva.example": true, "c.example.net": true, "example.net": false, "a.b.example.net": true,
			"org": false, "example.com": false,
		} {
			if got, err := o.Source.(DomainKnower).KnowsDomain(t.Context(), domain); got != want || err != nil {
				t.Errorf("%s: knows %s = %t, %v", name, domain, got, err)
			}
		}
		if got, want := o.Source.(DomainLister).Domains(), []string{"a.b.example.net", "example.org", "xn--bcher-kva.example"}; !slices.Equal(got, want) {
			t.Errorf("%s: domains %q, want %q", name, got, want)
		}
		if !o.Memory || o.Vary != VaryUser {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

func TestFileFaults(t *testing.T) {
	const secret = "geheim"
	for text, want := range map[string]string{
		"usr,backend\n":                                "f:1: has no header",
		"user,user\n":                                  "f:1: names the column user twice",
		"user,backend\n\nalice\n":                      "f:3: has 1 fields",
		"user,backend\nalice,\"b\n":                    "f:2: has a quote that is not closed",
		"user,backend\nalice,b\"c\n":                   "f:2: has a quote inside",
		"user,backend\na lice,b\n":                     "f:2: has the user",
		"user,backend\n@example.org,b\n":               "has the domain as its domain",
		"user,domain\nalice,example.org\n":             "one entry for each",
		"user,domain\n,\n":                             "for nobody",
		"domain\n*.*.org\n":                            "f:2: has the domain",
		"domain,hash\nexample.org,x\n":                 "no two users",
		"domain,name\nexample.org,{x}\n":               "there are {user}",
		"user,tls,server\na,ssl,h\n":                   `has tls "ssl"`,
		"user,tls\na,none\n":                           "without a server",
		"user,master\na,m\n":                           "without its password",
		"user,password\na," + secret + "\n":            "no hash to check",
		"domain,password\nexample.org," + secret:       "no hash to check",
		"user,password,hash\na," + secret + "\x01,x":   "has a password that has a control byte",
		"user,server\na,h:x\n":                         "has the port",
		"user,server\na,h h\n":                         "neither an address nor a host name",
		"user,disabled\na,perhaps\n":                   "neither true nor false",
		"user,allow_nets\na,10.0.0.0/33\n":             "no network",
		"user,allow_nets\na,\",\"\n":                   "names no network",
		"user,name\na,b\x7f\n":                         "blank or control byte",
		"user\nAlice@x.org\nalice@X.org\n":             `f:3: "alice@x.org" is in line 2 already`,
		"domain\nx.org\nX.org\n":                       `f:3: "x.org" is in line 2 already`,
		"user\n" + strings.Repeat("x", 70000) + "\n":   "line 2 is longer",
		"user,domain\n" + strings.Repeat("a b,\n", 15): "; and 5 more",
	} {
		_, err := parseText(parseCSV, text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"users:\n- user: a\n":                                        "f:1: is not part of a list",
		"- user: a\nbackend: b\n":                                    "f:2: is not part of a list",
		"- user: a\n  backend: b\n  color: red\n":                    `f:3: has the key "color"`,
		"- user: a\n  user: b\n":                                     "f:2: user is there twice",
		"- user: a\n- alice\n":                                       "f:2: begins an element that is no mapping",
		"- user: a\n- user: [b\n":                                    "f:2: is no YAML",
		"- user: \"a\n- user: b\n":                                   "is no YAML",
		"- user: &x a\n":                                             "anchor",
		"- user: a\n  hash: x\n  password: *" + secret + "\n":        "must be in quotes",
		"- user: a\n  backend: {x: y}\n":                             "f:2: backend is no single value",
		"- user: a\n\n# no\n- user: A\n":                             `f:4: "a" is in line 1 already`,
		"- user: a\n- user:\n":                                       "f:2: is for nobody",
		"- user: a\n  name: |\n" + strings.Repeat("    x\n", 300000): "more than 1048576 bytes",
	} {
		_, err := parseText(parseYAML, text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

func TestFileConfig(t *testing.T) {
	for _, tt := range []struct {
		c   FileConfig
		key string
	}{
		{FileConfig{Path: "/x/users.csv"}, ""}, {FileConfig{Path: "/x/users.YML"}, ""}, {FileConfig{Path: "users", Format: "yaml"}, ""},
		{FileConfig{}, "path"}, {FileConfig{Path: "users"}, "format"}, {FileConfig{Path: "users.csv", Format: "xml"}, "format"},
	} {
		got := ""
		tt.c.validate(func(key, _ string) { got += key })
		if got != tt.key {
			t.Errorf("%+v: faults in %q, want %q", tt.c, got, tt.key)
		}
	}
}

// row is an entry as random tests make it: a text for each column.
func randomRow(r *rand.Rand, n int) map[string]string {
	pick := func(all ...string) string { return all[r.IntN(len(all))] }
	row := map[string]string{
		"backend": pick("", "old", "new, or not", `"q"`), "tenant": pick("", "a b", "#x", "null", "~", "0x10", "yes"),
		"moving": pick("", "true", "false"), "disabled": pick("", "true"), "allow_nets": pick("", "10.0.0.0/8", "::1 10.0.0.0/8"),
	}
	if r.IntN(4) == 0 {
		row["domain"], row["name"] = fmt.Sprintf("%sd%d.example.org", pick("", "*."), n), pick("", "{local}", "x-{user}")
		return row
	}
	row["user"] = fmt.Sprintf("%s%d%s", pick("a", "jörg", "x.y", "A+b", "-", "'"), n, pick("", "@example.org", "@Bücher.example"))
	row["name"] = pick("", "{local}", "b@c", "@x", "*y", "&z")
	row["hash"] = pick("", "$6$x", "{PLAIN}a: b #c", "*")
	if row["hash"] != "" {
		row["password"] = pick("", " blank ", "'", `\`, "- x", "[", "true")
	}
	if row["server"] = pick("", "10.0.0.1:110", "host.example"); row["server"] != "" {
		row["tls"] = pick("", "starttls")
	}
	return row
}

// Both forms of a list, as other programs write them, are read as the same list, in which everybody is found as written.
func TestFileReadsWhatOthersWrite(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var rows []map[string]string
	var asCSV strings.Builder
	w := csv.NewWriter(&asCSV)
	_ = w.Write(columns)
	for n := range 2000 {
		row := randomRow(r, n)
		rows = append(rows, row)
		var fields []string
		for _, c := range columns {
			fields = append(fields, row[c])
		}
		_ = w.Write(fields)
	}
	w.Flush()
	asYAML, err := yaml.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	one, err := parseText(parseCSV, asCSV.String())
	if err != nil {
		t.Fatal(err)
	}
	two, err := parseText(parseYAML, string(asYAML))
	if err != nil {
		t.Fatal(err)
	}
	if one.entries() != len(rows) || two.entries() != len(rows) {
		t.Fatalf("%d and %d entries of %d", one.entries(), two.entries(), len(rows))
	}
	for _, row := range rows {
		var want listed
		for n, c := range columns {
			if err := want.set(n, row[c]); err != nil {
				t.Fatal(err)
			}
		}
		for _, tab := range []*table{one, two} {
			if got := tab.entry(t, row["user"], row["domain"]); !reflect.DeepEqual(got, want.Answer) {
				t.Fatalf("%v:\n got %+v\nwant %+v", row, got, want.Answer)
			}
		}
	}
}

// entry finds the entry for a user or domain.
func (t *table) entry(tt testing.TB, user, domain string) Answer {
	tt.Helper()
	x, key := &t.users, []byte(nil)
	if user != "" {
		n, err := split(user)
		if err != nil {
			tt.Fatal(err)
		}
		key = userKey(nil, n.Local, n.Domain)
	} else {
		rest, below := strings.CutPrefix(domain, "*.")
		if x = &t.domains; below {
			x = &t.below
		}
		d, _ := auth.Domain(rest)
		key = []byte(d)
	}
	place, ok := x.find(t.arena, key, true)
	if !ok {
		tt.Fatalf("no entry for %s%s", user, domain)
	}
	return t.at(place).Answer
}

// The lists that the documentation shows.
func TestExampleLists(t *testing.T) {
	const lists = "../../configs/examples/lists/"
	maps := defaultPopmap()
	maps.QueryKey, maps.UsernameFromDatabase = []string{`\U`, `\D\d`}, true
	popmap, popmapRE, passwdFile := maps, maps, defaultPasswdFile()
	popmap.Path, popmapRE.Path, passwdFile.Path = lists+"popmap", lists+"popmap.re", lists+"passwd"
	for _, tt := range []struct {
		c    Config
		user string
		want Answer
	}{
		{Config{Type: "file", File: FileConfig{Path: lists + "users.csv"}}, "erin@customer.example", Answer{Backend: "new", User: "erin", Tenant: "customer"}},
		{Config{Type: "file", File: FileConfig{Path: lists + "users.yaml"}}, "erin@customer.example", Answer{Backend: "new", User: "erin", Tenant: "customer"}},
		{Config{Type: "popmap", Popmap: popmap}, "erin@customer.example", Answer{Server: "[2001:db8::110]:110"}},
		{Config{Type: "popmap_re", PopmapRE: popmapRE}, "erin@web.hosting.example", Answer{User: "erin", Server: "pop.web.example.net"}},
		{Config{Type: "passwd_file", PasswdFile: passwdFile}, "alice@example.net",
			Answer{Server: "10.20.0.12", User: "alice", Hash: "{SSHA}KxeAUiPn2RTSOaAYeY57OYcCxDEbE6t0"}},
	} {
		o := openFile(t, tt.c)
		q := query(t, tt.user)
		if got, err := o.Lookup(t.Context(), &q); !reflect.DeepEqual(got, tt.want) || err != nil {
			t.Errorf("%s: %s is %+v, %v, want %+v", tt.c.Type, tt.user, got, err, tt.want)
		}
	}
	one, two := openFile(t, Config{Type: "file", File: FileConfig{Path: lists + "users.csv"}}), openFile(t, Config{Type: "file", File: FileConfig{Path: lists + "users.yaml"}})
	for _, user := range []string{"alice@example.net", "bob@example.net", "carol@customer.example", "dave@example.net", "x@y.hosting.example"} {
		q := query(t, user)
		a, err := one.Lookup(t.Context(), &q)
		b, err2 := two.Lookup(t.Context(), &q)
		if !reflect.DeepEqual(a, b) || err != nil || err2 != nil {
			t.Errorf("%s: %+v, %v in CSV and %+v, %v in YAML", user, a, err, b, err2)
		}
	}
}
