package configs

import (
	"fmt"
	"strings"
	"testing"
)

// TestFaults shows what a user is told, in full. What other packages' Validate says is tested there.
func TestFaults(t *testing.T) {
	for _, e := range []struct {
		name, text string
		want       []string // each without the file's name, and in order
	}{
		{"misspelt key", "listenrs: []\n" + plain, []string{
			"1:1: listenrs: there is no such key; did you mean listeners?"}},
		{"misspelt key in a list's entry", "listeners:\n  - name: a\n    addrss: \":995\"\n" + plain, []string{
			"3:5: listeners[0].addrss: there is no such key; did you mean address?"}},
		{"key of another section", "sessions: 5\n" + plain, []string{
			"1:1: sessions: there is no such key; did you mean limits.sessions?"}},
		{"key with a capital", "Node: a\n" + plain, []string{
			"1:1: Node: there is no such key; did you mean node?"}},
		{"unknown key", "\"a\\nb\": 1\n" + plain, []string{
			`1:1: "a\nb": there is no such key`}},
		{"key twice", "node: a\nlog: {level: info}\nnode: b\n" + plain, []string{
			"3:1: node: is written twice, first in line 1; remove one of them"}},
		{"text for a number", "limits: {sessions: \"5\", sessions_per_ip: many, sessions_per_user: 1.5}\n" + plain, []string{
			`1:20: limits.sessions: is "5", which is no whole number; write digits alone, without quotes`,
			`1:42: limits.sessions_per_ip: is "many", which is no whole number; write digits alone, without quotes`,
			`1:67: limits.sessions_per_user: is "1.5", which is too large or not whole; write a whole number`}},
		{"number too large", "limits: {sessions: 99999999999999999999}\n" + plain, []string{
			`1:20: limits.sessions: is "99999999999999999999", which is too large or not whole; write a whole number`}},
		{"number for text", "tls: {min_version: 1.2}\nnode: true\n" + plain, []string{
			`1:20: tls.min_version: is the number "1.2", and text is wanted; put it in quotes: "1.2"`,
			`2:7: node: is the truth value "true", and text is wanted; if it is meant as text, write "true"`}},
		{"duration without a unit", "timeouts: {idle: 10, stall: soon}\n" + plain, []string{
			`1:18: timeouts.idle: is "10" without a unit; write 10s for seconds, 10m for minutes`,
			`1:29: timeouts.stall: is "soon", which is no duration; write a number and a unit, such as 500ms, 10s, 5m or 1h30m`}},
		{"truth value", "listeners: [{name: a, address: \":1\", allow_authzid: yes}]\n" + plain, []string{
			`1:53: listeners[0].allow_authzid: is "yes"; write true or false`}},
		{"network", "limits: {exempt: [10.0.0.0/33, 192.0.2.1]}\n" + plain, []string{
			`1:19: limits.exempt[0]: is "10.0.0.0/33", which is no network; write an address or a network, such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32`}},
		{"rate and size", "limits: {logins_per_ip: often}\nbounds: {line: long}\n" + plain, []string{
			`1:25: limits.logins_per_ip: "often"`, `2:16: bounds.line: "long"`}},
		{"text for a list", "routes: [{backend: old, domains: example.org}]\n" + plain, []string{
			`1:25: routes[0].domains: is "example.org", and a list is wanted; write - before each entry, or put them in [ ]`}},
		{"list for a section", "log: [info]\nlimits: 5\n" + plain, []string{
			"1:1: log: is a list, and keys of its own are wanted; write them below it, indented",
			`2:1: limits: is "5", and keys of its own are wanted; write them below it, indented`}},
		{"section for a value", "node: {name: a}\nstate_dir: [a]\n" + plain, []string{
			"1:7: node: is a section with keys of its own, and text is wanted",
			"2:12: state_dir: is a list, and text is wanted"}},
		{"nothing for a value", "node:\n" + plain, []string{
			`1:6: node: has no value; write one, or remove the key; "" and 0 turn things off`}},
		{"nothing in a list", "routes:\n  -\n  - backend: old\n" + plain, []string{
			"2:4: routes[0]: is an empty entry; write something behind the - or remove it"}},
		{"tag", "node: !!binary aGk=\n" + plain, []string{
			`1:7: node: has the tag "!!binary"; remove it`}},
		{"no document of keys", "- a\n", []string{
			"1:1: is a list, and keys of its own are wanted; write them below it, indented"}},
		{"no backends", "node: a\n", []string{
			`1:1: backends: needs at least one entry; write at least: backends: [{name: old, servers: [{address: "HOST:110"}]}]`}},
		{"emptied lists", "listeners: []\nroutes: []\n" + plain, []string{
			"1:1: listeners: needs at least one entry; remove the key for one on port 995, or write what to listen on",
			"2:1: routes: needs at least one entry; say which backend users go to, such as: routes: [{backend: NAME}]"}},
		{"two backends and no route", `backends: [{name: a, servers: [{address: h}]}, {name: b, servers: [{address: h}]}]`, []string{
			"1:1: routes: needs at least one entry; say which backend users go to, such as: routes: [{backend: NAME}]"}},
		{"dangling references", plain + "routes:\n  - {backend: odl}\n  - {backend: new, listeners: [pop3s, pop3]}\n", []string{
			`3:15: routes[0].backend: is "odl", and backends has no entry of that name; did you mean old?`,
			`4:15: routes[1].backend: is "new", and backends has no entry of that name; add it to backends, or name one of: old`,
			`4:39: routes[1].listeners[1]: is "pop3", and listeners has no entry of that name; did you mean pop3s?`}},
		{"names twice", "listeners:\n  - {name: a, address: \":1\"}\n  - {name: a, address: \":2\"}\n" + plain, []string{
			`3:12: listeners[1].name: is "a", which is the name of listeners[0] in line 2 too; names tell entries apart: choose another`}},
		{"addresses twice", "listeners:\n  - {name: a, address: \":995\"}\n  - {name: b, address: \"127.0.0.1:995\"}\n" +
			"metrics: {address: \"[::]:995\"}\n" + plain, []string{
			`3:24: listeners[1].address: is "127.0.0.1:995", which overlaps with ":995" of listeners[0].address in line 2; choose another port`,
			`4:20: metrics.address: is "[::]:995", which overlaps with ":995" of listeners[0].address in line 2; choose another port`}},
		{"challenge on a listener's address", "listeners: [{name: a, address: \":443\"}, {name: b, address: \"127.0.0.1:80\"}]\n" +
			"tls: {acme: {domains: [mail.example.org], agree: true}}\n" + plain, []string{
			`2:7: tls.acme.http_address: is ":80", which overlaps with "127.0.0.1:80" of listeners[1].address in line 1; choose another port`,
			`2:7: tls.acme.tls_alpn_address: is ":443", which overlaps with ":443" of listeners[0].address in line 1; choose another port`}},
		{"client certificates where TLS has ended", "listeners: [{name: a, address: \":1\", tls: offloaded, proxy_protocol_from: [10.0.0.1]}, {name: b, address: \":2\"}]\n" +
			"tls: {client_ca: {file: ca.pem, mode: require, listeners: [b, a, c]}}\n" + plain, []string{
			`2:63: tls.client_ca.listeners[1]: is "a", where TLS ends before popgate, which sees no certificate of a client; remove it`,
			`2:66: tls.client_ca.listeners[2]: is "c", and listeners has no entry of that name; add it to listeners, or name one of: a, b`}},
		{"unknown name", "listeners: [{name: a, address: \":1\", unknown_name: refuse}, {name: b, address: \":2\", unknown_name: alert}]\n" + plain, []string{
			`1:52: listeners[0].unknown_name: is "refuse"; write default or alert`}},
		{"socket", "admin: {socket: /run/popgate/}\n" + plain, []string{
			`1:17: admin.socket: is "/run/popgate/", which is a folder; write a file in it, such as "/run/popgate/popgate.sock"`}},
		{"impossible value", "log: {level: loud}\n" + plain, []string{
			`1:14: log.level: is "loud"; write debug, info, warn or error`}},
		{"one fault is said once", "backends: [{nam: old, servers: [{address: h}]}]\nroutes: [{backend: old}]\n", []string{
			"1:13: backends[0].nam: there is no such key; did you mean name?"}},
		{"variable not set", "node: \"a-${POP_NODE}\"\nstate_dir: ${a b}\n" + plain, []string{
			"1:7: node: the environment variable POP_NODE is not set; set it for popgate; $${ stands for the characters ${ themselves",
			"2:12: state_dir: ${ is not followed by a variable's name and }; set it for popgate; $${ stands for the characters ${ themselves"}},
		{"control characters", "node: \"a\\0b\"\nstate_dir: |\n  /state\n" + plain, []string{
			`1:7: node: is "a\x00b", which has a line break or a control character in it; write it on one line, without`,
			`2:12: state_dir: is "/state\n", which has a line break or a control character in it; write it on one line, without`}},
		{"merge of what is no section", "log: {<<: 5}\n" + plain, []string{
			`1:11: log: << merges "5"; name an anchor with keys of its own, such as <<: *common`}},
		{"merge of itself", "log: &l {<<: *l}\n" + plain, []string{
			"1:14: log: << merges what merges itself, or too much; write the values out"}},
	} {
		t.Run(e.name, func(t *testing.T) {
			_, err := loadString(e.text)
			faults, _ := err.(Faults)
			for i, want := range e.want {
				if i < len(faults) && !strings.HasPrefix(faults[i].Error(), "popgate.yaml:"+want) {
					t.Errorf("got  %s\nwant popgate.yaml:%s", faults[i], want)
				}
			}
			if len(faults) != len(e.want) {
				t.Errorf("got %d faults, want %d:\n%v", len(faults), len(e.want), err)
			}
		})
	}
}

// TestNotYAML is what keeps a file from being read at all: always one fault.
func TestNotYAML(t *testing.T) {
	for _, e := range []struct{ name, text, want string }{
		{"empty", "", `popgate.yaml: is empty; write at least: backends: [{name: old, servers: [{address: "HOST:110"}]}]`},
		{"comments alone", "# a\n\n# b\n", "popgate.yaml: is empty"},
		{"null", "---\nnull\n", "popgate.yaml: is empty"},
		{"tab", "limits:\n  sessions: 5\n\tsessions_per_ip: 6\n", "popgate.yaml:3:1: this is not YAML: a tab indents this line; use spaces"},
		{"binary", "node: a\nstate_dir: \x00\x01", "popgate.yaml:2:12: is not UTF-8 text"},
		{"UTF-16", "\xff\xfen\x00o\x00", "popgate.yaml:1:1: is not UTF-8 text"},
		{"Latin-1", "node: caf\xe9\n", "popgate.yaml:1:10: is not UTF-8 text"},
		{"two documents", plain + "---\n" + plain, "popgate.yaml:2:1: a second document begins here; one file holds one"},
		{"broken second document", plain + "---\na: b: c\n", "popgate.yaml:"},
		{"unclosed list", "node: a\nlisteners: [{name: a},\n", "popgate.yaml:3:1: this is not YAML: did not find expected node content"},
		{"unclosed quote", "node: 'a\n", "popgate.yaml:2:1: this is not YAML: found unexpected end of stream"},
		{"colon in a value", "node: a: b\n", "popgate.yaml:1:1: this is not YAML: mapping values are not allowed in this context; a value with a colon"},
		{"variable in braces", "node: a\nlog: {level: ${LEVEL}}\n", `popgate.yaml:2:1: this is not YAML: did not find expected ',' or '}'; within { } and [ ] write "${NAME}" in quotes`},
		{"star not quoted", "node: a\nlisteners:\n  - separators: [*.]\n", "popgate.yaml:3:1: this is not YAML: did not find expected alphabetic or numeric character; a value that begins with * must be in quotes"},
		{"unknown alias", "node: a\nlisteners:\n  - name: *a\n", "popgate.yaml:3:1: this is not YAML: there is no anchor &a for *a; a value that begins with * must be in quotes"},
		{"too deep", strings.Repeat("[", 20000), "popgate.yaml:1:1: this is not YAML: exceeded max depth"},
	} {
		t.Run(e.name, func(t *testing.T) {
			_, err := loadString(e.text)
			faults, _ := err.(Faults)
			if len(faults) != 1 || !strings.HasPrefix(faults[0].Error(), e.want) {
				t.Errorf("got  %v\nwant %s", err, e.want)
			}
		})
	}
}

// TestAliasBomb loads a few lines that stand for 10^9 values; it ends because repetition is counted.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("listeners:\n  - proxy_protocol_from: &a0 [10.0.0.1]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "  - proxy_protocol_from: &a%d [%s]\n", i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	lists := b.String() + "backends:\n" + strings.Repeat("  - &b {name: a, servers: [*b, *b, *b, *b]}\n", 10)
	wide := "backends:\n  - &b {name: a, servers: &s [" + strings.Repeat("{address: h},", 2000) + "]}\n" + strings.Repeat("  - *b\n", 5000)
	merges := "log: &l {<<: [" + strings.TrimSuffix(strings.Repeat("*l,", 50), ",") + "]}\n"
	for name, e := range map[string]struct{ text, want string }{
		"lists":  {lists, "and a network is wanted"},
		"wide":   {wide, "the aliases up to here repeat too much"},
		"merges": {merges, "merges itself, or too much"},
	} {
		if _, err := loadString(e.text); err == nil || !strings.Contains(err.Error(), e.want) {
			t.Errorf("%s: got %v, want %q", name, err, e.want)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 3 * maxFaults {
		fmt.Fprintf(&b, "key%d: 1\n", i)
	}
	_, err := loadString(b.String())
	faults, _ := err.(Faults)
	if len(faults) != maxFaults+1 {
		t.Fatalf("got %d faults, want %d", len(faults), maxFaults+1)
	}
	if got := faults[maxFaults].Problem; got != fmt.Sprintf("%d more faults", 2*maxFaults+1) {
		t.Errorf("got %q at the end, want the number of the others", got)
	}
}
