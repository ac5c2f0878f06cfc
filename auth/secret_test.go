package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const password = "Tr0ub4dor"

// leaks says that text shows the password, in any way fmt knows to show bytes.
func leaks(text string) bool {
	for _, form := range []string{"%s", "%x", "%X", "% x", "%v", "%d", "%08b", "%o", "%q"} {
		shown := strings.Trim(fmt.Sprintf(form, []byte(password)), `[]"`)
		if strings.Contains(text, shown) {
			return true
		}
	}
	return false
}

func TestSecretHiddenInFmt(t *testing.T) {
	s := NewSecret([]byte(password))
	type inner struct{ Credentials *Credentials }
	values := map[string]any{
		"pointer":           s,
		"value":             *s,
		"pointer to it":     &s,
		"in credentials":    Credentials{Mechanism: Plain, Secret: s},
		"in a struct":       &inner{&Credentials{Secret: s}},
		"by value inside":   struct{ Secret Secret }{*s},
		"not exported":      struct{ secret *Secret }{s},
		"both":              struct{ secret Secret }{*s},
		"in a route":        Route{Login: BackendLogin{User: "alice", Secret: s}},
		"in a slice":        []*Secret{s},
		"in a map":          map[string]*Secret{"a": s},
		"in an any":         []any{s, *s},
		"wrapped in errors": fmt.Errorf("log in with %v: %w", s, errors.ErrUnsupported),
	}
	for name, v := range values {
		for _, verb := range "vsqxXdoObcUtTeEfFgGpw" {
			for _, flags := range []string{"", "+", "#", " ", "-20", "020", "+#"} {
				if text := fmt.Sprintf("%"+flags+string(verb), v); leaks(text) {
					t.Errorf("%s shown by %%%s%c: %s", name, flags, verb, text)
				}
			}
		}
	}
	var none *Secret
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%x", s), fmt.Sprintf("%#v", s), s.String(), s.GoString(), fmt.Sprint(none)} {
		if text != hidden {
			t.Errorf("prints as %q, want %q", text, hidden)
		}
	}
	if !leaks(fmt.Sprintf("%v", struct{ b []byte }{[]byte(password)})) {
		t.Error("this test does not see a password that is shown")
	}
}

func TestSecretHiddenInLogsAndJSON(t *testing.T) {
	s := NewSecret([]byte(password))
	c := &Credentials{Mechanism: User, Name: Name{Typed: "alice"}, Secret: s}
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		log := slog.New(h)
		log.Info("m", "pointer", s, "value", *s, "credentials", c, "by value", *c)
		log.With("with", s).WithGroup("g").Info("m", slog.Any("any", []*Secret{s}), "text", fmt.Sprint(s))
	}
	for _, v := range []any{s, c, *c, map[string]any{"s": s}, struct{ S fmt.Stringer }{s}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(hidden)) {
			t.Errorf("JSON of %T is %s", v, b)
		}
		out.Write(b)
	}
	if leaks(out.String()) {
		t.Errorf("the password is shown:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "alice") || !strings.Contains(out.String(), hidden) {
		t.Errorf("nothing was logged:\n%s", out.String())
	}
}

func TestSecretWipe(t *testing.T) {
	given := []byte(password)
	s := NewSecret(given)
	clear(given)
	inside := s.Reveal()
	if string(inside) != password {
		t.Fatalf("Reveal() = %q, want a copy of what was given", inside)
	}
	s.Wipe()
	s.Wipe()
	if len(s.Reveal()) != 0 || !bytes.Equal(inside, make([]byte, len(password))) {
		t.Errorf("after Wipe: Reveal() = %q, its octets %q", s.Reveal(), inside)
	}
	var none *Secret
	none.Wipe()
	if none.Reveal() != nil {
		t.Error("no secret reveals something")
	}
}
