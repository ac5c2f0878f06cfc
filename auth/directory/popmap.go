package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/popgate/popgate/auth"
)

// popmap is the source of Perdition's popmap.
type popmap struct {
	*watched[*table]
	p *perdition
}

// newPopmap reads the popmap of a directory; that fails where the file is bad.
func newPopmap(name string, c PopmapConfig, log *slog.Logger) (Opened, error) {
	p := newPerdition(&c)
	parse := func(l *lines, b *builder, faults *faults) error { return parsePopmap(l, b, faults, p) }
	w, err := watch(name, c.Path, log, func(f *os.File, size int64) (*table, error) { return parseFile(f, size, parse) })
	if err != nil {
		return Opened{}, err
	}
	return Opened{Source: &popmap{w, p}, Vary: p.vary, Memory: true}, nil
}

// Lookup tries the query keys in their order.
func (m *popmap) Lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	t := *m.current()
	var name, buf [maxKey]byte
	user, err := m.p.rewrite(ctx, lookupState, m.p.name(name[:0], &q.Name), q.Client)
	if err != nil {
		return Answer{}, err
	}
	for _, format := range m.p.keys {
		key := m.p.key(buf[:0], format, user, q.Client)
		if place, ok := t.users.find(t.arena, key, !format.domainOnly); ok {
			return m.p.answer(ctx, t.at(place).Answer, q)
		}
	}
	return Answer{}, auth.ErrUnknownUser
}

// KnowsDomain says whether there are keys with the domain behind the delimiter, or a query key that is made of the domain alone
// finds something.
func (m *popmap) KnowsDomain(_ context.Context, domain string) (bool, error) {
	t := *m.current()
	if t.knows(domain) {
		return true, nil
	}
	var buf [maxKey]byte
	for _, format := range m.p.keys {
		if !format.domainOnly {
			continue
		}
		if _, ok := t.users.find(t.arena, m.p.key(buf[:0], format, []byte(m.p.delimiter+domain), nil), false); ok {
			return true, nil
		}
	}
	return false, nil
}

// Domains lists the domains that stand behind the delimiter in keys.
func (m *popmap) Domains() []string { return (*m.current()).list() }

// parsePopmap reads what makegdbm reads: key, colon, value. Keys that are there twice, of which makegdbm takes the first, are
// faults; so are lines that it passes over with a message.
func parsePopmap(l *lines, b *builder, faults *faults, p *perdition) error {
	for {
		line, err := l.next()
		if err != nil {
			return err
		}
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		faults.add(l.n, popmapLine(text, l.n, b, p))
	}
}

func popmapLine(text string, n int, b *builder, p *perdition) error {
	key, value, ok := strings.Cut(text, ":")
	key, value = strings.TrimRight(key, " \t"), strings.TrimLeft(value, " \t")
	if !ok || key == "" || value == "" {
		return errors.New(`is not "key:[user` + p.delimiter + `]host[:port]"`)
	}
	if len(key) > maxKey {
		return fmt.Errorf("has a key of %d bytes", len(key))
	}
	r := record{line: n}
	var err error
	if r.Answer, err = p.value(value); err != nil {
		return err
	}
	at := strings.LastIndex(key, p.delimiter)
	domain := ""
	if at >= 0 {
		if d, err := auth.Domain(key[at+len(p.delimiter):]); err == nil && d != "" {
			key, domain = key[:at+len(p.delimiter)]+d, d
		}
	}
	if err := b.add(&b.t.users, []byte(key), &r); err != nil {
		return err
	}
	return b.mention(domain, n)
}
