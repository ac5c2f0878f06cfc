package directory

import (
	"encoding/csv"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What the reader makes of a line is what encoding/csv makes of it, or a fault.
func FuzzSplitCSV(f *testing.F) {
	for _, s := range []string{`a,b`, `"a,b",c`, `"a""b",`, `a"b`, `"a`, `"a"b`, ``, `,`, `"",""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.ContainsAny(line, "\r\n") || line == "" {
			return
		}
		row, err := splitCSV(nil, []byte(line))
		r := csv.NewReader(strings.NewReader(line))
		want, wantErr := r.Read()
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, encoding/csv says %v", line, err, wantErr)
		}
		if err != nil {
			return
		}
		var got []string
		for _, field := range row {
			got = append(got, string(field))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q: got %q, want %q", line, got, want)
		}
	})
}

// The table that comes of any file is sound, and all its entries are found.
func FuzzFile(f *testing.F) {
	f.Add(csvList, false)
	f.Add(yamlList, true)
	f.Add("- user: a\n", true)
	f.Fuzz(func(t *testing.T, text string, isYAML bool) {
		parse := parseCSV
		if isYAML {
			parse = parseYAML
		}
		tab, err := parseText(parse, text)
		if err != nil {
			return
		}
		found := 0
		for _, x := range []*index{&tab.users, &tab.domains, &tab.below} {
			x.each(tab.arena, func(key string) {
				place, ok := x.find(tab.arena, []byte(key), true)
				if !ok {
					t.Fatalf("%q is not found", key)
				}
				if r := tab.at(place); !r.mention {
					found++
					if r.line < 1 || r.line > strings.Count(text, "\n")+1 {
						t.Fatalf("%q is in line %d", key, r.line)
					}
				}
			})
		}
		if found != tab.entries() {
			t.Fatalf("%d entries, and %d are found", tab.entries(), found)
		}
	})
}

// Where the fast reader of YAML takes an element, it says what the library says.
func FuzzPlainYAML(f *testing.F) {
	for _, s := range []string{"- user: a\n", "- user: a\n  backend: \"b\"\n", "- user: 'a'\n  tenant: 0x1F\n", "- user: null\n", "-  user: a:b\n   name: x\n", "- user: a\n   name: x\n",
		"- {user: a, backend: \"b\"}\n", "- {user: a, name: ''}\n", "- {user: 'a, b'}\n", "- {user: a,b}\n", "- {}\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" || !dash([]byte(text)) {
			return
		}
		p := yamlParser{b: newBuilder(0), faults: &faults{}, item: []byte(text), first: 1}
		var fast, slow listed
		if !p.plain(&fast) {
			return
		}
		if _, err := p.decode(&slow); err != nil || !reflect.DeepEqual(fast, slow) {
			t.Fatalf("%q:\n got %+v\nwant %+v, %v", text, fast, slow, err)
		}
	})
}
