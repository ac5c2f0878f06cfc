package access

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
)

// A table is a set of networks, made for looking up one address among very many. It does not change; the nil table is empty.
// IPv4 and IPv6 are apart, and so are IPv6 ranges of whole /64, which nearly all are: these take 19 bytes, others 35, and an IPv4
// range 8.
type table struct {
	v4  ranges4
	v64 ranges64
	v6  ranges6
}

// contains says whether addr is in one of the networks. An IPv4 address mapped into IPv6 counts as IPv4.
func (t *table) contains(addr netip.Addr) bool {
	switch {
	case t == nil || !addr.IsValid():
		return false
	case addr.Is4() || addr.Is4In6():
		return t.v4.contains(number4(addr.Unmap()))
	default:
		a := number6(addr)
		return t.v64.contains(a.hi) || t.v6.contains(a)
	}
}

// size is how many ranges the table has; networks that touch have become one.
func (t *table) size() int { return len(t.v4.first) + len(t.v64.list) + len(t.v6.list) }

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// A uint128 is an IPv6 address.
type uint128 struct{ hi, lo uint64 }

func number6(a netip.Addr) uint128 {
	b := a.As16()
	return uint128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (u uint128) compare(v uint128) int {
	if c := cmp.Compare(u.hi, v.hi); c != 0 {
		return c
	}
	return cmp.Compare(u.lo, v.lo)
}

// less says that u is before v.
func (u uint128) less(v uint128) bool { return borrow(u, v) != 0 }

// borrow is 1 where u is before v, and else 0, without a branch that could be guessed wrong.
func borrow(u, v uint128) uint64 {
	_, b := bits.Sub64(u.lo, v.lo, 0)
	_, b = bits.Sub64(u.hi, v.hi, b)
	return b
}

// next is the address behind u; ok is false behind the last.
func (u uint128) next() (v uint128, ok bool) {
	v = uint128{u.hi, u.lo + 1}
	if v.lo == 0 {
		v.hi++
	}
	return v, v != uint128{}
}

// ranges4 are in order and apart from each other.
type ranges4 struct {
	first, last []uint32
	// from holds, for each value of an address' upper half, the number of ranges that begin below it. So a search begins among
	// the few that begin with the same 16 bits. nil where there are few anyway.
	from []uint32
}

// manyRanges is from how many on a search gets its index.
const manyRanges = 4096

func (r *ranges4) contains(a uint32) bool {
	low, high := 0, len(r.first)
	if r.from != nil {
		low, high = int(r.from[a>>16]), int(r.from[a>>16+1])
	}
	for low < high { // finds the first that begins behind a
		mid := int(uint(low+high) >> 1)
		if r.first[mid] <= a {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low > 0 && a <= r.last[low-1]
}

// A tree finds where among a great many ranges to look, by the upper halves of where they begin. Its first level holds that of the first
// of each run of ranges, and each other one the first of each group of the level before it. A search reads one line of the
// processor's cache a level; halving would miss the cache, and the guess where to go on, twenty times.
type tree [][]uint64

const (
	runSize   = 4 // how many ranges are looked at at once
	groupSize = 8 // how many numbers are: as many as a cache line has
)

// newTree makes one over n ranges, which begin at upper halves that do not fall.
func newTree(n int, first func(i int) uint64) tree {
	n = (n + runSize - 1) / runSize
	below := filled(n)
	for i := range n {
		below[i] = first(i * runSize)
	}
	var t tree
	for n > 0 {
		t = append(t, below)
		if n <= groupSize {
			break
		}
		above := filled((n + groupSize - 1) / groupSize)
		for i := 0; i < n; i += groupSize {
			above[i/groupSize] = below[i]
		}
		n, below = (n+groupSize-1)/groupSize, above
	}
	return t
}

// filled has room for n numbers in whole groups, and nothing is greater than what it holds.
func filled(n int) []uint64 {
	level := make([]uint64, (n+groupSize-1)/groupSize*groupSize)
	for i := range level {
		level[i] = math.MaxUint64
	}
	return level
}

// run is the index of the first range of the last run of n ranges that does not begin behind hi; the first run does not.
func (t tree) run(hi uint64, n int) int {
	run := 0
	for i := len(t) - 1; i >= 0; i-- {
		run = lastIn(t[i], run, hi)
	}
	return min(run, (n-1)/runSize) * runSize // what fills the last group may count too
}

// lastIn is the index of the last that is not greater than hi within a group, the first of which is not.
func lastIn(level []uint64, group int, hi uint64) int {
	start := group * groupSize
	g := (*[groupSize]uint64)(level[start : start+groupSize])
	// Without a branch that could be guessed wrong.
	return start + groupSize - 1 - int(less(hi, g[1])+less(hi, g[2])+less(hi, g[3])+less(hi, g[4])+less(hi, g[5])+less(hi, g[6])+less(hi, g[7]))
}

// less is 1 where x is less than y, and else 0.
func less(x, y uint64) uint64 {
	_, borrow := bits.Sub64(x, y, 0)
	return borrow
}

// ranges64 are of whole /64, in order and apart from each other. A run of them is one line of the processor's cache.
type ranges64 struct {
	list []range64
	tree tree
}

// A range64 has the upper halves of its first and last address.
type range64 struct{ first, last uint64 }

func (r *ranges64) contains(hi uint64) bool {
	if len(r.list) == 0 || hi < r.list[0].first {
		return false
	}
	start := r.tree.run(hi, len(r.list))
	at := start - 1
	for i := range r.list[start:min(start+runSize, len(r.list))] {
		at += 1 - int(less(hi, r.list[start+i].first))
	}
	return hi <= r.list[at].last
}

// ranges6 are any, in order and apart from each other.
type ranges6 struct {
	list []range6
	tree tree
}

func (r *ranges6) contains(a uint128) bool {
	if len(r.list) == 0 || a.less(r.list[0].first) {
		return false
	}
	start := r.tree.run(a.hi, len(r.list))
	if a.less(r.list[start].first) {
		return !r.list[r.before(start, a)].last.less(a) // the run begins in the same /64
	}
	at := start - 1
	for i := range r.list[start:min(start+runSize, len(r.list))] {
		at += 1 - int(borrow(a, r.list[start+i].first))
	}
	return !r.list[at].last.less(a)
}

// before is the last range that does not begin behind a. It is one before at.
func (r *ranges6) before(at int, a uint128) int {
	return sort.Search(at, func(i int) bool { return a.less(r.list[i].first) }) - 1
}

// A builder collects ranges for a table.
type builder struct {
	v4 []range4
	v6 []range6
}

type range4 struct{ first, last uint32 }

type range6 struct{ first, last uint128 }

// count is how many ranges were added.
func (b *builder) count() int { return len(b.v4) + len(b.v6) }

// prefix adds a network, whose host bits do not matter.
func (b *builder) prefix(p netip.Prefix) {
	p = p.Masked()
	if p.Addr().Is4() {
		first := number4(p.Addr())
		b.v4 = append(b.v4, range4{first, first | uint32(1<<(32-uint(p.Bits()))-1)})
		return
	}
	first, host := number6(p.Addr()), 128-p.Bits()
	last := first
	if host >= 64 {
		last.lo = ^uint64(0)
		last.hi |= 1<<(uint(host)-64) - 1
	} else {
		last.lo |= 1<<uint(host) - 1
	}
	b.v6 = append(b.v6, range6{first, last})
}

// span adds all addresses from first to last, which are of one family.
func (b *builder) span(first, last netip.Addr) {
	if first.Is4() {
		b.v4 = append(b.v4, range4{number4(first), number4(last)})
	} else {
		b.v6 = append(b.v6, range6{number6(first), number6(last)})
	}
}

// table makes the table of all that was added, and leaves the builder empty.
func (b *builder) table() *table {
	t := &table{v4: table4(b.v4)}
	t.v64, t.v6 = table6(b.v6)
	*b = builder{}
	return t
}

func table4(list []range4) ranges4 {
	slices.SortFunc(list, func(x, y range4) int { return cmp.Compare(x.first, y.first) })
	n := 0
	for _, one := range list {
		// What touches becomes one; the sum must not go round at the last address.
		if n > 0 && (one.first <= list[n-1].last || one.first == list[n-1].last+1) {
			list[n-1].last = max(list[n-1].last, one.last)
			continue
		}
		list[n] = one
		n++
	}
	r := ranges4{first: make([]uint32, n), last: make([]uint32, n)}
	for i, one := range list[:n] {
		r.first[i], r.last[i] = one.first, one.last
	}
	if n >= manyRanges {
		r.from = make([]uint32, 1<<16+1)
		for i := range r.from {
			r.from[i] = uint32(sort.Search(n, func(j int) bool { return uint64(r.first[j]) >= uint64(i)<<16 }))
		}
	}
	return r
}

func table6(list []range6) (whole ranges64, other ranges6) {
	slices.SortFunc(list, func(x, y range6) int { return x.first.compare(y.first) })
	n := 0
	for _, one := range list {
		if n > 0 && touches(list[n-1], one) {
			if list[n-1].last.compare(one.last) < 0 {
				list[n-1].last = one.last
			}
			continue
		}
		list[n] = one
		n++
	}
	list = list[:n]
	for _, one := range list {
		if one.first.lo == 0 && one.last.lo == math.MaxUint64 {
			whole.list = append(whole.list, range64{one.first.hi, one.last.hi})
		} else {
			other.list = append(other.list, one)
		}
	}
	// No larger than they must be.
	whole.list, other.list = slices.Clone(whole.list), slices.Clone(other.list)
	whole.tree = newTree(len(whole.list), func(i int) uint64 { return whole.list[i].first })
	other.tree = newTree(len(other.list), func(i int) uint64 { return other.list[i].first.hi })
	return whole, other
}

// touches says that b, which does not begin before a, leaves no address between them.
func touches(a, b range6) bool {
	if b.first.compare(a.last) <= 0 {
		return true
	}
	next, ok := a.last.next()
	return ok && b.first == next
}
