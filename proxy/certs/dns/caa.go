package dns

import (
	"context"
	"fmt"
	"slices"
	"strings"

	miekg "github.com/miekg/dns"
)

// CAA is what the DNS says about who may issue certificates for a name (RFC 8659).
type CAA struct {
	// Name is where the records stand: the name asked for or the nearest parent that has any, without a dot at the end; ""
	// when none has.
	Name    string
	Records []CAARecord
}

// CAARecord is one property of a CAA record set.
type CAARecord struct {
	Critical   bool
	Tag, Value string
}

// CAA finds the record set that holds for name: its own or, where it has none, that of its nearest parent. For
// `*.example.org` that is what holds for example.org. An error means that it could not be found out, which a certificate
// authority takes for a no.
func (r *Resolver) CAA(ctx context.Context, name string) (CAA, error) {
	at := fqdn(strings.TrimPrefix(name, "*."))
	for at != "." {
		reply, err := r.lookup(ctx, at, miekg.TypeCAA)
		if err != nil {
			return CAA{}, fmt.Errorf("look up who may issue for %s (CAA): %w", host(at), err)
		}
		if found := caaIn(reply, at); len(found) > 0 {
			return CAA{Name: host(at), Records: found}, nil
		}
		// The climb goes by the name asked for, never by what a CNAME of it leads to (RFC 8659, section 3).
		at = parent(at)
	}
	return CAA{}, nil
}

func caaIn(reply *miekg.Msg, name string) []CAARecord {
	end := chainEnd(reply, name)
	var all []CAARecord
	for _, rr := range reply.Answer {
		if c, ok := rr.(*miekg.CAA); ok && fqdn(c.Hdr.Name) == end && len(all) < maxCAA {
			all = append(all, CAARecord{Critical: c.Flag&128 != 0, Tag: strings.ToLower(c.Tag), Value: c.Value})
		}
	}
	return all
}

// knownTags are the properties whose critical ones do not forbid what they are not about.
var knownTags = []string{"issue", "issuewild", "iodef", "contactemail", "contactphone", "issuemail", "issuevmc"}

// Allows reports whether an issuer that goes by any of issuerDomains (such as letsencrypt.org) may issue for the name, or
// for the wildcard of it. Parameters of a property, such as accounturi, are not looked at. An order may so still be refused,
// but none is held back for nothing.
func (c CAA) Allows(issuerDomains []string, wildcard bool) bool {
	tag := "issue"
	if wildcard && slices.ContainsFunc(c.Records, func(r CAARecord) bool { return r.Tag == "issuewild" }) {
		tag = "issuewild"
	}
	restricted, allowed := false, false
	for _, r := range c.Records {
		switch {
		case r.Critical && !slices.Contains(knownTags, r.Tag):
			return false
		case r.Tag == tag:
			restricted = true
			issuer, ok := issuerOf(r.Value)
			allowed = allowed || ok && slices.ContainsFunc(issuerDomains, func(d string) bool { return d != "" && host(fqdn(d)) == issuer })
		}
	}
	return allowed || !restricted
}

// issuerOf takes the issuer's domain from the value of an issue or issuewild property. No domain (";"), or one that is
// malformed, is nobody's (RFC 8659, section 4.2).
func issuerOf(value string) (string, bool) {
	domain, _, _ := strings.Cut(value, ";")
	domain = strings.ToLower(strings.Trim(domain, " \t"))
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return "", false
		}
	}
	return domain, true
}

// String shows the records as in a zone file.
func (c CAA) String() string {
	if len(c.Records) == 0 {
		return "no CAA records"
	}
	all := make([]string, 0, len(c.Records))
	for _, r := range c.Records {
		flags := 0
		if r.Critical {
			flags = 128
		}
		all = append(all, fmt.Sprintf("%s CAA %d %s %q", c.Name, flags, r.Tag, r.Value))
	}
	return strings.Join(all, "; ")
}
