package certs

import (
	"strings"
	"testing"

	"github.com/popgate/popgate/auth/route"
	"github.com/popgate/popgate/proxy"
)

// TestValidNamesCanBeIssued holds that a name in which `popgate check` finds no fault is none that stops `popgate serve`,
// wherever it stands.
func TestValidNamesCanBeIssued(t *testing.T) {
	k := New(t.TempDir(), nil, nil)
	for name, want := range map[string]bool{
		"":                                    true, // no name
		"mail.example.org":                    true,
		"MAIL.Example.org.":                   true,
		"localhost":                           true,
		"old_box":                             true,
		"_x.example":                          true,
		"r3---sn.example":                     true,
		"R3---SN.example":                     true,
		"M\u00dcNCHEN.example":                true,
		"xn--mnchen-3ya.example":              true,
		"ex\u3002example":                     true,
		"\u2615.example":                      true,
		"fa\u00df.example":                    true,
		"192.0.2.1":                           true,
		"192.0.2.256":                         true,
		strings.Repeat("a", 63) + ".example":  true,
		strings.Repeat("a.", 126) + "a":       true,
		"-bad.example.org":                    false,
		"bad-.example.org":                    false,
		"bad.-":                               false,
		"\uff0dbad.example":                   false,
		"xn--\u00fc.example":                  false,
		"xn--a.example":                       false,
		"a..b":                                false,
		"..":                                  false,
		"mail example":                        false,
		"mail.example:995":                    false,
		"https://mail.example":                false,
		"mail.*.example":                      false,
		strings.Repeat("a", 64) + ".example":  false,
		strings.Repeat("a.", 127) + "example": false,
	} {
		listener := proxy.DefaultListener()
		listener.Name, listener.Address, listener.DefaultName = "pop3s", ":995", name
		valid := map[string]bool{"default_name": true, "server_names": true}
		listener.Validate(func(key, _ string) { valid[key] = false })
		_, err := k.Prepare(DefaultConfig(), nil, []Listener{{Name: "pop3s", DefaultName: name}}, Deps{})
		if valid["default_name"] != want || (err == nil) != want {
			t.Errorf("default_name %q: valid: %v, Prepare: %v, want %v", name, valid["default_name"], err, want)
		}
		if name == "" { // a list has none that is empty
			continue
		}
		r := route.DefaultConfig()
		r.Backend, r.ServerNames = "old", []string{name}
		r.Validate(func(key, _ string) { valid[strings.TrimSuffix(key, "[0]")] = false })
		_, err = k.Prepare(DefaultConfig(), []string{name}, []Listener{{Name: "pop3s"}}, Deps{})
		if valid["server_names"] != want || (err == nil) != want {
			t.Errorf("server_names %q: valid: %v, Prepare: %v, want %v", name, valid["server_names"], err, want)
		}
	}
}
