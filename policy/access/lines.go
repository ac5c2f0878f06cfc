package access

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"unicode"

	"github.com/popgate/popgate/auth"
)

// The bounds of a file of networks or accounts.
const (
	maxLine    = 4096
	maxEntries = 4 << 20 // 32 MiB of IPv4 or at most 138 MiB of IPv6 networks
)

// readLines gives each line of r that says something to take, without its comment. Lines end with LF or CR LF; a comment begins
// with "#" or ";" at the start of the line or behind a blank. The error names the line.
func readLines(r io.Reader, take func(text string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	n := 0
	for lines.Scan() {
		n++
		text := lines.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff") // as editors on Windows begin a file
		}
		if text = uncommented(text); text == "" {
			continue
		}
		if err := take(text); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("is longer than %d bytes: write one entry a line", maxLine)
		}
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

func uncommented(line string) string {
	for i, c := range line {
		if (c == '#' || c == ';') && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
			break
		}
	}
	return strings.TrimSpace(line)
}

// networks reads a file of networks.
func networks(r io.Reader) (*table, error) {
	var b builder
	err := readLines(r, func(text string) error {
		if b.count() >= maxEntries {
			return fmt.Errorf("is one more than the %d networks that a file may have: split the file, or take a feed that joins neighbours", maxEntries)
		}
		return b.line(text)
	})
	if err != nil {
		return nil, err
	}
	return b.table(), nil
}

// line adds what one line of a file says.
func (b *builder) line(text string) error {
	if from, to, ok := strings.Cut(text, "-"); ok {
		return b.lineSpan(text, strings.TrimSpace(from), strings.TrimSpace(to))
	}
	p, err := network(text)
	if err != nil {
		return err
	}
	if p.Bits() == 0 {
		return fmt.Errorf("%s is everybody, which a file cannot mean: write that in the configuration", p)
	}
	b.prefix(p)
	return nil
}

func (b *builder) lineSpan(text, from, to string) error {
	first, err1 := netip.ParseAddr(from)
	last, err2 := netip.ParseAddr(to)
	if err1 != nil || err2 != nil || first.Zone() != "" || last.Zone() != "" {
		return notNetwork(text)
	}
	first, last = first.Unmap(), last.Unmap()
	if first.Is4() != last.Is4() || last.Less(first) {
		return fmt.Errorf("%q does not end behind its beginning: write the lower address first", clip(text))
	}
	b.span(first, last)
	return nil
}

// network reads a network or a single address. IPv4 in IPv6 form becomes IPv4.
func network(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, notNetwork(text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, notNetwork(text)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, notNetwork(text)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

func notNetwork(text string) error {
	return fmt.Errorf("%q is not a network: write it such as 192.0.2.0/24, 2001:db8::/32 or 192.0.2.7", clip(text))
}

// accounts are users and whole domains, by auth.ParseAccounts.
type accounts map[string]struct{}

// readAccounts reads a file of accounts.
func readAccounts(r io.Reader) (accounts, error) {
	a := accounts{}
	err := readLines(r, func(text string) error {
		if len(a) >= maxEntries {
			return fmt.Errorf("is one more than the %d accounts that a file may have: let the directory say who is disabled", maxEntries)
		}
		return a.add(text)
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (a accounts) size() int { return len(a) }

func (a accounts) add(text string) error {
	key, err := auth.ParseAccounts(text)
	if err == nil {
		a[key] = struct{}{}
	}
	return err
}

// has says whether the account is listed by itself or by its domain. It is an auth.Name's Key.
func (a accounts) has(account string) bool {
	if _, ok := a[account]; ok {
		return true
	}
	at := strings.LastIndexByte(account, '@')
	if at < 0 {
		return false
	}
	_, ok := a[account[at:]]
	return ok
}

// clip makes a text from outside short and printable enough for an error.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
