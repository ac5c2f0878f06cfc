package lockout

import "sync"

// tableShards is the number of locks of a table; more than cores, so that two rarely meet at one.
const tableShards = 64

// A table keeps a value for each of many keys, and forgets the one that was not used for longest when there are too
// many. It grows with use up to its bound and allocates nothing from then on. Keys are keyed digests: their bits are as
// good as random, and nobody outside can choose them.
type table[V any] struct {
	shards [tableShards]shard[V]
}

// A shard is a hash table with chains, and a ring of its entries from the newest to the oldest. Entry 0 is no entry: it
// ends chains, and is where the ring begins. Whoever uses a shard holds its lock, for as long as it uses what it got.
type shard[V any] struct {
	mu      sync.Mutex
	most    int
	n       int
	unused  int32 // removed entries, chained
	heads   []int32
	entries []entry[V]
	_       [40]byte
}

type entry[V any] struct {
	key                Key
	next, older, newer int32
	value              V
}

// newTable returns a table of at most so many keys, rounded up to a multiple of its shards.
func newTable[V any](most int) *table[V] {
	t := new(table[V])
	for i := range t.shards {
		t.shards[i].most = max((most+tableShards-1)/tableShards, 1)
	}
	return t
}

// lock returns the shard of k, locked.
func (t *table[V]) lock(k Key) *shard[V] {
	s := &t.shards[k%tableShards]
	s.mu.Lock()
	return s
}

// most is the bound of the number of keys.
func (t *table[V]) most() int { return t.shards[0].most * tableShards }

// len is the number of keys.
func (t *table[V]) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.n
		s.mu.Unlock()
	}
	return n
}

// remove forgets k.
func (t *table[V]) remove(k Key) {
	s := t.lock(k)
	s.remove(k)
	s.mu.Unlock()
}

// each calls f for each key of one shard after the other, the oldest first; f must be short, and may change the value.
func (t *table[V]) each(f func(k Key, v *V)) {
	for i := range t.shards {
		t.eachOf(i, f)
	}
}

func (t *table[V]) eachOf(i int, f func(k Key, v *V)) {
	s := &t.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return
	}
	for at := s.entries[0].newer; at != 0; at = s.entries[at].newer {
		f(s.entries[at].key, &s.entries[at].value)
	}
}

// get is the value of k, nil where there is none. It does not make k any newer.
func (s *shard[V]) get(k Key) *V {
	if at := s.find(k); at != 0 {
		return &s.entries[at].value
	}
	return nil
}

// use is the value of k, a zero one where there was none, and makes k the newest.
func (s *shard[V]) use(k Key) *V {
	at := s.find(k)
	if at == 0 {
		at = s.place(k)
	} else {
		s.unlink(at)
	}
	newest := s.entries[0].older
	s.entries[at].older, s.entries[at].newer = newest, 0
	s.entries[newest].newer, s.entries[0].older = at, at
	return &s.entries[at].value
}

// oldest is the key that was not used for longest, and its value; there must be one.
func (s *shard[V]) oldest() (Key, *V) {
	e := &s.entries[s.entries[0].newer]
	return e.key, &e.value
}

func (s *shard[V]) remove(k Key) {
	at := s.find(k)
	if at == 0 {
		return
	}
	link := s.head(k)
	for *link != at {
		link = &s.entries[*link].next
	}
	*link = s.entries[at].next
	s.unlink(at)
	s.entries[at] = entry[V]{next: s.unused}
	s.unused = at
	s.n--
}

func (s *shard[V]) head(k Key) *int32 { return &s.heads[uint64(k)>>8&uint64(len(s.heads)-1)] }

func (s *shard[V]) find(k Key) int32 {
	if len(s.heads) == 0 {
		return 0
	}
	at := *s.head(k)
	for at != 0 && s.entries[at].key != k {
		at = s.entries[at].next
	}
	return at
}

func (s *shard[V]) unlink(at int32) {
	e := &s.entries[at]
	s.entries[e.older].newer, s.entries[e.newer].older = e.newer, e.older
}

// place finds a place for k, that of the oldest where there are most already, and puts it in its chain, but not in the
// ring.
func (s *shard[V]) place(k Key) int32 {
	if s.n >= s.most {
		s.remove(s.entries[s.entries[0].newer].key)
	}
	if s.unused == 0 && len(s.entries) == cap(s.entries) {
		s.grow()
	}
	at := s.unused
	if at != 0 {
		s.unused = s.entries[at].next
	} else {
		at = int32(len(s.entries))
		s.entries = s.entries[:at+1]
	}
	head := s.head(k)
	s.entries[at] = entry[V]{key: k, next: *head}
	*head = at
	s.n++
	return at
}

// grow doubles the room, up to the bound, and chains all entries anew.
func (s *shard[V]) grow() {
	room := min(max(2*cap(s.entries), 16), s.most+1)
	entries := make([]entry[V], max(len(s.entries), 1), room)
	copy(entries, s.entries)
	s.entries = entries
	heads := 8
	for heads < room-1 {
		heads *= 2
	}
	s.heads = make([]int32, heads)
	for at := 1; at < len(s.entries); at++ {
		head := s.head(s.entries[at].key)
		s.entries[at].next, *head = *head, int32(at)
	}
}
