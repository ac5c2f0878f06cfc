package configs

import "fmt"

// Flags are what `popgate serve` can be told without a file.
type Flags struct {
	To     []string // addresses of the POP3 servers, equal to each other: HOST or HOST:PORT
	Listen string   // the address for clients; empty is :995
	Domain string   // the name of the certificate
}

// FromFlags makes a Config of one listener with TLS from the first byte, one backend, named "default", and a route that takes
// everybody there. The environment and the checks are as Load's; Faults name the flag.
func FromFlags(f Flags, env []string) (*Config, error) {
	r := newReport("")
	from := func(flag, path, text string) scalar {
		r.at[path] = origin{name: flag}
		return scalar{text: text, tag: tagText, path: path}
	}
	// tagText, and not loose: a flag's value is text as it stands, without ${NAME}, which the shell has expanded already.
	listener := map[string]any{
		"name":    from("--listen", "listeners[0].name", "pop3s"),
		"address": from("--listen", "listeners[0].address", ":995"),
	}
	if f.Listen != "" {
		listener["address"] = from("--listen", "listeners[0].address", f.Listen)
	}
	if f.Domain != "" {
		listener["default_name"] = from("--domain", "listeners[0].default_name", f.Domain)
	}
	servers := make([]any, len(f.To))
	for i, address := range f.To {
		servers[i] = map[string]any{"address": from("--to", fmt.Sprintf("backends[0].servers[%d].address", i), address)}
	}
	// Where no server is named, the flag is what is missing.
	r.at["backends[0].servers"] = origin{name: "--to"}
	tree := map[string]any{
		"listeners": []any{listener},
		"backends":  []any{map[string]any{"name": from("--to", "backends[0].name", "default"), "servers": servers}},
	}
	return assemble(tree, variables(env), r)
}
