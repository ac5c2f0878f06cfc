// Package convert turns the configuration of another mail proxy into one of popgate's. What it cannot carry over it says, line by
// line, in comments at the head of what it makes.
package convert

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Program is a mail proxy whose configuration can be read.
type Program struct {
	// Name is what `popgate import` calls it.
	Name string
	// Files says which files are wanted, for people.
	Files string
	// Convert reads the files and returns popgate's configuration, in YAML. It fails where a file cannot be read or is not
	// of this program, and where nothing in it is about POP3.
	Convert func(files []string) ([]byte, error)
}

// Programs are all that can be read.
func Programs() []Program {
	return []Program{
		{"nginx", "nginx.conf, with what it includes", Nginx},
		{"perdition", "perdition.conf; several where several run", Perdition},
		{"dovecot", "dovecot.conf, with what it includes, or what `doveconf -n` prints", Dovecot},
	}
}

// A place is a line of a file.
type place struct {
	file string
	line int
}

func (p place) String() string { return p.file + ":" + strconv.Itoa(p.line) }

// A note is a line of the other configuration that is not carried over, or not as it was.
type note struct {
	place
	text, why string
}

// A draft is a configuration of popgate's in the making.
type draft struct {
	program string
	notes   []note

	listeners, certificates, directories, backends, routes []*yaml.Node

	minVersion string
	clientCA   *yaml.Node
	// By key; what is not there is not written.
	limits, timeouts, bounds map[string]string
	todo                     []string // what the reader has to do, each a sentence
}

func newDraft(program string) *draft {
	return &draft{program: program, limits: map[string]string{}, timeouts: map[string]string{}, bounds: map[string]string{}}
}

// left notes a line that is not carried over as it was.
func (d *draft) left(at place, text, why string) {
	n := note{at, text, why}
	if !slices.Contains(d.notes, n) { // an included file may be read twice
		d.notes = append(d.notes, n)
	}
}

// todoOnce asks the reader for something, once.
func (d *draft) todoOnce(sentence string) {
	if !slices.Contains(d.todo, sentence) {
		d.todo = append(d.todo, sentence)
	}
}

// print writes the configuration.
func (d *draft) print(files []string) ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	section := func(key string, value *yaml.Node) {
		if value != nil && len(value.Content) > 0 {
			root.Content = append(root.Content, text(key), value)
		}
	}
	section("listeners", list(d.listeners))
	tls := fields("min_version", d.minVersion)
	if l := list(d.certificates); l != nil {
		tls.Content = append(tls.Content, text("certificates"), l)
	}
	if d.clientCA != nil {
		tls.Content = append(tls.Content, text("client_ca"), d.clientCA)
	}
	section("tls", tls)
	section("directories", list(d.directories))
	section("backends", list(d.backends))
	section("routes", list(d.routes))
	section("limits", sorted(d.limits))
	section("timeouts", sorted(d.timeouts))
	section("bounds", sorted(d.bounds))

	out := bytes.NewBuffer(d.head(files))
	enc := yaml.NewEncoder(out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return out.Bytes(), nil
}

// head is the comment at the top: where this comes from, what to do, what is missing.
func (d *draft) head(files []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made by popgate import from %s's %s.\n", d.program, strings.Join(files, ", "))
	b.WriteString("# Before it is used: popgate check -c FILE, popgate doctor -c FILE, and popgate route -c FILE USER for some users.\n")
	if len(d.directories) > 0 {
		b.WriteString("# A server that only a directory knows: popgate doctor -c FILE BACKEND/HOST:PORT.\n")
	}
	if len(d.todo) > 0 {
		b.WriteString("#\n# To do:\n")
		for _, t := range d.todo {
			fmt.Fprintf(&b, "#   - %s\n", printable(t))
		}
	}
	if len(d.notes) > 0 {
		b.WriteString("#\n# Not carried over, or not as it was:\n")
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		for _, n := range d.notes {
			fmt.Fprintf(w, "#   %s\t%s\t%s\n", n.place, cut(printable(n.text)), printable(n.why))
		}
		_ = w.Flush() // a bytes.Buffer takes everything
	}
	b.WriteString("\n")
	return b.Bytes()
}

// printable is one line without control characters: it goes into a comment.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// cut is the beginning of a line that is too long for a table.
func cut(s string) string {
	const longest = 60
	if runes := []rune(s); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return s
}

// text is a scalar; what is not a plain word is quoted.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	if n.Style == 0 && strings.ContainsAny(s, `:{}[]%*"\ `) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// word is a scalar of any type as it stands: a number, a duration, true.
func word(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// fields makes a mapping of keys and values in turn; keys with an empty value are left out. A value is a string or a node.
func fields(pairs ...any) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i < len(pairs); i += 2 {
		key := pairs[i].(string)
		switch v := pairs[i+1].(type) {
		case string:
			if v != "" {
				m.Content = append(m.Content, text(key), text(v))
			}
		case *yaml.Node:
			if v != nil {
				m.Content = append(m.Content, text(key), v)
			}
		}
	}
	return m
}

// flow has a mapping written on one line.
func flow(m *yaml.Node) *yaml.Node {
	m.Style = yaml.FlowStyle
	return m
}

// list makes a sequence of nodes; nil of none.
func list(nodes []*yaml.Node) *yaml.Node {
	if len(nodes) == 0 {
		return nil
	}
	return &yaml.Node{Kind: yaml.SequenceNode, Content: nodes}
}

// texts makes a sequence of strings on one line; nil of none.
func texts(values ...string) *yaml.Node {
	if len(values) == 0 {
		return nil
	}
	l := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, v := range values {
		l.Content = append(l.Content, text(v))
	}
	return l
}

// truth is true, or no key.
func truth(is bool) *yaml.Node {
	if !is {
		return nil
	}
	return word("true")
}

// sorted is a mapping of words in the order of their keys.
func sorted(values map[string]string) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		m.Content = append(m.Content, text(k), word(values[k]))
	}
	return m
}

// commented has a comment above a mapping, or behind a scalar.
func commented(n *yaml.Node, comment string) *yaml.Node {
	if n.Kind == yaml.ScalarNode {
		n.LineComment = printable(comment)
	} else {
		n.HeadComment = printable(comment)
	}
	return n
}

// seconds writes a number of seconds as a duration.
func seconds(n int) string { return short(time.Duration(n) * time.Second) }

// short writes a duration without units that are zero: 1h, not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// privateNetworks are where mail servers usually are: a directory may send users there, until the reader says better.
func privateNetworks(d *draft, why string) *yaml.Node {
	d.todoOnce("allowed_servers: " + why + " popgate goes only to servers that are listed there: put in just the networks of yours")
	return texts("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fd00::/8")
}

// endpoint is a host and a port to listen on; no host is all of them. popgate takes addresses: only of one name is it sure whose it is.
func (d *draft) endpoint(host, port string) string {
	switch host {
	case "", "*", "::", "0.0.0.0":
		return ":" + port
	case "localhost":
		host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(host); err != nil {
		d.todoOnce("listeners: write the address of " + host + ": popgate listens on addresses, not on names")
	}
	return net.JoinHostPort(host, port)
}

// names gives out names that are not taken yet.
type names map[string]int

func (n names) next(name string) string {
	n[name]++
	if n[name] > 1 {
		return name + "-" + strconv.Itoa(n[name])
	}
	return name
}
