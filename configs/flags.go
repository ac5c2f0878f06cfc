package configs

import (
	"fmt"
	"slices"
	"strconv"
)

// Flags are what `popgate serve` can be told without a file.
type Flags struct {
	To     []string // addresses of the POP3 servers, equal to each other: HOST or HOST:PORT
	Listen string   // the address for clients; empty is :995
	Domain string   // the name of the certificate; empty is the first of ACMEDomains

	ACMEDomains []string // names to obtain certificates for
	ACMEEmail   string   // where issuers may write to
	ACMEAgree   bool     // to the issuers' terms of service
}

// Agreed is env with the word that whoever runs popgate agrees to the terms of service of the issuers, for a Load that is to find a file
// complete which does not say so itself.
func Agreed(env []string) []string {
	return append(slices.Clip(env), envName("tls.acme.agree")+"=true")
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
	switch {
	case f.Domain != "":
		listener["default_name"] = from("--domain", "listeners[0].default_name", f.Domain)
	case len(f.ACMEDomains) > 0:
		listener["default_name"] = from("--acme-domain", "listeners[0].default_name", f.ACMEDomains[0])
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
	if acme := f.acme(from); acme != nil {
		r.at["tls.acme.domains"], r.at["tls.acme.agree"] = origin{name: "--acme-domain"}, origin{name: "--acme-agree"}
		tree["tls"] = map[string]any{"acme": acme}
		if len(f.ACMEDomains) == 0 {
			r.add("tls.acme.domains", "is missing beside --acme-agree and --acme-email", "give it with each name to obtain a certificate for")
		}
	}
	return assemble(tree, variables(env), r)
}

// acme is the section tls.acme as the flags have it, nil where they say nothing of it.
func (f Flags) acme(from func(flag, path, text string) scalar) map[string]any {
	section := map[string]any{}
	if len(f.ACMEDomains) > 0 {
		domains := make([]any, len(f.ACMEDomains))
		for i, d := range f.ACMEDomains {
			domains[i] = from("--acme-domain", fmt.Sprintf("tls.acme.domains[%d]", i), d)
		}
		section["domains"] = domains
	}
	if f.ACMEEmail != "" {
		section["email"] = from("--acme-email", "tls.acme.email", f.ACMEEmail)
	}
	if f.ACMEAgree {
		agree := from("--acme-agree", "tls.acme.agree", strconv.FormatBool(true))
		agree.tag = tagBool
		section["agree"] = agree
	}
	if len(section) == 0 {
		return nil
	}
	return section
}
