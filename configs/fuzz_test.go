package configs

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzLoad: whatever the file holds, Load answers with a configuration that prints and loads again as the same, or with faults
// that say where.
func FuzzLoad(f *testing.F) {
	examples, err := filepath.Glob("examples/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, s := range []string{
		plain, everything, "", "a: &a [*a]", "log: &l {<<: *l}", "node: ${HOME}\n", "node: ${X", "{\"node\": 1}", "---\n---\n",
		"limits:\n\tsessions: 1\n", "? [a]\n: b\n", "listeners: [{}, [], ~, 5]\n", "backends: [{servers: [[]]}]\nnode: !!int a\n", "\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := loadString(string(text), "HOME=/root")
		if err != nil {
			lines := 1
			for _, c := range string(text) {
				if strings.ContainsRune("\n\r\u0085\u2028\u2029", c) { // YAML's line breaks
					lines++
				}
			}
			checkFaults(t, err, lines)
			return
		}
		var b strings.Builder
		if err := c.Print(&b); err != nil {
			t.Fatal(err)
		}
		again, err := loadString(b.String())
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("the print\n%s\nloads as %+v, %v\nwant %+v", &b, again, err, c)
		}
	})
}

func checkFaults(t *testing.T, err error, lines int) {
	t.Helper()
	var faults Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		t.Fatalf("got %v, want faults", err)
	}
	last := 0
	for _, f := range faults {
		// The last of too many stands behind them, without a line.
		if f.Line < 0 || f.Line > lines || f.Line < last && f.Line != 0 || f.Line > 0 && f.Column < 1 {
			t.Errorf("%v: not in its place among %d lines", f, lines)
		}
		if f.Problem == "" || strings.ContainsAny(f.Error(), "\n\r\x00") {
			t.Errorf("%q: not one line that says what is wrong", f.Error())
		}
		last = f.Line
	}
}
