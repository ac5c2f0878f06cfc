package directory

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/popgate/popgate/auth"
)

// FileConfig is the section `file` of a directory: a list of users and domains in popgate's own form.
type FileConfig struct {
	// The file. It is looked at every 5 seconds, and at once on a reload, and taken up when it has changed; one with faults
	// leaves the one before in force.
	Path string `yaml:"path"`
	// How it is written: csv or yaml. "" goes by how the path ends: .csv, .yaml, .yml.
	Format string `yaml:"format"`
}

func (c FileConfig) validate(fault func(key, problem string)) {
	if c.Path == "" {
		fault("path", "is missing; write the path of the file that lists the users")
		return
	}
	switch c.Format {
	case "csv", "yaml":
	case "":
		if c.format() == "" {
			fault("format", fmt.Sprintf("cannot be told by the end of %q; write csv or yaml", c.Path))
		}
	default:
		fault("format", fmt.Sprintf("is %q; write csv or yaml", c.Format))
	}
}

func (c FileConfig) format() string {
	switch ext := strings.ToLower(filepath.Ext(c.Path)); {
	case c.Format != "":
		return c.Format
	case ext == ".csv":
		return "csv"
	case ext == ".yaml" || ext == ".yml":
		return "yaml"
	}
	return ""
}

// file is the source of a list of our own.
type file struct {
	*watched[*table]
}

// newFile reads the file of a directory; that fails where the file is bad.
func newFile(name string, c FileConfig, log *slog.Logger) (Opened, error) {
	parse := parseCSV
	if c.format() == "yaml" {
		parse = parseYAML
	}
	w, err := watch(name, c.Path, log, func(f *os.File, size int64) (*table, error) { return parseFile(f, size, parse) })
	if err != nil {
		return Opened{}, err
	}
	return Opened{Source: &file{w}, Vary: VaryUser, Memory: true}, nil
}

// Lookup finds the user's own entry, with the detail of the name first and without it then, or that of the domain, or that of
// the nearest domain above.
func (f *file) Lookup(_ context.Context, q *auth.Query) (Answer, error) {
	t, n := *f.current(), &q.Name
	if place, ok := t.user(n); ok {
		return ownMailbox(t.at(place).Answer, n), nil
	}
	if n.Domain == "" {
		return Answer{}, auth.ErrUnknownUser
	}
	var buf [maxKey]byte
	domain := append(buf[:0], n.Domain...)
	if place, ok := t.domains.find(t.arena, domain, true); ok {
		if r := t.at(place); !r.mention {
			return forUser(r.Answer, n), nil
		}
	}
	if place, ok := t.above(domain); ok {
		return forUser(t.at(place).Answer, n), nil
	}
	return Answer{}, auth.ErrUnknownUser
}

// ownMailbox has a master user open the mailbox of the name that was looked up, where the answer names none.
func ownMailbox(a Answer, n *auth.Name) Answer {
	if a.Master != "" && a.User == "" {
		a.User = lowered(n.Full())
	}
	return a
}

// user finds the entry of a user, with the detail of the name or without it.
func (t *table) user(n *auth.Name) (place uint32, ok bool) {
	var buf [maxKey]byte
	place, ok = t.users.find(t.arena, userKey(buf[:0], n.Local, n.Domain), true)
	if !ok && strings.IndexByte(n.Local, '+') > 0 {
		place, ok = t.users.find(t.arena, append(buf[:0], n.Key...), true)
	}
	return place, ok
}

// KnowsDomain says whether the file has the domain, users in it, or an entry for all domains below one above it.
func (f *file) KnowsDomain(_ context.Context, domain string) (bool, error) {
	return (*f.current()).knows(domain), nil
}

// Domains lists the domains that the file has or has users in. Those that a "*." stands for cannot be listed.
func (f *file) Domains() []string { return (*f.current()).list() }

// forUser makes of a domain's answer that of one of its users.
func forUser(a Answer, n *auth.Name) Answer {
	if strings.IndexByte(a.User, '{') >= 0 {
		a.User = strings.NewReplacer("{user}", n.Typed, "{local}", n.Local, "{domain}", n.Domain).Replace(a.User)
	}
	return a
}
