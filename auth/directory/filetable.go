package directory

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/popgate/popgate/auth"
)

// A table holds what a file says of a million users in as little memory as the file has: all records lie in one string, and are
// found by their key's hash. It never changes, so any number of goroutines may use it.
type table struct {
	arena string   // record after record: key, line, what is said
	words []string // texts that many records share
	nets  [][]netip.Prefix

	users   index // by name: all in lower case in a file of our own, as written in others
	domains index // by domain: each that has users, or stands in the file itself
	below   index // by the domain above those that "*." stands for

	count int
}

// entries counts what the file lists.
func (t *table) entries() int { return t.count }

// An index finds records by their keys: a hash table with open addressing. A slot holds 32 bits of the hash and the record's
// place, one up, for 0 is an empty slot.
type index struct {
	seed  maphash.Seed
	slots []uint64
	used  int
}

// maxKey is above the longest name of a user. Longer keys work, and cost memory at each lookup.
const maxKey = 384

func newIndex() index { return index{seed: maphash.MakeSeed(), slots: make([]uint64, 64)} }

// hash does not regard the case of ASCII letters, so that a lookup may.
func (x *index) hash(key []byte) uint64 {
	var folded [maxKey]byte
	return maphash.Bytes(x.seed, appendLower(folded[:0], key))
}

// find gives the place of a record in the arena. A key that need not be exact is compared without regard to the case of ASCII
// letters.
func (x *index) find(arena string, key []byte, exact bool) (place uint32, ok bool) {
	h := x.hash(key)
	for i := h; ; i++ {
		s := x.slots[i&uint64(len(x.slots)-1)]
		if s == 0 {
			return 0, false
		}
		if uint32(s>>32) != uint32(h>>32) {
			continue
		}
		place = uint32(s) - 1
		if k := keyAt(arena, place); k == string(key) || !exact && equalLower(k, key) {
			return place, true
		}
	}
}

// put makes key's slot point to a record, which need not be in the arena yet.
func (x *index) put(arena string, key []byte, place uint32) {
	if x.used >= len(x.slots)/4*3 {
		x.grow(arena)
	}
	h := x.hash(key)
	for i := h; ; i++ {
		s := &x.slots[i&uint64(len(x.slots)-1)]
		if *s == 0 {
			*s = h>>32<<32 | uint64(place+1)
			x.used++
			return
		}
		if uint32(*s>>32) == uint32(h>>32) && keyAt(arena, uint32(*s)-1) == string(key) {
			*s = h>>32<<32 | uint64(place+1)
			return
		}
	}
}

func (x *index) grow(arena string) {
	old := x.slots
	x.slots = make([]uint64, 2*len(old))
	for _, s := range old {
		if s == 0 {
			continue
		}
		for i := x.hash([]byte(keyAt(arena, uint32(s)-1))); ; i++ {
			if slot := &x.slots[i&uint64(len(x.slots)-1)]; *slot == 0 {
				*slot = s
				break
			}
		}
	}
}

// each calls f with the key of every record, in no order.
func (x *index) each(arena string, f func(key string)) {
	for _, s := range x.slots {
		if s != 0 {
			f(keyAt(arena, uint32(s)-1))
		}
	}
}

func keyAt(arena string, place uint32) string {
	n, size := number(arena[place:])
	return arena[int(place)+size:][:n]
}

// number reads what binary.AppendUvarint wrote.
func number(s string) (n, size int) {
	var v uint64
	for i := range len(s) {
		b := s[i]
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return int(v), i + 1
		}
	}
	return 0, 0
}

// What a record says; the texts follow in this order.
const (
	hasBackend = 1 << iota
	hasServer
	hasTLS
	hasTenant
	hasMaster
	hasUser
	hasSecret
	hasHash
	hasNets
	isDisabled
	isMoving
	isRefused // nobody has the password
	isMention // no entry: a domain that users are in
	isPattern // to be filled in for the user who logs in

	shared = hasBackend | hasServer | hasTLS | hasTenant | hasMaster
)

// A record is what a file says of one user or domain.
type record struct {
	Answer
	line    int
	refused bool
	mention bool
	pattern bool
}

// texts are the fields of an answer in the order of their bits.
func texts(a *Answer) [8]*string {
	return [...]*string{&a.Backend, &a.Server, &a.TLS, &a.Tenant, &a.Master, &a.User, &a.Secret, &a.Hash}
}

// at reads the record at a place. Its texts are parts of the arena.
func (t *table) at(place uint32) (r record) {
	n, size := number(t.arena[place:])
	s := t.arena[int(place)+size+n:]
	next := func() int {
		v, size := number(s)
		s = s[size:]
		return v
	}
	r.line = next()
	mask := next()
	for i, text := range texts(&r.Answer) {
		bit := 1 << i
		switch {
		case mask&bit == 0:
			continue
		case bit&shared != 0:
			if id := next(); id > 0 {
				*text = t.words[id-1]
				continue
			}
		}
		n := next()
		*text, s = s[:n], s[n:]
	}
	if mask&hasNets != 0 {
		r.AllowNets = t.nets[next()]
	}
	r.Disabled, r.Moving = mask&isDisabled != 0, mask&isMoving != 0
	r.refused, r.mention, r.pattern = mask&isRefused != 0, mask&isMention != 0, mask&isPattern != 0
	return r
}

// knows says that a domain has users or an entry, or that one for all domains below another takes it.
func (t *table) knows(domain string) bool {
	key := []byte(domain)
	if _, ok := t.domains.find(t.arena, key, true); ok {
		return true
	}
	_, ok := t.above(key)
	return ok
}

// above finds the nearest entry for all domains below one that domain is below of.
func (t *table) above(domain []byte) (uint32, bool) {
	if t.below.used == 0 {
		return 0, false
	}
	for i, b := range domain {
		if b != '.' {
			continue
		}
		if place, ok := t.below.find(t.arena, domain[i+1:], true); ok {
			return place, true
		}
	}
	return 0, false
}

// list gives the domains that have users or an entry, in order.
func (t *table) list() []string {
	all := make([]string, 0, t.domains.used)
	// A copy: who keeps one must not keep the arena.
	t.domains.each(t.arena, func(d string) { all = append(all, strings.Clone(d)) })
	slices.Sort(all)
	return all
}

// userKey appends a user's name as files of our own have it for a key: what auth.Name's Key is, but with the detail kept.
func userKey[S string | []byte](dst []byte, local S, domain string) []byte {
	dst = appendLower(dst, local)
	if domain != "" {
		dst = append(dst, '@')
		dst = append(dst, domain...)
	}
	return dst
}

// appendLower appends s in lower case, as auth.Name's Key has it.
func appendLower[S string | []byte](dst []byte, s S) []byte {
	at := len(dst)
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf {
			return appendLowerAny(dst[:at], string(s))
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// appendLowerAny is for names that are not all ASCII. What is not UTF-8 is left as it is.
func appendLowerAny(dst []byte, s string) []byte {
	if utf8.ValidString(s) {
		return append(dst, strings.ToLower(s)...)
	}
	for i := range len(s) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

func equalLower(a string, b []byte) bool {
	var x, y [maxKey]byte
	return string(appendLower(x[:0], a)) == string(appendLower(y[:0], b))
}

// split takes the name of a user apart as auth.NameRules does for a listener that has "@" alone for a separator.
func split(name string) (auth.Name, error) { return auth.NameRules{}.Parse([]byte(name)) }
