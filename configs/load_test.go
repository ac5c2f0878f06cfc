package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// plain is a configuration without anything that could be left out.
const plain = `backends: [{name: old, servers: [{address: "192.0.2.1:110"}]}]` + "\n"

// home is an environment with which every default is known.
var home = []string{"STATE_DIRECTORY=/state"}

func loadString(text string, env ...string) (*Config, error) {
	c, err := loadText([]byte(text), append(env, home...), newReport("popgate.yaml"))
	if err == nil {
		c.places = nil // equal configurations may be written differently
	}
	return c, err
}

func mustLoad(t *testing.T, text string, env ...string) *Config {
	t.Helper()
	c, err := loadString(text, env...)
	if err != nil {
		t.Fatalf("load:\n%v", err)
	}
	return c
}

func TestLoadLeast(t *testing.T) {
	c := mustLoad(t, plain)
	want := Default()
	want.StateDir = "/state"
	want.Node, _ = os.Hostname()
	want.Backends, want.Routes = c.Backends, c.Routes
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	if got := c.Backends[0].Servers[0]; got.Address != "192.0.2.1:110" || got.Weight != 1 {
		t.Errorf("server: got %+v, want the address and weight 1", got)
	}
	if len(c.Routes) != 1 || c.Routes[0].Backend != "old" || len(c.Routes[0].Domains) > 0 {
		t.Errorf("routes: got %+v, want one that takes everybody to old", c.Routes)
	}
	if l := c.Listeners[0]; l.Address != ":995" || l.TLS != "implicit" {
		t.Errorf("listener: got %+v, want TLS on :995", l)
	}
}

// Without ACME, and with DNS-01, nothing listens on 80 and 443 but what says so.
func TestChallengesOff(t *testing.T) {
	const listeners = "listeners: [{name: a, address: \":443\"}, {name: b, address: \":80\"}]\n"
	mustLoad(t, listeners+plain)
	mustLoad(t, listeners+plain+"tls: {acme: {agree: true, domains: [mail.example.org], dns: {provider: exec, exec: {command: [/bin/true]}}}}\n")
}

func TestCertificateWarnings(t *testing.T) {
	const (
		acme     = "tls: {acme: {agree: true, domains: [mail.example.org]}}\n"
		onDemand = "tls: {acme: {agree: true, on_demand: {names: [\"mail.{domain}\"]}}}\n"
		asked    = "directories: [{name: users, type: file, file: {path: users.yaml}}]\n"
		shared   = "tls: {acme: {storage: {type: redis, redis: {addresses: [\"127.0.0.1:6379\"]}, %s}}}\n"
		ended    = "listeners: [{name: a, address: \":1\", tls: offloaded, proxy_protocol_from: [10.0.0.1]}]\n"
	)
	for _, tt := range []struct{ text, want string }{
		{plain + acme, ""},
		{plain + acme + ended, "nobody is shown them"},
		{plain + onDemand, "no route has any"},
		{plain + onDemand + "routes: [{backend: old, domains: [example.org]}]\n", ""},
		{plain + onDemand + asked + "routes: [{backend: old, directory: users}]\n", ""},
		{plain + fmt.Sprintf(shared, "encryption: none"), "storage is of no use"},
		{plain + fmt.Sprintf(shared, "encryption_key_files: [/k]"), ""},
	} {
		got := strings.Join(mustLoad(t, tt.text).Warnings, "\n")
		if !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("%s: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestLoadValues(t *testing.T) {
	c := mustLoad(t, `
listeners:
  - {name: a, address: "127.0.0.1:995", proxy_protocol_from: [10.1.2.3/8, "::1", "::ffff:192.0.2.0/120"]}
  - {name: b, address: ":1995", forbidden: ""}
backends:
  - name: old
    servers:
      - address: 192.0.2.1
      - {address: 192.0.2.2, weight: 0}
    connect_timeout: 1m30s
routes:
  - {domains: [Example.org], backend: old, listeners: [a]}
  - {backend: old}
limits: {sessions: 1_000, logins_per_ip: 60/m, exempt: [127.0.0.1], failure_delay: 0}
bounds: {line: 2KiB}
timeouts: {idle: ""}
log:
node: 2026-01-02
`)
	prefixes := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("192.0.2.0/24"),
	}
	for _, e := range []struct {
		what      string
		got, want any
	}{
		{"networks, masked and unmapped", c.Listeners[0].ProxyProtocolFrom, prefixes},
		{"default kept in an entry", c.Listeners[0].Forbidden, "*"},
		{"written empty", c.Listeners[1].Forbidden, ""},
		{"weight left out", c.Backends[0].Servers[0].Weight, 1},
		{"weight written 0", c.Backends[0].Servers[1].Weight, 0},
		{"duration", c.Backends[0].ConnectTimeout, 90 * time.Second},
		{"default beside it", c.Backends[0].ReplyTimeout, 30 * time.Second},
		{"whole number", c.Limits.Sessions, 1000},
		{"rate", c.Limits.LoginsPerIP, limit.Rate{Count: 60, Per: time.Minute}},
		{"an address for a network", c.Limits.Exempt, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
		{"0 without a unit", c.Limits.FailureDelay, time.Duration(0)},
		{"size", int(c.Bounds.Line), 2048},
		{"size left out", int(c.Bounds.AuthLine), 16384},
		{"empty duration", c.Timeouts.Idle, time.Duration(0)},
		{"section without keys", c.Log, DefaultLog()},
		{"what YAML takes for a date", c.Node, "2026-01-02"},
		{"number of routes", len(c.Routes), 2},
	} {
		if !reflect.DeepEqual(e.got, e.want) {
			t.Errorf("%s: got %v, want %v", e.what, e.got, e.want)
		}
	}
}

// TestFaultLater is about what only shows when the configuration is put to use.
func TestFaultLater(t *testing.T) {
	text := "tls:\n  certificates:\n    - {cert: /a, key: /b}\n" + plain
	c, err := loadText([]byte(text), append(home, "POPGATE_AUDIT_PATH=/c"), newReport("popgate.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"tls.certificates[0].key": "popgate.yaml:3:23: tls.certificates[0].key: is not there",
		"tls.certificates[0]":     "popgate.yaml:3:7: tls.certificates[0]: is not there",
		"state_dir":               "popgate.yaml:1:1: state_dir: is not there",
		"audit.path":              "POPGATE_AUDIT_PATH: is not there",
	} {
		if got := c.Fault(path, "is not there").Error(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := Default().Fault("audit.path", "is not there").Error(); got != "audit.path: is not there" {
		t.Errorf("nothing was read: got %s", got)
	}
}

func TestLoadJSON(t *testing.T) {
	yaml := mustLoad(t, "node: n\nlimits: {sessions: 7}\n"+plain)
	json := mustLoad(t, "{\"node\": \"n\",\n\t\"limits\": {\"sessions\": 7},\n\t\"backends\":"+
		" [{\"name\": \"old\", \"servers\": [{\"address\": \"192.0.2.1:110\"}]}]}")
	if !reflect.DeepEqual(yaml, json) {
		t.Errorf("got %+v from JSON, want %+v", json, yaml)
	}
}

func TestLoadAnchors(t *testing.T) {
	c := mustLoad(t, `
backends:
  - &old {name: old, servers: &servers [{address: 192.0.2.1}], connect_timeout: 1s, reply_timeout: 2s}
  - {<<: *old, name: new, reply_timeout: 3s}
  - {<<: [*old], name: third, servers: *servers}
routes: [{backend: old}]
`)
	b := c.Backends[1]
	if b.Name != "new" || b.ConnectTimeout != time.Second || b.ReplyTimeout != 3*time.Second || len(b.Servers) != 1 {
		t.Errorf("merged: got %+v, want old's servers and connect_timeout, and what it says itself", b)
	}
	if s := c.Backends[2].Servers; len(s) != 1 || s[0].Address != "192.0.2.1" || s[0].Weight != 1 {
		t.Errorf("alias: got %+v, want old's servers", s)
	}
}

func TestLoadFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "popgate.yaml")
	if err := os.WriteFile(path, []byte(plain), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, home); err != nil {
		t.Errorf("got %v, want no fault", err)
	}
	long := filepath.Join(dir, "long.yaml")
	if err := os.WriteFile(long, []byte(plain+strings.Repeat("# a comment\n", maxFile/12)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range []struct{ path, problem, hint string }{
		{dir, "is a directory", "/popgate.yaml"},
		{filepath.Join(dir, "none.yaml"), "cannot be read: no such file", "--to"},
		{filepath.Join(path, "below"), "cannot be read: not a directory", ""},
		{long, "longer than 10 MiB", "right file"},
	} {
		_, err := Load(e.path, home)
		faults, ok := err.(Faults)
		if !ok || len(faults) != 1 {
			t.Errorf("%s: got %v, want one fault", e.path, err)
			continue
		}
		f := faults[0]
		if f.File != e.path || f.Line != 0 || !strings.Contains(f.Problem, e.problem) || !strings.Contains(f.Hint, e.hint) {
			t.Errorf("%s: got %q, want %q and %q", e.path, f, e.problem, e.hint)
		}
	}
}

// TestUnreadable: root may read anything, so the cause is given.
func TestUnreadable(t *testing.T) {
	err := &fs.PathError{Op: "open", Path: "/etc/popgate.yaml", Err: fs.ErrPermission}
	if got := unopened(err); got != "cannot be read: permission denied" {
		t.Errorf("got %q, want the cause without the path", got)
	}
	if got := hintFor(err); !strings.Contains(got, "the user that popgate runs as") {
		t.Errorf("got the hint %q", got)
	}
	if got := hintFor(errors.New("disk on fire")); got != "" {
		t.Errorf("got the hint %q for what nobody foresaw", got)
	}
}

// TestLoadPipe: a file need not be on a disk.
func TestLoadPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(plain); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := Load(fmt.Sprintf("/dev/fd/%d", r.Fd()), home); err != nil {
		t.Errorf("got %v, want no fault", err)
	}
}

func TestStateDir(t *testing.T) {
	for _, e := range []struct {
		env  []string
		root bool
		want string
	}{
		{[]string{"STATE_DIRECTORY=/a:/b", "HOME=/h"}, true, "/a"},
		{[]string{"XDG_STATE_HOME=/x", "HOME=/h"}, true, "/x/popgate"},
		{[]string{"HOME=/root"}, true, "/var/lib/popgate"},
		{[]string{"XDG_STATE_HOME=relative", "HOME=/h"}, false, "/h/.local/state/popgate"},
		{nil, false, ""},
	} {
		got, err := stateDir(variables(e.env), e.root)
		if got != e.want || (err == nil) != (e.want != "") {
			t.Errorf("%v, root %v: got %q, %v, want %q", e.env, e.root, got, err, e.want)
		}
	}
}

func TestLogLevel(t *testing.T) {
	for level, want := range map[string]string{"debug": "DEBUG", "info": "INFO", "warn": "WARN", "error": "ERROR"} {
		if got := (Log{Level: level}).Slog().String(); got != want {
			t.Errorf("%s: got %s, want %s", level, got, want)
		}
	}
}

func TestLoadDirectories(t *testing.T) {
	const backends = "backends: [{name: old, servers: [{address: \"192.0.2.1:110\"}]}, {name: new, servers: [{address: \"192.0.2.2:110\"}]}]\n"
	const directories = "directories: [{name: users, type: file, file: {path: users.yaml}}, {name: more, type: popmap, popmap: {path: popmap}}]\n"
	c := mustLoad(t, backends+directories+"routes: [{directory: users, backend: old, then: new, tenant: t}, {directory: [users, more]}]\n")
	if got := c.Routes[0].Directory; len(got) != 1 || got[0] != "users" || c.Routes[0].Then != "new" {
		t.Errorf("a directory alone: got %q", got)
	}
	if got := c.Routes[1].Directory; len(got) != 2 || got[1] != "more" || len(c.Warnings) != 0 {
		t.Errorf("a chain: got %q, warnings %q", got, c.Warnings)
	}
	if got := c.Directories[0].Timeout; got != 5*time.Second {
		t.Errorf("a directory's timeout: got %s, want the default", got)
	}
	for _, tt := range []struct{ text, key, problem string }{
		{directories + "routes: [{directory: user, backend: old}]", "routes[0].directory[0]", "did you mean users?"},
		{directories + "routes: [{directory: [users, mere], backend: old}]", "routes[0].directory[1]", "did you mean more?"},
		{directories + "routes: [{directory: users, backend: old, then: now}]", "routes[0].then", "did you mean new?"},
		{directories + "routes: [{backend: old, then: new}]", "routes[0].then", "write directory, too"},
		{directories + "routes: [{directory: users, backend: new, then: new}]", "routes[0].then", "same as backend"},
		{directories + "routes: [{directory: [users, users], backend: new}]", "routes[0].directory[1]", "asks already"},
		{"directories: [{name: a, type: fill, file: {path: x}}]", "directories[0].type", "write one of file,"},
		{"directories: [{name: a, type: popmap, popmap: {path: x}, file: {path: y}}]", "directories[0].file", "is for a directory of type file"},
		{"directories: [{name: a, type: file, file: {path: x}, timeout: 0}]", "directories[0].timeout", "must be more than 0"},
		{"directories: [{name: a, type: file, file: {path: x}, lookups: 0}]", "directories[0].lookups", "from 1 to"},
		{"directories: [{name: a, type: file, file: {path: x}, cache: {size: -1}}]", "directories[0].cache.size", "from 0 to"},
		{"directories: [{name: a, type: file, file: {path: x}, cache: {stale_for: -1s}}]", "directories[0].cache.stale_for", "negative"},
		{"directories: [{name: a, type: file, file: {path: x}, cache: {ttl: 2562047h}}]", "directories[0].cache.ttl", "ten years"},
		{"directories: [{name: a, type: file, file: {path: x}, allowed_servers: [10.0.0.0/33]}]", "directories[0].allowed_servers[0]", "is no network"},
		{"directories: [{name: a, type: file, file: {path: x}}, {name: a, type: file, file: {path: x}}]", "directories[1].name", "is the name of directories[0]"},
	} {
		_, err := loadString(backends + tt.text)
		if f := faultAt(err, tt.key); f == nil || !strings.Contains(f.Problem+f.Hint, tt.problem) {
			t.Errorf("%s: got %v, want %s: %s", tt.text, err, tt.key, tt.problem)
		}
	}
	if c := mustLoad(t, backends+directories+"routes: [{backend: old}]"); len(c.Warnings) != 2 || !strings.Contains(c.Warnings[0], "asked by no route") {
		t.Errorf("directories that nobody asks: got %q", c.Warnings)
	}
}

// What a configuration names is looked at beside its own faults, and only where it has none.
func TestLooks(t *testing.T) {
	text := plain + "limits: {sessions: many}\ntls: {min_version: \"1.2\"}\n"
	var got []bool
	look := func(c *Config, sound func(string) bool) Faults {
		got = []bool{sound("backends"), sound("tls"), sound("limits"), sound("limit"), sound("")}
		return Faults{c.Fault("tls.min_version", "is looked at")}
	}
	_, err := loadText([]byte(text), home, newReport("popgate.yaml"), look)
	if want := []bool{true, true, false, true, false}; !reflect.DeepEqual(got, want) {
		t.Errorf("sound: got %v, want %v", got, want)
	}
	if fs, ok := err.(Faults); !ok || len(fs) != 2 || fs[0].Line != 2 || fs[1].Line != 3 {
		t.Errorf("got %v, want a fault in line 2 and what was looked at in line 3", err)
	}
	if _, err := loadText([]byte(plain), home, newReport("popgate.yaml"), look); err == nil || !got[4] {
		t.Errorf("a good file: got %v and %v, want the look's fault, and all of it sound", err, got)
	}
}
