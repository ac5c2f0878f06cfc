package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// ErrBadName means that a user name cannot be anybody's: it is empty, or has a character that no name may have.
var ErrBadName = errors.New("not a possible user name")

// maxName bounds a user name in octets. SMTP's longest address is 254 (RFC 5321 section 4.5.3.1.3 and its erratum).
const maxName = 320

// A Name is a user name, taken apart once. All its parts come from what the client typed.
type Name struct {
	// Typed is the name as the client sent it, less trailing blanks.
	Typed string
	// Local is the part before the separator, or all of it; its case is kept.
	Local string
	// Domain is the part behind the last separator, or the default domain: A-labels in lower case, or "".
	Domain string
	// Key is what counts are kept by: lower case, and without "+detail", so that variants of one name are one.
	Key string
}

// Full is the name with its domain: Local@Domain, or Local where there is no domain.
func (n Name) Full() string {
	if n.Domain == "" {
		return n.Local
	}
	return n.Local + "@" + n.Domain
}

// NameRules say how a listener reads user names.
type NameRules struct {
	// DefaultDomain is the domain of names that have none; "" leaves them without.
	DefaultDomain string
	// Separators are the characters that part the local name from its domain; "" means "@".
	Separators string
	// Forbidden are characters that no name may have: backends take them for master-user separators.
	Forbidden string
}

// Parse takes a name apart. It fails with ErrBadName for what cannot be a name: nothing, blanks inside, control
// bytes, a forbidden character, a domain that IDNA refuses.
func (r NameRules) Parse(typed []byte) (Name, error) {
	s := strings.TrimRight(string(typed), " \t")
	if s == "" || len(s) > maxName || strings.IndexFunc(s, notInName) >= 0 || strings.ContainsAny(s, r.Forbidden) {
		return Name{}, ErrBadName
	}
	separators := r.Separators
	if separators == "" {
		separators = "@"
	}
	n := Name{Typed: s, Local: s}
	if i := strings.LastIndexAny(s, separators); i >= 0 {
		_, size := utf8.DecodeRuneInString(s[i:])
		n.Local, n.Domain = s[:i], s[i+size:]
		if n.Local == "" || n.Domain == "" {
			return Name{}, ErrBadName
		}
	} else {
		n.Domain = r.DefaultDomain
	}
	var err error
	if n.Domain, err = Domain(n.Domain); err != nil {
		return Name{}, ErrBadName
	}
	n.Key = key(n.Local, n.Domain)
	return n, nil
}

// ParseAccounts reads whom a config means by bob@example.org, or by @example.org, a whole domain. The key is what such a user's
// Name has, or "@" and the Name's domain.
func ParseAccounts(text string) (key string, err error) {
	if domain, ok := strings.CutPrefix(text, "@"); ok {
		d, err := Domain(domain)
		if err != nil || d == "" {
			return "", fmt.Errorf("%.64q is not a domain: write it such as @example.org", text)
		}
		return "@" + d, nil
	}
	name, err := NameRules{}.Parse([]byte(text))
	if err != nil {
		return "", fmt.Errorf("%.64q is not a user: write it such as bob@example.org, or @example.org for a whole domain", text)
	}
	return name.Key, nil
}

// notInName tells the characters that no name has: blanks and control bytes. Bytes that are not UTF-8 may pass,
// for old backends know names in Latin-1.
func notInName(r rune) bool {
	return r <= ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x2028 || r == 0x2029
}

func key(local, domain string) string {
	if i := strings.IndexByte(local, '+'); i > 0 {
		local = local[:i]
	}
	local = lower(local)
	if domain == "" {
		return local
	}
	return local + "@" + domain
}

// domains maps as a resolver would, but lets host names with underscores pass: they are in use.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false), idna.StrictDomainName(false))

// Domain brings a domain into the one form popgate compares: A-labels (RFC 5890) in lower case, no final dot. It fails
// for what is no Hostname then. No domain at all, "", stays so.
func Domain(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if !utf8.ValidString(s) {
		return "", ErrBadName // IDNA would take U+FFFD for it, and so one domain for many
	}
	d := s
	// Only what needs IDNA goes through it: it refuses names with "--" that are in use. ToLower is for ASCII alone, for it
	// makes an i of a dotted one.
	if strings.IndexFunc(s, notASCII) >= 0 || strings.Contains(strings.ToLower(s), "xn--") {
		var err error
		if d, err = domains.ToASCII(s); err != nil {
			return "", err
		}
	}
	// After the mapping, not before it: IDNA makes dots of other scripts' full stops.
	if d = strings.TrimSuffix(strings.ToLower(d), "."); !Hostname(d) {
		return "", ErrBadName
	}
	return d, nil
}

// Hostname says that s can be the name of a host or a domain, as Domain writes it: labels of letters, digits, "-" and "_" in
// lower case, none of which begins or ends with "-", of the lengths that DNS allows, without a final dot. It is the one rule
// that all of popgate has for names. Those with underscores are in use inside company networks.
func Hostname(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.IndexFunc(label, notInLabel) >= 0 {
			return false
		}
		if label[0] == '-' || label[len(label)-1] == '-' { // RFC 1123 section 2.1
			return false
		}
	}
	return true
}

func notInLabel(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

func notASCII(r rune) bool { return r >= utf8.RuneSelf }

// lower is strings.ToLower for bytes that need not be UTF-8: what is not is left as it is.
func lower(s string) string {
	if utf8.ValidString(s) {
		return strings.ToLower(s)
	}
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
