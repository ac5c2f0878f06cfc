package store

import "sync"

// shards is the number of locks that keys are spread over; more than cores, so that two rarely meet at one.
const shards = 64

// Counts keeps how many of each key there are now. It has as many keys as things are counted at once, so whoever
// bounds those bounds it. It may be used by many at once.
type Counts struct {
	shards [shards]countShard
}

// countShard fills a cache line of its own, or cores would wait for each other's neighbours.
type countShard struct {
	mu sync.Mutex
	m  map[Key]int
	_  [48]byte
}

// NewCounts returns Counts that hold nothing.
func NewCounts() *Counts {
	c := new(Counts)
	for i := range c.shards {
		c.shards[i].m = make(map[Key]int)
	}
	return c
}

// Add counts one more of k, unless there are most of it or more; most <= 0 is no bound. It says whether it counted.
func (c *Counts) Add(k Key, most int) bool {
	s := &c.shards[k%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.m[k]
	if most > 0 && n >= most {
		return false
	}
	s.m[k] = n + 1
	return true
}

// Remove counts one fewer of k. Each call gives back what one Add counted.
func (c *Counts) Remove(k Key) {
	s := &c.shards[k%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.m[k]; n > 1 {
		s.m[k] = n - 1
	} else {
		delete(s.m, k)
	}
}

// Len is the number of keys of which there is at least one.
func (c *Counts) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.m)
		s.mu.Unlock()
	}
	return n
}
