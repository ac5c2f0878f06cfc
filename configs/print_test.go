package configs

import (
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
