package directory

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
)

// openPasswd opens a passwd-file with a text, and gives what it logs.
func openPasswd(t testing.TB, text string, change func(c *PasswdFileConfig)) (Opened, *bytes.Buffer, error) {
	t.Helper()
	c := defaultPasswdFile()
	c.Path = filepath.Join(t.TempDir(), "passwd")
	writeFile(t, c.Path, text)
	if change != nil {
		change(&c)
	}
	var log bytes.Buffer
	o, err := newPasswdFile("p", c, slog.New(slog.NewTextHandler(&log, nil)))
	return o, &log, err
}

func TestPasswdFile(t *testing.T) {
	const text = `# users
Alice@Example.org:{SSHA}x:1:2:g:/h:/s:proxy host=10.0.0.1 port=110 destuser=%n pass=p%%w master=m userdb_mail=x
bob@example.org:$6$x$y::::::proxy host=mail.example.net starttls=any-cert nologin allow_nets=10.0.0.0/8,local,::1
carol:plain
dave@example.org:::::::allow_nets=local nopassword proxy_maybe host=[2001:db8::1] ssl=yes
`
	o, log, err := openPasswd(t, text, func(c *PasswdFileConfig) { c.DefaultScheme = "PLAIN" })
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]Answer{
		"alice@example.ORG": {Hash: "{SSHA}x", Server: "10.0.0.1:110", User: "Alice", Secret: "p%w", Master: "m"},
		"bob@example.org": {Hash: "{PLAIN}$6$x$y", Server: "mail.example.net", TLS: "starttls", Disabled: true,
			AllowNets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
		"carol":            {Hash: "{PLAIN}plain"},
		"dave@example.org": {Server: "[2001:db8::1]:995", TLS: "implicit", AllowNets: []netip.Prefix{nowhere}},
	} {
		q := query(t, user)
		if got, err := o.Lookup(t.Context(), &q); !reflect.DeepEqual(got, want) || err != nil {
			t.Errorf("%s:\n got %v %+v, %v\nwant %v", user, got, got.AllowNets, err, want)
		}
	}
	for _, user := range []string{"carol@example.org", "alice", "alice+x@example.org"} {
		q := query(t, user)
		if _, err := o.Lookup(t.Context(), &q); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%s: %v", user, err)
		}
	}
	if got := o.Source.(DomainLister).Domains(); !slices.Equal(got, []string{"example.org"}) {
		t.Errorf("domains %q", got)
	}
	if knows, err := o.Source.(DomainKnower).KnowsDomain(t.Context(), "example.org"); !knows || err != nil {
		t.Errorf("knows example.org: %t, %v", knows, err)
	}
	if !strings.Contains(log.String(), "starttls=any-cert") {
		t.Errorf("log %s", log)
	}
}

func TestPasswdFileWarnsOnce(t *testing.T) {
	const fields = "{PLAIN}x::::::proxy host=10.0.0.1 proxy_timeout=5 hostip=10.0.0.2 quota=7 userdb_proxy_x=1\n"
	_, log, err := openPasswd(t, "a:"+fields+"b:"+fields, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := log.String(); strings.Count(got, "proxy_timeout") != 1 || strings.Count(got, "hostip") != 1 || strings.Count(got, "line=1") != 2 || strings.Contains(got, "quota") {
		t.Errorf("log %s", got)
	}
}

func TestPasswdFileFaults(t *testing.T) {
	const secret = "geheim"
	for text, want := range map[string]string{
		"a b:x\n":                 "passwd:1: has the user",
		"a:{PLAIN}x::::::proxy\n": "without host",
		"a:{PLAIN}x::::::proxy host=h h\n\nb:{PLAIN}x::::::proxy host=h:h\n": "passwd:3: has the host",
		"a:{PLAIN}x::::::proxy host=h port=0\n":                              "has the port",
		"a:{PLAIN}x::::::proxy host=h master=m\n":                            "without pass",
		"a:::::::proxy host=h nopassword pass=" + secret:                     "whoever came would be let in",
		"a:{PLAIN}x::::::proxy host=h pass=%{" + secret + "}\n":              "cannot fill in",
		"a:{PLAIN}x::::::proxy host=%s\n":                                    "cannot fill in",
		"a:{PLAIN}" + secret + "\x01\n":                                      "has a password that has a control byte",
		"a:{PLAIN}x::::::allow_nets=10.0.0.0/99\n":                           "no network",
		"a:x::::::noauthenticate\n":                                          "noauthenticate",
		"a:0123[56]\n":                                                       "DIGEST-MD5",
		"A@x.org:x\n#\na@X.org:x\n":                                          `passwd:3: "a@x.org" is in line 1 already`,
	} {
		_, _, err := openPasswd(t, text, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestPasswdFileConfig(t *testing.T) {
	for _, tt := range []struct {
		key    string
		change func(c *PasswdFileConfig)
	}{
		{"", func(*PasswdFileConfig) {}},
		{"path", func(c *PasswdFileConfig) { c.Path = "" }},
		{"path", func(c *PasswdFileConfig) { c.Path = "/etc/%d/passwd" }},
		{"default_scheme", func(c *PasswdFileConfig) { c.DefaultScheme = "{CRYPT}" }},
		{"username_format", func(c *PasswdFileConfig) { c.UsernameFormat = "%s" }},
	} {
		c := defaultPasswdFile()
		c.Path = "passwd"
		tt.change(&c)
		got := ""
		c.validate(func(key, _ string) { got += key })
		if got != tt.key {
			t.Errorf("%+v: faults in %q, want %q", c, got, tt.key)
		}
	}
}

// A passwd-file that is taken gives each of its users an answer that can be told to a server, or refuses him; and a password for
// the backend never without a hash to check the client's against.
func FuzzPasswdFile(f *testing.F) {
	f.Add("a:{PLAIN}x:1:2:g:/h:/s:proxy host=10.0.0.1 port=110 destuser=%n pass=p master=m ssl=yes nologin allow_nets=::1\n", false)
	f.Add("a:x[34]\n:b\n#c\nd::::::::mail\n", true)
	f.Fuzz(func(t *testing.T, text string, local bool) {
		c := defaultPasswdFile()
		if local {
			c.UsernameFormat = "%n"
		}
		p := passwdParser{config: c, log: slog.New(slog.DiscardHandler), warned: map[string]bool{}}
		tab, err := parseText(p.parse, text)
		if err != nil {
			return
		}
		all := checker{allowed: []allowed{{network: netip.MustParsePrefix("0.0.0.0/0")}, {network: netip.MustParsePrefix("::/0")}}}
		tab.users.each(tab.arena, func(key string) {
			place, ok := tab.users.find(tab.arena, []byte(key), true)
			if !ok {
				t.Fatalf("%q is not found", key)
			}
			r := tab.at(place)
			if r.Secret != "" && r.Hash == "" && !r.refused {
				t.Fatalf("%q would let everybody in", key)
			}
			if err := all.check(&r.Answer); err != nil && !strings.Contains(err.Error(), "not in allowed_servers") {
				t.Fatalf("%q: %v: %v", key, r.Answer, err)
			}
		})
	})
}
