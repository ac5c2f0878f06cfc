package directory

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/popgate/popgate/auth"
)

// extras read the extra fields of a user's line. As with Dovecot, it is there or not that counts of those that mean yes.
type extras struct {
	name   auth.Name
	local  bool // the name is looked up without a domain, and %u and %d are those of who logs in
	record *record
	warn   func(field, text string)

	proxy, nopassword, noauthenticate, fail bool
	host, port                              string
	user                                    string // a new name for the user, which proxying uses where there is no destuser
}

// read takes the fields, which are parted by blanks; those of userdb are passed over.
func (x *extras) read(text string) error {
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' }) {
		key, value, _ := strings.Cut(word, "=")
		key = strings.TrimSuffix(key, ":protected")
		if strings.HasPrefix(key, "userdb_") || strings.HasSuffix(key, ":remove") {
			continue
		}
		if err := x.set(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (x *extras) set(key, value string) (err error) {
	a := &x.record.Answer
	switch key {
	case "host":
		x.host, err = x.expand(key, value)
	case "port":
		x.port, err = x.expand(key, value)
	case "user":
		x.user, err = x.later(key, value)
	case "destuser":
		a.User, err = x.later(key, value)
	case "pass":
		a.Secret, err = x.later(key, value)
	case "master":
		a.Master, err = x.later(key, value)
	case "allow_nets":
		a.AllowNets, err = x.networks(value)
	case "ssl", "starttls":
		x.tls(key, value)
	default:
		x.flag(key)
	}
	return err
}

func (x *extras) tls(key, value string) {
	if value == "any-cert" {
		x.warn(key+"=any-cert", "popgate checks the server's certificate as the route's backend says")
	}
	if x.record.TLS = "starttls"; key == "ssl" {
		x.record.TLS = "implicit"
		if x.port == "" {
			x.port = "995"
		}
	}
}

// flag takes a field that is there or not.
func (x *extras) flag(key string) {
	switch key {
	case "proxy", "proxy_maybe":
		x.proxy = true
	case "nologin":
		x.record.Disabled = true
	case "nopassword":
		x.nopassword = true
	case "noauthenticate":
		x.noauthenticate = true
	case "fail":
		x.fail = true
	default:
		x.unknown(key)
	}
}

// unknown warns of a field that means something to Dovecot for where a user goes, or whether. Others are passed over without a word,
// as Dovecot does.
func (x *extras) unknown(key string) {
	if strings.HasPrefix(key, "proxy_") || key == "hostip" || key == "source_ip" {
		x.warn(key, "popgate has its own settings for how it speaks to a server, in the section of the route's backend")
	}
	if key == "allow_real_nets" || key == "delay_until" {
		x.warn(key, "popgate does not look at it")
	}
}

// later expands a value, or leaves that to the lookup where it depends on who logs in.
func (x *extras) later(key, value string) (string, error) {
	expanded, err := x.expand(key, value)
	if x.local && err == nil {
		x.record.pattern = x.record.pattern || strings.IndexByte(value, '%') >= 0
		return value, nil
	}
	return expanded, err
}

// expand puts what is known of the user into a value.
func (x *extras) expand(key, value string) (string, error) {
	text, ok := expandPercent(value, &x.name)
	if !ok {
		// Not the value, for it may be a password.
		return "", fmt.Errorf("has a %% in %s that popgate cannot fill in: there are %%u, %%n, %%d and %%%%", key)
	}
	return text, nil
}

// expandPercent fills in Dovecot's %u, %n, %d and %%, with L for lower case; ok says that there was nothing else.
func expandPercent(value string, n *auth.Name) (text string, ok bool) {
	if strings.IndexByte(value, '%') < 0 {
		return value, true
	}
	var out strings.Builder
	for rest := value; rest != ""; {
		before, behind, found := strings.Cut(rest, "%")
		out.WriteString(before)
		if !found {
			break
		}
		text, size := percent(behind, n)
		if size == 0 {
			return "", false
		}
		out.WriteString(text)
		rest = behind[size:]
	}
	return out.String(), true
}

// percent reads what stands behind a %, and says how long it was; 0 is unknown.
func percent(s string, n *auth.Name) (text string, size int) {
	for _, v := range [...]struct{ name, text string }{
		{"%", "%"},
		{"u", n.Full()}, {"Lu", lowered(n.Full())}, {"{user}", n.Full()},
		{"n", n.Local}, {"Ln", lowered(n.Local)}, {"{username}", n.Local},
		{"d", n.Domain}, {"Ld", n.Domain}, {"{domain}", n.Domain},
	} {
		if strings.HasPrefix(s, v.name) {
			return v.text, len(v.name)
		}
	}
	return "", 0
}

func lowered(s string) string { return string(appendLower(nil, s)) }

// fill does for a record what was left to the lookup. Dovecot has lowered the user's name by then.
func (r *record) fill(n *auth.Name) {
	low := auth.Name{Local: lowered(n.Local), Domain: n.Domain}
	for _, text := range []*string{&r.User, &r.Secret, &r.Master} {
		*text, _ = expandPercent(*text, &low)
	}
}

// nowhere is a network that no client is in.
var nowhere = netip.MustParsePrefix("0.0.0.0/32")

// networks reads allow_nets. "local" are Dovecot's clients without an address, of which popgate has none.
func (x *extras) networks(value string) ([]netip.Prefix, error) {
	var rest []string
	for _, word := range strings.Split(value, ",") {
		if word != "local" {
			rest = append(rest, word)
		}
	}
	nets, err := netList("allow_nets", strings.Join(rest, ","))
	if err == nil && len(nets) == 0 {
		nets = []netip.Prefix{nowhere}
	}
	return nets, err
}

// finish puts the answer together once all fields and the password are known.
func (x *extras) finish() error {
	r := x.record
	if x.noauthenticate {
		// A lookup that only adds fields to those of another passdb.
		return errors.New("has noauthenticate: popgate asks one directory at a time, and this one would let everybody in")
	}
	r.refused = x.fail || r.Hash == "" && !x.nopassword
	if !x.proxy {
		// A user of the Dovecot that has the file: the route's backend.
		r.User, r.Secret, r.Master, r.TLS = x.user, "", "", ""
		return x.check()
	}
	if x.host == "" {
		return errors.New("has proxy without host")
	}
	if r.User == "" {
		r.User = x.user
	}
	if r.Master != "" && r.Secret == "" {
		return errors.New("has a master without pass, its password")
	}
	if r.Secret != "" && r.Hash == "" && !r.refused {
		return errors.New("has nopassword and pass: whoever came would be let in")
	}
	host := x.host
	if strings.Contains(host, ":") && host[0] != '[' {
		host = "[" + host + "]"
	}
	if err := setServer(&r.Answer, host, x.port); err != nil {
		return err
	}
	return x.check()
}

func (x *extras) check() error {
	r := x.record
	for _, f := range [...]struct {
		name, value string
		secret      bool
	}{{"destuser", r.User, false}, {"pass", r.Secret, true}, {"master", r.Master, false}} {
		if err := field(f.value, maxField, f.secret, f.secret); err != nil {
			return fmt.Errorf("has a %s that %w", f.name, err)
		}
	}
	return nil
}
