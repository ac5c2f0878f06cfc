package store

import (
	"sync"

	"github.com/popgate/popgate/policy/limit"
)

// A key can be in one of two buckets of ways cells each; a bucket is 128 bytes, two cache lines.
const (
	ways         = 8
	firstBuckets = 8 // a shard's, when the first key comes
)

// Rates keeps the time that limit.Rate needs for each of many keys, in 25 to 50 bytes a key. A key whose turns are
// all free again takes no place. When there is no place for a new key the one that will soonest be free is forgotten:
// an attacker with a million networks makes popgate forget the least of what others failed, never use more memory.
// It grows with use up to its bound, and may be used by many at once. Times are those of package limit.
type Rates struct {
	buckets int // bound for one shard
	shards  [shards]rateShard
}

type rateShard struct {
	mu    sync.Mutex
	cells []cell // len is ways times a power of two, or 0
	_     [32]byte
}

// A cell with until at or before now is free.
type cell struct {
	key   Key
	until int64
}

// NewRates returns Rates with room for most keys, rounded up to a power of two. From two thirds of that on, few at
// first, keys are forgotten before their time.
func NewRates(most int) *Rates {
	r := &Rates{buckets: firstBuckets}
	for r.buckets*ways*shards < most {
		r.buckets *= 2
	}
	return r
}

// Bound is the number of keys there is room for.
func (r *Rates) Bound() int { return r.buckets * ways * shards }

// Take asks for a turn of k; a rate that is off grants it and keeps nothing. paid is what Give wants to have, should the turn be given back.
func (r *Rates) Take(k Key, rate limit.Rate, now int64) (paid int64, ok bool) {
	if rate.Off() {
		return 0, true
	}
	s := &r.shards[k%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.find(k, now)
	if c == nil {
		c = s.place(k, now, r.buckets)
		c.key, c.until = k, 0
	}
	c.until, ok = rate.Take(c.until, now)
	return c.until, ok
}

// Give gives back a turn that Take granted with the same rate. A key that was forgotten has none to give.
func (r *Rates) Give(k Key, rate limit.Rate, paid, now int64) {
	s := &r.shards[k%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.find(k, now); c != nil {
		c.until = rate.Give(c.until, paid, now)
	}
}

// Len is the number of keys that have a turn out at the time now.
func (r *Rates) Len(now int64) int {
	n := 0
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for _, c := range s.cells {
			if c.until > now {
				n++
			}
		}
		s.mu.Unlock()
	}
	return n
}

func (s *rateShard) find(k Key, now int64) *cell {
	for _, bucket := range s.buckets(k) {
		for i := range bucket {
			if c := &bucket[i]; c.key == k && c.until > now {
				return c
			}
		}
	}
	return nil
}

// place finds a cell for a new key: a free one, in more room if there may be more, else the one soonest free.
func (s *rateShard) place(k Key, now int64, most int) *cell {
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
func (s *rateShard) emptiest(k Key, now int64) (best *cell, free bool) {
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
func (s *rateShard) grow(now int64) {
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
func (s *rateShard) buckets(k Key) [2][]cell {
	if len(s.cells) == 0 {
		return [2][]cell{}
	}
	mask := uint64(len(s.cells)/ways - 1)
	i := int(uint64(k)>>8&mask) * ways
	j := int(uint64(k)>>36&mask) * ways
	return [2][]cell{s.cells[i : i+ways], s.cells[j : j+ways]}
}
