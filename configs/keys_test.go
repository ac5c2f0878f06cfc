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
	for _, k := range Keys() {
		if paths[k.Path] || k.Env != "" && variables[k.Env] {
			t.Errorf("%s, %s: there are two", k.Path, k.Env)
		}
		paths[k.Path], variables[k.Env] = true, true
		if k.Path != strings.ToLower(k.Path) || strings.Contains(k.Path, delimiter) {
			t.Errorf("%s: viper would lose the key", k.Path)
		}
		if k.List() && !isLeaf(k.Type.Elem()) {
			if _, ok := entries[k.Type.Elem()]; !ok {
				t.Errorf("%s: elements has no %s", k.Path, k.Type.Elem())
			}
		}
		if k.Section() || k.List() {
			continue
		}
		to := reflect.New(k.Type).Elem()
		scalar{text: "x", tag: tagText}.set(to) // panics for a type that no key can have
		n, err := written(reflect.ValueOf(k.Default))
		if err != nil {
			t.Errorf("%s: %v", k.Path, err)
			continue
		}
		if problem, _ := (scalar{text: n.Value, tag: n.Tag}).set(to); problem != "" || !reflect.DeepEqual(to.Interface(), k.Default) {
			t.Errorf("%s: the default %v is written %q, which loads as %v %s", k.Path, k.Default, n.Value, to, problem)
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

// nest writes value where the key is, with the least around it, and returns the text and the path that faults name.
func nest(k Key, value string) (text, path string) {
	// Below an entry's key there may be more, so flow style all the way.
	var b strings.Builder
	steps := strings.Split(k.Path, ".")
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
	return b.String(), strings.ReplaceAll(k.Path, "[]", "[0]")
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
	for _, k := range Keys() {
		for shape, value := range map[string]string{"section": "{a: b}", "list": "[[a]]", "text": "some text", "nothing": ""} {
			text, path := nest(k, value)
			plainText := !k.Section() && !k.List() && k.Type.Kind() == reflect.String
			switch {
			case shape == "text" && plainText, shape == "nothing" && (k.Section() || k.List()):
				continue
			case shape == "section" && k.Section():
				path += ".a"
			case shape == "list" && k.List():
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
	for _, k := range Keys() {
		at := strings.LastIndexByte(k.Path, '.') + 1
		name := k.Path[at:]
		if len(name) < 4 {
			continue // another key may be as near
		}
		slip := name[:1] + name[2:3] + name[1:2] + name[3:]
		if slip == name {
			continue
		}
		wrong := k
		wrong.Path = k.Path[:at] + slip
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
	for _, k := range Keys() {
		if k.Env == "" {
			continue
		}
		text, err := k.Written()
		if err != nil {
			t.Errorf("%s: %v", k.Path, err)
		}
		got, err := loadString(plain, k.Env+"="+strings.Trim(text, `'"`))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s=%s: got %+v, %v\nwant %+v", k.Env, text, got, err, want)
		}
		if _, err := loadString(plain, k.Env+"=a\nb"); faultAt(err, k.Env) == nil {
			t.Errorf("%s: two lines are taken: %v", k.Env, err)
		}
	}
}

func TestKeyWords(t *testing.T) {
	want := map[string][2]string{
		"node":                      {"text", `""`},
		"tls.min_version":           {"text", `"1.2"`},
		"listeners":                 {"a list", ""},
		"limits":                    {"a section with keys of its own", ""},
		"limits.sessions":           {"a whole number", "0"},
		"limits.logins_per_ip":      {"a rate", `"0"`},
		"limits.exempt":             {"a list, each entry a network", "[]"},
		"routes[].domains":          {"a list, each entry text", "[]"},
		"bounds.auth_line":          {"a size", "16KiB"},
		"timeouts.idle":             {"a duration", "10m"},
		"listeners[].allow_authzid": {"true or false", "false"},
	}
	needed := map[string]bool{
		"listeners[].name": true, "listeners[].address": true, "tls.certificates[].cert": true, "tls.certificates[].key": true,
		"backends[].name": true, "backends[].servers[].address": true, "routes[].backend": true,
	}
	for _, k := range Keys() {
		if w, ok := want[k.Path]; ok {
			text, err := k.Written()
			if got := k.Wants(); got != w[0] || w[1] != "" && text != w[1] || err != nil {
				t.Errorf("%s: got %s, %s, %v, want %v", k.Path, got, text, err, w)
			}
			delete(want, k.Path)
		}
		if k.Needed != needed[k.Path] {
			t.Errorf("%s: needed is %v", k.Path, k.Needed)
		}
	}
	if len(want) > 0 {
		t.Errorf("there are no keys %v", want)
	}
}
