package configs

import (
	"encoding"
	"reflect"
	"strings"
	"time"
)

// A key is one key that a configuration may have: a section, a list, or a value.
type key struct {
	path    string        // as faults write it, entries of lists without a number: "listeners[].address"
	env     string        // the variable that overrides it; empty for sections, lists and what is inside lists
	field   field         // that stands for it
	initial reflect.Value // what it is when it is not written
}

// section tells whether the key only holds other keys.
func (k key) section() bool { return !isLeaf(k.field.Type) && k.field.Type.Kind() == reflect.Struct }

// entries tells whether the key holds a list whose entries have keys.
func (k key) entries() bool {
	return k.field.Type.Kind() == reflect.Slice && !isLeaf(k.field.Type) && !isLeaf(k.field.Type.Elem())
}

// allKeys returns every key that a Config may have, in the order of the structs that declare them.
func allKeys() []key {
	return keysOf(reflect.ValueOf(Default()).Elem(), elements())
}

// keysOf walks a struct; the entries of its lists begin as defaults says.
func keysOf(root reflect.Value, defaults map[reflect.Type]reflect.Value) []key {
	var keys []key
	var walk func(v reflect.Value, path string, inList bool)
	walk = func(v reflect.Value, path string, inList bool) {
		for _, f := range fields(v.Type()) {
			k := key{path: join(path, f.name), field: f, initial: v.FieldByIndex(f.Index)}
			// A variable cannot say which entry of a list it means.
			if !inList && isLeaf(f.Type) {
				k.env = envName(k.path)
			}
			keys = append(keys, k)
			switch {
			case k.section():
				walk(k.initial, k.path, inList)
			case k.entries():
				entry, ok := defaults[f.Type.Elem()]
				if !ok {
					entry = reflect.Zero(f.Type.Elem())
				}
				walk(entry, k.path+"[]", true)
			}
		}
	}
	walk(root, "", false)
	return keys
}

// A field is a field of a struct that stands for a key.
type field struct {
	reflect.StructField
	name  string
	owner reflect.Type
}

func fields(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		if name := f.Tag.Get(tagName); name != "" && name != "-" {
			all = append(all, field{StructField: f, name: name, owner: t})
		}
	}
	return all
}

// The tag that names a key.
const tagName = "yaml"

var (
	durationType    = reflect.TypeFor[time.Duration]()
	unmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// oneOrMoreType is what lists are that may be written as one word.
var oneOrMoreType = reflect.TypeFor[interface{ OneOrMore() }]()

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
	// Short words are near to everything: two letters of slack for them, more for long ones.
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
	// Three rows of the table are alive at a time: this, the last and, for swaps, the one before.
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
			// Swapped neighbours are the commonest slip of all, and one, not two.
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}
