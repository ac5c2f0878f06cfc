package configs

import (
	"encoding"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Key is one key that a configuration may have: a section, a list, or a value.
type Key struct {
	Path    string       // as faults write it, entries of lists without a number: "listeners[].address"
	Env     string       // the variable that overrides it; empty for sections, lists and what is inside lists
	Type    reflect.Type // of the value
	Default any          // what it is when it is not written
	Needed  bool         // it has to be written, because its default cannot work
	Struct  reflect.Type // the struct that declares it,
	Field   string       // and the name of its field there
}

// Section tells whether the key only holds other keys.
func (k Key) Section() bool { return !isLeaf(k.Type) && k.Type.Kind() == reflect.Struct }

// List tells whether the key holds a list.
func (k Key) List() bool { return !isLeaf(k.Type) && k.Type.Kind() == reflect.Slice }

// Keys returns every key that a configuration may have, in the order of the structs that declare them.
func Keys() []Key {
	return keysOf(reflect.ValueOf(Default()).Elem(), elements())
}

// Wants says in a user's words what the value looks like, such as "a duration".
func (k Key) Wants() string {
	if k.List() && isLeaf(k.Type.Elem()) {
		return "a list, each entry " + wants(k.Type.Elem())
	}
	return wants(k.Type)
}

// Written returns the default as a file would have it, such as `"1.2"` or `5s`.
func (k Key) Written() (string, error) {
	n, err := written(reflect.ValueOf(k.Default))
	if err != nil {
		return "", err
	}
	b, err := yaml.Marshal(n)
	return strings.TrimSpace(string(b)), err
}

// keysOf walks a struct; the entries of its lists begin as defaults says.
func keysOf(root reflect.Value, defaults map[reflect.Type]reflect.Value) []Key {
	var keys []Key
	faulty := impossible(root, defaults)
	var walk func(v reflect.Value, path string, inList bool)
	walk = func(v reflect.Value, path string, inList bool) {
		for _, f := range fields(v.Type()) {
			k := Key{
				Path: join(path, f.name), Type: f.Type, Struct: f.owner, Field: f.Name,
				Default: v.FieldByIndex(f.Index).Interface(),
			}
			// An entry may be faulty as a whole, then it is for want of all that has no default.
			k.Needed = faulty[k.Path] || faulty[path] && v.FieldByIndex(f.Index).IsZero()
			if !inList && isLeaf(f.Type) {
				k.Env = envName(k.Path)
			}
			keys = append(keys, k)
			switch {
			case k.Section():
				walk(v.FieldByIndex(f.Index), k.Path, inList)
			case k.List() && !isLeaf(f.Type.Elem()):
				element, ok := defaults[f.Type.Elem()]
				if !ok {
					element = reflect.Zero(f.Type.Elem())
				}
				walk(element, k.Path+"[]", true)
			}
		}
	}
	walk(root, "", false)
	return keys
}

// impossible returns the paths at which the validators refuse the defaults, when every list has one entry as it begins.
func impossible(root reflect.Value, defaults map[reflect.Type]reflect.Value) map[string]bool {
	filled := reflect.New(root.Type()).Elem()
	filled.Set(root)
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		for _, f := range fields(v.Type()) {
			switch field := v.FieldByIndex(f.Index); {
			case isLeaf(f.Type):
			case f.Type.Kind() == reflect.Struct:
				fill(field)
			case !isLeaf(f.Type.Elem()):
				field.Set(reflect.MakeSlice(f.Type, 1, 1))
				if d, ok := defaults[f.Type.Elem()]; ok {
					field.Index(0).Set(d)
				}
				fill(field.Index(0))
			}
		}
	}
	fill(filled)
	r := newReport("")
	validate(filled, "", r)
	paths := map[string]bool{}
	for path := range r.broken {
		paths[strings.ReplaceAll(path, "[0]", "[]")] = true
	}
	return paths
}

// A field is a field of a struct that stands for a key.
type field struct {
	reflect.StructField // Index is the way from the outer struct, through inlined ones
	name                string
	owner               reflect.Type
}

func fields(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get(tagName), ",")
		switch {
		case options == tagInline:
			for _, inner := range fields(f.Type) {
				inner.Index = append([]int{i}, inner.Index...)
				all = append(all, inner)
			}
		case name != "" && name != "-":
			all = append(all, field{StructField: f, name: name, owner: t})
		}
	}
	return all
}

// The tag that names a key, and its option that lifts the keys of an embedded struct one level up.
const (
	tagName   = "yaml"
	tagInline = "inline"
)

var (
	durationType    = reflect.TypeFor[time.Duration]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// isLeaf tells whether a value of the type is written as one word: not as a list, nor as keys of its own.
func isLeaf(t reflect.Type) bool {
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Slice || reflect.PointerTo(t).Implements(unmarshalerType)
}

// nearest returns the candidate that word was most likely meant to be, or "".
func nearest(word string, candidates []string) string {
	if len(word) > 64 {
		return "" // no slip of the finger, and comparing costs the product of the lengths
	}
	word = strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	best, least := "", 2+len(word)/4
	for _, c := range candidates {
		if d := distance(word, strings.ToLower(c)); d < least && d < max(len(word), len(c)) {
			best, least = c, d
		}
	}
	return best
}

// distance counts the letters to change, add, drop or swap with their neighbour to make b of a.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, now := rows[(i+2)%3], rows[i%3], rows[(i+1)%3]
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
