package configs

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// everything sets each kind of value to something else than its default, with what YAML and Load could take for something else.
const everything = `
node: "yes"
state_dir: "/var/$${x}/1.5 # no comment"
listeners:
  - {name: a, address: ":995", proxy_protocol_from: [10.0.0.0/8, "::1"], forbidden: "", allow_authzid: true}
  - {name: b, address: "127.0.0.1:110", tls: starttls, default_name: Mail.example.org}
tls: {min_version: "1.3", certificates: [{cert: "/a: b", key: "/é\u2028\u200b"}]}
backends:
  - {name: old, servers: [{address: 192.0.2.1, weight: 0}, {address: 192.0.2.2}], connect_timeout: 1500ms}
  - {name: "null", servers: [{address: "[::1]:110"}]}
routes:
  - {domains: [example.org, "*.example.net"], users: ["^a{2}$"], from: [192.0.2.7], listeners: [a], backend: old, username: "{local}"}
  - {backend: "null"}
limits: {sessions: 5, logins_per_ip: 60/m, failure_delay: 0}
timeouts: {idle: 0s, stall: 1h2m3s}
bounds: {line: 2KiB, auth_line: 1000}
audit: {path: ""}
metrics: {address: ""}
`

func TestPrintLoads(t *testing.T) {
	for name, text := range map[string]string{"least": plain, "everything": everything} {
		c := mustLoad(t, text)
		var b, again strings.Builder
		if err := c.Print(&b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := mustLoad(t, b.String())
		if !reflect.DeepEqual(got, c) {
			t.Errorf("%s: the print\n%s\nloads as %+v\nwant %+v", name, &b, got, c)
		}
		if err := got.Print(&again); err != nil || again.String() != b.String() {
			t.Errorf("%s: prints differ (%v):\n%s\n%s", name, err, &b, &again)
		}
	}
}

func TestPrintText(t *testing.T) {
	var b strings.Builder
	if err := mustLoad(t, everything).Print(&b); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 10 * time.Minute: "10m", time.Hour: "1h", 10 * time.Second: "10s",
		time.Hour + time.Second: "1h0m1s", 90 * time.Minute: "1h30m", 20 * time.Hour: "20h", -time.Minute: "-1m",
	} {
		if got := short(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	for _, line := range []string{
		`node: "yes"`, `state_dir: '/var/$${x}/1.5 # no comment'`, `    proxy_protocol_from: [10.0.0.0/8, '::1/128']`,
		`  min_version: "1.3"`, `    connect_timeout: 1.5s`, `      - address: 192.0.2.1`, `        weight: 0`, `  logins_per_ip: 60/m`,
		`  failure_delay: 0s`, `  stall: 1h2m3s`, `  line: 2KiB`, `  exempt: []`, `    forbidden: ""`,
	} {
		if !strings.Contains(b.String(), "\n"+line+"\n") && !strings.HasPrefix(b.String(), line+"\n") {
			t.Errorf("no line %q in\n%s", line, &b)
		}
	}
}

// section of a test, with what no package has yet.
type secretive struct {
	Password string  `yaml:"password" secret:"true"`
	Unset    string  `yaml:"unset" secret:"true"`
	Share    float64 `yaml:"share"`
	Common   `yaml:",inline"`
	Ignored  string `yaml:"-"`
	Parts    []part `yaml:"parts"`
}

// Common is inlined.
type Common struct {
	Every time.Duration `yaml:"every"`
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
	s := secretive{Common: Common{Every: time.Minute}, Parts: []part{{Name: "default", Count: 9}, {Name: "second"}}}
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
		Password: "p", Share: 1, Common: Common{Every: 2 * time.Second},
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
	got, _ = loadSecretive(t, "share: 0.5")
	if got.Share != 0.5 || got.Every != time.Minute || len(got.Parts) != 2 {
		t.Errorf("got %+v, want the defaults beside share", got)
	}
}

func TestDecodeFaults(t *testing.T) {
	_, err := loadSecretive(t, "share: much\nevery: 5\nIgnored: a\nparts:\n- {count: 500}\n- {count: 120}\n- {tags: [a, b, c], count: '1'}\n")
	want := Faults{
		{"f", 1, 8, "share", `is "much", which is no number`, "write a number, without quotes"},
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

func TestPrintHidesSecrets(t *testing.T) {
	n, err := section(reflect.ValueOf(secretive{Password: "correct horse", Ignored: "ignored"}))
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for i, c := range n.Content {
		if strings.Contains(c.Value, "horse") || c.Value == "ignored" {
			t.Errorf("%q is printed", c.Value)
		}
		if i%2 == 0 {
			keys = append(keys, c.Value)
		}
	}
	if got := strings.Join(keys, " "); got != "password unset share every parts" {
		t.Errorf("got the keys %s", got)
	}
	if n.Content[1].Value != "[hidden]" || n.Content[3].Value != "" {
		t.Errorf("got %q and %q, want [hidden] and nothing", n.Content[1].Value, n.Content[3].Value)
	}
}

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
