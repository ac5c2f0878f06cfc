package certs

import (
	"fmt"
	"strings"

	"github.com/popgate/popgate/auth"
)

// placeholder is the place of a domain in a template.
const placeholder = "{domain}"

// template is a host name with a domain left open, such as "mail.{domain}".
type template struct {
	prefix string // "mail."
}

// parseTemplate reads a template. The domain is its end: what follows it would belong to somebody else's domain.
func parseTemplate(s string) (template, error) {
	prefix, ok := strings.CutSuffix(strings.ToLower(s), placeholder)
	if !ok {
		return template{}, fmt.Errorf("is %q; it must end in {domain}, such as \"mail.{domain}\"", s)
	}
	if host, ok := strings.CutSuffix(prefix, "."); prefix != "" && (!ok || !auth.Hostname(host)) {
		return template{}, fmt.Errorf("is %q; what stands before {domain} must be whole labels, such as \"mail.{domain}\"", s)
	}
	return template{prefix: prefix}, nil
}

// name is the template's name for a domain.
func (t template) name(domain string) string { return t.prefix + domain }

// domain is what a name has in the place of the domain, "" where it does not fit.
func (t template) domain(name string) string {
	domain, ok := strings.CutPrefix(name, t.prefix)
	if !ok || !strings.Contains(domain, ".") {
		return ""
	}
	return domain
}
