package configs

import (
	"errors"
	"reflect"
	"testing"
	"time"
)

// section of a test, with what no package has yet.
type secretive struct {
	Password string        `yaml:"password" secret:"true"`
	Unset    string        `yaml:"unset" secret:"true"`
	Share    int           `yaml:"share"`
	Every    time.Duration `yaml:"every"`
	Ignored  string        `yaml:"-"`
	Parts    []part        `yaml:"parts"`
}

type part struct {
	Name  string   `yaml:"name"`
	Tags  []string `yaml:"tags"`
	Count int8     `yaml:"count"`
}

func (p part) Validate(fault func(key, problem string)) {
	if p.Count > 100 {
		fault("count", "is too many")
	}
	if len(p.Tags) > 2 {
		fault("", "has too many tags")
	}
}

func loadSecretive(t *testing.T, text string) (secretive, error) {
	t.Helper()
	r := newReport("f")
	root, ok := parse([]byte(text), r)
	if !ok {
		t.Fatal(r.err())
	}
	s := secretive{Every: time.Minute, Parts: []part{{Name: "default", Count: 9}, {Name: "second"}}}
	tree, _ := (&builder{report: r}).value(root, reflect.TypeFor[secretive](), "").(map[string]any)
	defaults := map[reflect.Type]reflect.Value{reflect.TypeFor[part](): reflect.ValueOf(part{Count: 3, Tags: []string{"x", "y"}})}
	if err := decode(&s, tree, nil, defaults, r); err != nil {
		t.Fatal(err)
	}
	validate(reflect.ValueOf(s), "", r)
	return s, r.err()
}

func TestDecode(t *testing.T) {
	got, err := loadSecretive(t, "password: p\nshare: 1\nevery: 2s\nparts: [{name: a, tags: [z]}, {count: 0, tags: []}]\n")
	want := secretive{
		Password: "p", Share: 1, Every: 2 * time.Second,
		Parts: []part{{Name: "a", Tags: []string{"z"}, Count: 3}, {}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	// What one entry was given must not be found in the next configuration's default.
	got, err = loadSecretive(t, "parts: [{}]\n")
	if err != nil || !reflect.DeepEqual(got.Parts, []part{{Count: 3, Tags: []string{"x", "y"}}}) {
		t.Errorf("got %+v, %v, want the entry's default", got.Parts, err)
	}
	got, _ = loadSecretive(t, "share: 5")
	if got.Share != 5 || got.Every != time.Minute || len(got.Parts) != 2 {
		t.Errorf("got %+v, want the defaults beside share", got)
	}
}

func TestDecodeFaults(t *testing.T) {
	_, err := loadSecretive(t, "share: much\nevery: 5\nIgnored: a\nparts:\n- {count: 500}\n- {count: 120}\n- {tags: [a, b, c], count: '1'}\n")
	want := Faults{
		{"f", 1, 8, "share", `is "much", which is no whole number`, "write digits alone, without quotes"},
		{"f", 2, 8, "every", `is "5" without a unit`, "write 5s for seconds, 5m for minutes"},
		{"f", 3, 1, "Ignored", "there is no such key", ""},
		{"f", 5, 11, "parts[0].count", `is "500", which is too large or not whole`, "write a whole number"},
		{"f", 6, 11, "parts[1].count", "is too many", ""},
		{"f", 7, 3, "parts[2]", "has too many tags", ""},
		{"f", 7, 28, "parts[2].count", `is "1", which is no whole number`, "write digits alone, without quotes"},
	}
	if got := (Faults{}); !errors.As(err, &got) || !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%v", err, want)
	}
}
