package configs

import (
	"reflect"
	"strings"
	"testing"
)

// TestKeys holds every package's Config to what this package can load and print.
func TestKeys(t *testing.T) {
	paths, variables := map[string]bool{}, map[string]bool{}
	entries := elements()
	for _, k := range allKeys() {
		if paths[k.path] || k.env != "" && variables[k.env] {
			t.Errorf("%s, %s: there are two", k.path, k.env)
		}
		paths[k.path], variables[k.env] = true, true
		if k.path != strings.ToLower(k.path) || strings.Contains(k.path, delimiter) {
			t.Errorf("%s: viper would lose the key", k.path)
		}
		if k.entries() {
			if _, ok := entries[k.field.Type.Elem()]; !ok {
				t.Errorf("%s: elements has no %s", k.path, k.field.Type.Elem())
			}
		}
		if k.section() || list(k) {
			continue
		}
		to := reflect.New(k.field.Type).Elem()
		scalar{text: "x", tag: tagText}.set(to) // panics for a type that no key can have
		if i, ok := k.initial.Interface().(interface{ Inherited() bool }); ok && i.Inherited() {
			to.Set(k.initial) // "inherit" is understood in entries that begin so, and nowhere else
		}
		n, err := written(k.initial)
		if err != nil {
			t.Errorf("%s: %v", k.path, err)
			continue
		}
		if problem, _ := (scalar{text: n.Value, tag: n.Tag}).set(to); problem != "" || !reflect.DeepEqual(to.Interface(), k.initial.Interface()) {
			t.Errorf("%s: the default %v is written %q, which loads as %v %s", k.path, k.initial.Interface(), n.Value, to, problem)
		}
	}
	for path, env := range map[string]string{
		"limits.sessions": "POPGATE_LIMITS_SESSIONS", "state_dir": "POPGATE_STATE_DIR", "limits.exempt": "",
		"backends[].servers[].weight": "", "tls.certificates[].cert": "", "log": "",
	} {
		if !paths[path] || env != "" && !variables[env] || env == "" && variables[envName(path)] {
			t.Errorf("%s: want the key, and the variable %q alone", path, env)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"address", "name", "tls", "sessions_per_ip", "sessions_per_user"}
	for word, want := range map[string]string{
		"addrss": "address", "addresss": "address", "nmae": "name", "TLS": "tls", "sessions-per-ip": "sessions_per_ip",
		"session_per_usr": "sessions_per_user", "x": "", "colour": "", "": "", strings.Repeat("address", 10): "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}

// list tells whether the key holds a list, of whatever.
func list(k key) bool { return wants(k.field.Type) == "a list" }

// nest writes value where the key is, with the least around it, and returns the text and the path that faults name.
func nest(k key, value string) (text, path string) {
	// Below an entry's key there may be more, so flow style all the way.
	var b strings.Builder
	steps := strings.Split(k.path, ".")
	for i, step := range steps {
		name, inList := strings.CutSuffix(step, "[]")
		b.WriteString("{" + name + ": ")
		if inList {
			b.WriteByte('[')
		}
		if i == len(steps)-1 {
			b.WriteString(value)
		}
	}
	for i := len(steps) - 1; i >= 0; i-- {
		if strings.HasSuffix(steps[i], "[]") {
			b.WriteByte(']')
		}
		b.WriteByte('}')
	}
	return b.String(), strings.ReplaceAll(k.path, "[]", "[0]")
}

func faultAt(err error, path string) *Fault {
	faults, _ := err.(Faults)
	for i := range faults {
		if faults[i].Key == path {
			return &faults[i]
		}
	}
	return nil
}

// TestEveryKeyRefusesOtherShapes writes a section, a list, a text and nothing for each key there is, where something else is wanted.
func TestEveryKeyRefusesOtherShapes(t *testing.T) {
	for _, k := range allKeys() {
		for shape, value := range map[string]string{"section": "{a: b}", "list": "[[a]]", "text": "some text", "nothing": ""} {
			text, path := nest(k, value)
			plainText := !k.section() && !list(k) && k.field.Type.Kind() == reflect.String
			switch {
			case shape == "text" && (plainText || k.field.Type.Implements(oneOrMoreType)), shape == "nothing" && (k.section() || list(k)):
				continue
			case shape == "section" && k.section():
				path += ".a"
			case shape == "list" && list(k):
				path += "[0]"
			}
			_, err := loadString(text)
			f := faultAt(err, path)
			if f == nil {
				t.Errorf("%s: got no fault at %s, but\n%v", text, path, err)
				continue
			}
			if f.Line != 1 || f.Column < 2 || f.Column > len(text) {
				t.Errorf("%s: the fault stands at %d:%d", text, f.Line, f.Column)
			}
		}
	}
}

// TestEveryKeyMisspelt swaps two letters of each key there is.
func TestEveryKeyMisspelt(t *testing.T) {
	for _, k := range allKeys() {
		at := strings.LastIndexByte(k.path, '.') + 1
		name := k.path[at:]
		if len(name) < 4 {
			continue // another key may be as near
		}
		slip := name[:1] + name[2:3] + name[1:2] + name[3:]
		if slip == name {
			continue
		}
		wrong := k
		wrong.path = k.path[:at] + slip
		text, path := nest(wrong, "{}")
		_, err := loadString(text)
		if f := faultAt(err, path); f == nil || f.Hint != "did you mean "+name+"?" {
			t.Errorf("%s: got %v, want a hint at %s\n%v", text, f, name, err)
		}
	}
}

// TestEveryKeyFromEnvironment sets each variable there is to the default, which changes nothing, and to what nothing can be.
func TestEveryKeyFromEnvironment(t *testing.T) {
	want := mustLoad(t, plain)
	for _, k := range allKeys() {
		if k.env == "" {
			continue
		}
		text := writtenDefault(t, k)
		got, err := loadString(plain, k.env+"="+strings.Trim(text, `'"`))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s=%s: got %+v, %v\nwant %+v", k.env, text, got, err, want)
		}
		if _, err := loadString(plain, k.env+"=a\nb"); faultAt(err, k.env) == nil {
			t.Errorf("%s: two lines are taken: %v", k.env, err)
		}
	}
}
