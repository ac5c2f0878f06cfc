package directory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// maxWords bounds how many texts are shared; what is more stands in each record.
const maxWords = 1 << 16

// A builder makes a table, record after record.
type builder struct {
	t     table
	arena strings.Builder
	words map[string]int
	nets  map[string]int
	buf   []byte
}

// newBuilder makes one for a file of about size bytes.
func newBuilder(size int64) *builder {
	b := &builder{words: map[string]int{}, nets: map[string]int{}}
	b.t = table{users: newIndex(), domains: newIndex(), below: newIndex()}
	b.arena.Grow(int(min(size, 64<<20)))
	return b
}

// errFull is far above what files hold.
var errFull = errors.New("makes more than 4 GiB of records: keep so many users in a database")

// add puts a record into one of the indexes. A second one for the same key is an error that names the line of the first.
func (b *builder) add(x *index, key []byte, r *record) error {
	place := b.arena.Len()
	if place > math.MaxUint32-1<<20 {
		return errFull
	}
	if old, ok := x.find(b.arena.String(), key, true); ok {
		b.t.arena = b.arena.String()
		if first := b.t.at(old); !first.mention {
			return fmt.Errorf("%q is in line %d already", clip(string(key)), first.line)
		}
	}
	x.put(b.arena.String(), key, uint32(place))
	b.write(key, r)
	if !r.mention {
		b.t.count++
	}
	return nil
}

// mention notes that there are users in a domain.
func (b *builder) mention(domain string, line int) error {
	if domain == "" {
		return nil
	}
	b.buf = append(b.buf[:0], domain...)
	if _, ok := b.t.domains.find(b.arena.String(), b.buf, true); ok {
		return nil
	}
	return b.add(&b.t.domains, []byte(domain), &record{line: line, mention: true})
}

func (b *builder) write(key []byte, r *record) {
	buf := binary.AppendUvarint(b.buf[:0], uint64(len(key)))
	buf = append(buf, key...)
	buf = binary.AppendUvarint(buf, uint64(r.line))
	all := texts(&r.Answer)
	mask := 0
	for i, text := range all {
		if *text != "" {
			mask |= 1 << i
		}
	}
	for _, flag := range []struct {
		set bool
		bit int
	}{
		{len(r.AllowNets) > 0, hasNets}, {r.Disabled, isDisabled}, {r.Moving, isMoving}, {r.refused, isRefused},
		{r.mention, isMention}, {r.pattern, isPattern},
	} {
		if flag.set {
			mask |= flag.bit
		}
	}
	buf = binary.AppendUvarint(buf, uint64(mask))
	for i, text := range all {
		bit := 1 << i
		if mask&bit == 0 {
			continue
		}
		if bit&shared != 0 {
			id := b.word(*text)
			buf = binary.AppendUvarint(buf, uint64(id))
			if id > 0 {
				continue
			}
		}
		buf = binary.AppendUvarint(buf, uint64(len(*text)))
		buf = append(buf, *text...)
	}
	if mask&hasNets != 0 {
		buf = binary.AppendUvarint(buf, uint64(b.network(r.AllowNets)))
	}
	b.arena.Write(buf)
	b.buf = buf
}

// word gives the number of a shared text, from 1; 0 where there is no room for it.
func (b *builder) word(s string) int {
	id, ok := b.words[s]
	if !ok && len(b.t.words) < maxWords {
		s = strings.Clone(s) // of a line that need not be kept
		b.t.words = append(b.t.words, s)
		id = len(b.t.words)
		b.words[s] = id
	}
	return id
}

func (b *builder) network(nets []netip.Prefix) int {
	text := fmt.Sprint(nets)
	id, ok := b.nets[text]
	if !ok {
		id = len(b.t.nets)
		b.t.nets = append(b.t.nets, nets)
		b.nets[text] = id
	}
	return id
}

// table ends the building. The memory that was got in advance is given back.
func (b *builder) table() *table {
	t := b.t
	t.arena = strings.Clone(b.arena.String())
	t.words = slices.Clip(t.words)
	return &t
}
