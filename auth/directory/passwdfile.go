package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"

	"github.com/popgate/popgate/auth"
)

// PasswdFileConfig is the section `passwd_file` of a directory: a passwd-file of Dovecot's.
type PasswdFileConfig struct {
	// The file: user:password:uid:gid:gecos:home:shell:extra fields. Of the extra fields, those count that say where Dovecot
	// proxies the user to and whether he may log in. It is looked at every 5 seconds, and at once on a reload, and taken up when
	// it has changed; one with faults leaves the one before in force.
	Path string `yaml:"path"`
	// The scheme of passwords without {SCHEME} in front: the scheme in Dovecot's args, or default_password_scheme.
	DefaultScheme string `yaml:"default_scheme"`
	// What of the user's name is looked up: %u is the whole name, %n the part before the domain, as username_format in Dovecot's
	// args. Dovecot looks at case, popgate does not.
	UsernameFormat string `yaml:"username_format"`
}

func defaultPasswdFile() PasswdFileConfig {
	return PasswdFileConfig{DefaultScheme: "CRYPT", UsernameFormat: "%u"}
}

var schemeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)

func (c PasswdFileConfig) validate(fault func(key, problem string)) {
	if c.Path == "" {
		fault("path", "is missing; write the path of the passwd-file")
	} else if strings.Contains(c.Path, "%") {
		fault("path", "has a %: a file for each domain or user is a directory of its own for popgate")
	}
	if !schemeName.MatchString(c.DefaultScheme) {
		fault("default_scheme", "must be the name of a scheme, such as CRYPT or SHA512-CRYPT, without braces")
	}
	switch c.UsernameFormat {
	case "%u", "%Lu", "%n", "%Ln":
	default:
		fault("username_format", fmt.Sprintf("is %q; write %%u for the whole name or %%n for the part before the domain", c.UsernameFormat))
	}
}

// local says that users are looked up without their domain.
func (c PasswdFileConfig) local() bool { return strings.HasSuffix(c.UsernameFormat, "n") }

// passwdFile is the source of Dovecot's passwd-file.
type passwdFile struct {
	*watched[*table]
	local bool
}

// newPasswdFile reads the passwd-file of a directory; that fails where the file is bad.
func newPasswdFile(name string, c PasswdFileConfig, log *slog.Logger) (Opened, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := passwdParser{config: c, log: log, warned: map[string]bool{}}
	w, err := watch(name, c.Path, log, func(f *os.File, size int64) (*table, error) { return parseFile(f, size, p.parse) })
	if err != nil {
		return Opened{}, err
	}
	return Opened{Source: &passwdFile{w, c.local()}, Vary: VaryUser, Memory: true}, nil
}

// errNoPassword is the answer for users whose line has neither a password nor nopassword, or has fail: nobody gets in, as with
// Dovecot.
var errNoPassword = fmt.Errorf("the passwd-file lets nobody log in as this user: %w", auth.ErrWrongPassword)

// Lookup finds the user's line.
func (f *passwdFile) Lookup(_ context.Context, q *auth.Query) (Answer, error) {
	t := *f.current()
	domain := q.Name.Domain
	if f.local {
		domain = ""
	}
	var buf [maxKey]byte
	place, ok := t.users.find(t.arena, userKey(buf[:0], q.Name.Local, domain), true)
	if !ok {
		return Answer{}, auth.ErrUnknownUser
	}
	r := t.at(place)
	if r.refused {
		return Answer{}, errNoPassword
	}
	if r.pattern {
		r.fill(&q.Name)
	}
	if f.local {
		return r.Answer, nil // the line is that of many names: it has to say whose mailbox it is
	}
	return ownMailbox(r.Answer, &q.Name), nil
}

// KnowsDomain says whether there are users in the domain.
func (f *passwdFile) KnowsDomain(_ context.Context, domain string) (bool, error) {
	return (*f.current()).knows(domain), nil
}

// Domains lists the domains of the users.
func (f *passwdFile) Domains() []string { return (*f.current()).list() }

// passwdParser reads passwd-files; what it has warned of once, it does not say again.
type passwdParser struct {
	config PasswdFileConfig
	log    *slog.Logger
	warned map[string]bool
}

// parse reads a passwd-file as Dovecot does: lines that begin with # or : are passed over. Users that are there twice, of whom
// Dovecot takes the first, are faults.
func (p *passwdParser) parse(l *lines, b *builder, faults *faults) error {
	for {
		line, err := l.next()
		if err != nil {
			return err
		}
		if len(line) == 0 || line[0] == '#' || line[0] == ':' {
			continue
		}
		faults.add(l.n, p.user(string(line), l.n, b))
	}
}

func (p *passwdParser) user(line string, n int, b *builder) error {
	parts := strings.SplitN(line, ":", 8)
	name, err := split(parts[0])
	if err != nil {
		return fmt.Errorf("has the user %q: %w", clip(parts[0]), err)
	}
	r := record{line: n}
	x := extras{name: name, local: p.config.local(), record: &r, warn: func(field, text string) { p.warn(n, field, text) }}
	if len(parts) == 8 && parts[7] != "" && parts[7][0] != ':' { // that would be the old form, and mail for userdb
		if err := x.read(parts[7]); err != nil {
			return err
		}
	}
	if len(parts) > 1 {
		if r.Hash, err = p.hash(parts[1]); err != nil {
			return err
		}
	}
	if err := x.finish(); err != nil {
		return err
	}
	var buf [maxKey]byte
	if err := b.add(&b.t.users, userKey(buf[:0], name.Local, name.Domain), &r); err != nil {
		return err
	}
	return b.mention(name.Domain, n)
}

// hash is the password of a line as popgate checks it.
func (p *passwdParser) hash(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if err := field(s, maxHash, true, true); err != nil {
		return "", fmt.Errorf("has a password that %w", err)
	}
	if s[0] == '{' && strings.Contains(s, "}") {
		return s, nil
	}
	if n := len(s) - 4; n > 0 && s[0] != '$' && s[n] == '[' && s[n+3] == ']' { // as libpam-pwdfile has it
		switch s[n+1 : n+3] {
		case "34":
			return "{PLAIN-MD5}" + s[:n], nil
		case "56":
			return "", errors.New("has a password for DIGEST-MD5, which no POP3 login can be checked against here")
		}
		return "{CRYPT}" + s[:n], nil
	}
	return "{" + p.config.DefaultScheme + "}" + s, nil
}

// warn says once that a field is passed over.
func (p *passwdParser) warn(line int, field, text string) {
	if p.warned[field] {
		return
	}
	p.warned[field] = true
	p.log.Warn("a field of the passwd-file is passed over", "path", p.config.Path, "line", line, "field", field, "why", text)
}
