package route

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth"
)

func TestDefaultConfig(t *testing.T) {
	c := DefaultConfig()
	c.Backend = "old"
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
}

func TestValidate(t *testing.T) {
	tests := []struct {
		config       Config
		key, problem string // a part of the problem
	}{
		{Config{Username: "{user}"}, "backend", "missing"},
		{Config{Backend: "b"}, "username", `write "{user}"`},
		{Config{Backend: "b", Username: "{user"}, "username", `"{" without its partner`},
		{Config{Backend: "b", Username: "user}"}, "username", `"}" without its partner`},
		{Config{Backend: "b", Username: "}{"}, "username", "without its partner"},
		{Config{Backend: "b", Username: "{user}{name}"}, "username", `unknown placeholder "{name}": there are {user}, {local} and {domain}`},
		{Config{Backend: "b", Username: "{User}"}, "username", `"{User}"`},
		{Config{Backend: "b", Username: "{}"}, "username", `"{}"`},
		{Config{Backend: "b", Username: "{{user}}"}, "username", `"{{user}"`},
		{Config{Backend: "b", Username: "{local} x"}, "username", "blank or control"},
		{Config{Backend: "b", Username: "{local}\r\nDELE 1"}, "username", "blank or control"},
		{Config{Backend: "b", Username: "{user}", Domains: []string{"ok.example", "*"}}, "domains[1]", "every domain"},
		{Config{Backend: "b", Username: "{user}", Domains: []string{"*.*.example"}}, "domains[0]", `one "*"`},
		{Config{Backend: "b", Username: "{user}", Domains: []string{"mail*.example"}}, "domains[0]", `one "*"`},
		{Config{Backend: "b", Username: "{user}", Domains: []string{"*."}}, "domains[0]", "no domain"},
		{Config{Backend: "b", Username: "{user}", Domains: []string{""}}, "domains[0]", "no domain"},
		{Config{Backend: "b", Username: "{user}", Domains: []string{"a b"}}, "domains[0]", "no domain"},
		{Config{Backend: "b", Username: "{user}", Domains: []string{".example.org"}}, "domains[0]", "no domain"},
		{Config{Backend: "b", Username: "{user}", Domains: []string{"a@example.org"}}, "domains[0]", "address"},
		{Config{Backend: "b", Username: "{user}", ServerNames: []string{"a..b"}}, "server_names[0]", "no domain"},
		{Config{Backend: "b", Username: "{user}", Users: []string{"a", "(", "b"}}, "users[1]", "missing closing )"},
		{Config{Backend: "b", Username: "{user}", Users: []string{""}}, "users[0]", "every user"},
		{Config{Backend: "b", Username: "{user}", Listeners: []string{""}}, "listeners[0]", "empty"},
		{Config{Backend: "b", Username: "{user}", From: []netip.Prefix{{}}}, "from[0]", "no network"},
		{Config{Backend: "b", Username: "{user}", From: networks("::ffff:192.0.2.0/120")}, "from[0]", "no network"},
	}
	for _, tt := range tests {
		var keys []string
		tt.config.Validate(func(key, problem string) {
			keys = append(keys, key)
			if key == tt.key && !strings.Contains(problem, tt.problem) {
				t.Errorf("%+v: %s %s, want %q", tt.config, key, problem, tt.problem)
			}
		})
		if len(keys) != 1 || keys[0] != tt.key {
			t.Errorf("%+v: faults in %q, want one in %s", tt.config, keys, tt.key)
		}
		if _, err := New([]Config{{Backend: "b", Username: "{user}"}, tt.config}, Known{}); err == nil || !strings.Contains(err.Error(), "routes[1]."+tt.key+" ") {
			t.Errorf("New with %+v: %v", tt.config, err)
		}
	}
}

func TestNewTellsAllFaults(t *testing.T) {
	_, err := New([]Config{{Domains: []string{"*", "a b"}}, {Users: []string{"["}, Username: "{x}"}}, Known{})
	if err == nil || strings.Count(err.Error(), "\n") != 6 {
		t.Errorf("want seven faults, got %v", err)
	}
}

func TestTemplate(t *testing.T) {
	n := auth.Name{Typed: "Alice%Example.org", Local: "Alice", Domain: "example.org"}
	for text, want := range map[string]string{
		"{user}":           "Alice%Example.org",
		"{local}":          "Alice",
		"{domain}":         "example.org",
		"{local}@{domain}": "Alice@example.org",
		"x-{local}-y":      "x-Alice-y",
		"shared":           "shared",
		"{local}{local}":   "AliceAlice",
		"jörg/{local}":     "jörg/Alice",
	} {
		tpl, err := parseTemplate(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, err := tpl.expand(n); got != want || err != nil {
			t.Errorf("%q = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"{domain}", "{local}@{domain}"} {
		tpl, _ := parseTemplate(text)
		if got, err := tpl.expand(auth.Name{Typed: "alice", Local: "alice"}); err == nil {
			t.Errorf("%q without a domain = %q", text, got)
		}
	}
}

// Whatever a client types and whatever the template: the backend's USER has one argument of one line.
func FuzzTemplate(f *testing.F) {
	f.Add("{user}", "alice@example.org")
	f.Add("x{local}@{domain}", "J\xd6rg%b\u00fccher.example \t")
	f.Add("{local}\r\n{user}", "a\nb@c")
	f.Fuzz(func(t *testing.T, text, typed string) {
		tpl, err := parseTemplate(text)
		if err != nil {
			return
		}
		n, err := auth.NameRules{Separators: "@%"}.Parse([]byte(typed))
		if err != nil {
			return
		}
		got, err := tpl.expand(n)
		if err != nil {
			if n.Domain != "" || got != "" {
				t.Fatalf("%q with %+v: %q, %v", text, n, got, err)
			}
			return
		}
		if got == "" || strings.ContainsFunc(got, unsendable) {
			t.Fatalf("%q with %q = %q", text, typed, got)
		}
	})
}
