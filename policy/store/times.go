package store

import "sync"

// shards is the number of locks that keys are spread over; more than cores, so that two rarely meet at one.
const shards = 64

// A key can be in one of two buckets of ways cells each; a bucket is 128 bytes, two cache lines.
const (
	ways         = 8
	firstBuckets = 8 // a shard's, when the first key comes
)

// Times keeps one time for each of many keys, in 25 to 50 bytes a key. A time that has passed takes no place. When
// there is no place for a new key, the one that passes soonest is forgotten: who makes up a million keys makes popgate
// forget the least of what it knows of others, never use more memory. It grows with use up to its bound, and may be
// used by many at once. A time is a number of nanoseconds on a clock of the caller's that never goes back.
type Times struct {
	buckets int // bound for one shard
	shards  [shards]timeShard
}

type timeShard struct {
	mu sync.Mutex
	timeTable
	_ [32]byte
}

// A timeTable is what one lock guards.
type timeTable struct {
	cells []cell // len is ways times a power of two, or 0
}

// A cell with until at or before now is free.
type cell struct {
	key   Key
	until int64
}

// NewTimes returns Times with room for most keys, rounded up to a power of two. From two thirds of that on, few at
// first, keys are forgotten before their time.
func NewTimes(most int) *Times {
	return &Times{buckets: bucketsFor(most)}
}

// bucketsFor is how many buckets a shard may have for so many keys in all.
func bucketsFor(most int) int {
	buckets := firstBuckets
	for buckets*ways*shards < most {
		buckets *= 2
	}
	return buckets
}

// Update keeps for k what next makes of the time that is kept, which is 0 where none is. A result at or before now is
// not kept. No other update of k comes between; next must be short.
func (t *Times) Update(k Key, now int64, next func(until int64) int64) {
	s := &t.shards[k%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.find(k, now); c != nil {
		c.until = next(c.until)
	} else if until := next(0); until > now {
		*s.place(k, now, t.buckets) = cell{k, until}
	}
}

// Len is the number of keys whose time has not passed at now.
func (t *Times) Len(now int64) int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.len(now)
		s.mu.Unlock()
	}
	return n
}

func (s *timeTable) len(now int64) (n int) {
	for _, c := range s.cells {
		if c.until > now {
			n++
		}
	}
	return n
}

// until is the time that is kept for k, 0 where none is.
func (s *timeTable) until(k Key, now int64) int64 {
	if c := s.find(k, now); c != nil {
		return c.until
	}
	return 0
}

// keep keeps a time for k. One that has passed frees its place; most is how many buckets there may be.
func (s *timeTable) keep(k Key, now, until int64, most int) {
	if c := s.find(k, now); c != nil {
		c.until = until
	} else if until > now {
		*s.place(k, now, most) = cell{k, until}
	}
}

func (s *timeTable) find(k Key, now int64) *cell {
	for _, bucket := range s.buckets(k) {
		for i := range bucket {
			if c := &bucket[i]; c.key == k && c.until > now {
				return c
			}
		}
	}
	return nil
}

// place finds a cell for a new key: a free one, in more room if there may be more, else the one soonest free. So a
// flood grows the table once, and from then on takes the places of what would have been forgotten first anyway.
func (s *timeTable) place(k Key, now int64, most int) *cell {
	for {
		c, free := s.emptiest(k, now)
		if free || len(s.cells) >= most*ways {
			return c
		}
		s.grow(now)
	}
}

// emptiest is the cell of k's buckets that is soonest free, out of the bucket with more free cells. That choice
// between two is what lets a table fill to two thirds before a key finds both its buckets full.
func (s *timeTable) emptiest(k Key, now int64) (best *cell, free bool) {
	most := -1
	for _, bucket := range s.buckets(k) {
		if len(bucket) == 0 {
			return nil, false
		}
		n, first := 0, &bucket[0]
		for i := range bucket {
			c := &bucket[i]
			if c.until <= now {
				n++
			}
			if c.until < first.until {
				first = c
			}
		}
		if n > most || n == most && first.until < best.until {
			best, most = first, n
		}
	}
	return best, most > 0
}

// grow doubles the table and puts what it still needs into its new place.
func (s *timeTable) grow(now int64) {
	old := s.cells
	s.cells = make([]cell, max(2*len(old), firstBuckets*ways))
	for _, c := range old {
		if c.until > now {
			to, _ := s.emptiest(c.key, now)
			*to = c
		}
	}
}

// buckets are the two where k can be. Their indexes come from other bits than those that chose the shard.
func (s *timeTable) buckets(k Key) [2][]cell {
	if len(s.cells) == 0 {
		return [2][]cell{}
	}
	mask := uint64(len(s.cells)/ways - 1)
	i := int(uint64(k)>>8&mask) * ways
	j := int(uint64(k)>>36&mask) * ways
	return [2][]cell{s.cells[i : i+ways], s.cells[j : j+ways]}
}
