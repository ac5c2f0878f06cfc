package store

import (
	"context"
	"iter"
	"math"
	"math/bits"
	"sync"
	"time"
)

// Memory keeps what one process counts: places, as many as are held, and the times of rates, which are bounded and
// forgotten as Times does. It may be used by many at once, and allocates nothing once it has grown.
type Memory struct {
	start   time.Time // the zero of its clock: only what has passed since counts, whatever is done to the wall's
	buckets [classes]int
	shards  [shards]memoryShard
}

// memoryShard fills cache lines of its own.
type memoryShard struct {
	mu     sync.Mutex
	rates  [classes]timeTable
	places map[Key]int64
	_      [40]byte
}

// NewMemory returns a Memory that has counted nothing. It keeps maxRates times for each class of keys that is bounded,
// rounded up to a power of two.
func NewMemory(maxRates int) *Memory {
	n := bucketsFor(maxRates)
	m := &Memory{start: time.Now(), buckets: [classes]int{Strangers: n, Users: n, Fixed: math.MaxInt / ways}}
	for i := range m.shards {
		m.shards[i].places = make(map[Key]int64)
	}
	return m
}

// Take takes all that is asked for, or nothing, as if nobody else asked meanwhile. It returns -1, or the index of the
// first that refused. No two of asks have one key. What it granted is given back by Give with the same asks: each turn
// at most once, and each place exactly once.
func (m *Memory) Take(_ context.Context, asks []Ask) (refused int) {
	now := m.now()
	locked := m.lock(asks)
	defer m.unlock(locked)
	for i := range asks {
		if !m.grants(&asks[i], now) {
			return i
		}
	}
	for i := range asks {
		m.commit(&asks[i], now)
	}
	return -1
}

// grants says whether there is what a asks for. The shard is locked.
func (m *Memory) grants(a *Ask, now int64) bool {
	s := m.shard(a.Key)
	if a.Most <= 0 {
		return true
	}
	if a.Place() {
		return s.places[a.Key] < a.Most
	}
	c := s.rates[a.Key.class()].find(a.Key, now)
	if c == nil {
		return true
	}
	next, ok := TakeTurn(a.Turn, a.Most, c.until, now)
	if !ok {
		c.until = next // nearer, if it was left by a slower rate
	}
	return ok
}

// commit takes what a asks for. The shard is locked.
func (m *Memory) commit(a *Ask, now int64) {
	s := m.shard(a.Key)
	if a.Place() {
		s.places[a.Key]++
		return
	}
	class := a.Key.class()
	t := &s.rates[class]
	a.Paid, _ = TakeTurn(a.Turn, a.Most, t.until(a.Key, now), now)
	t.keep(a.Key, now, a.Paid, m.buckets[class])
}

// Give gives back what Take granted. Of a turn, it is what time has not brought back yet.
func (m *Memory) Give(asks []Ask) {
	now := m.now()
	for i := range asks {
		a := &asks[i]
		s := m.shard(a.Key)
		s.mu.Lock()
		if a.Place() {
			s.release(a.Key)
		} else if c := s.rates[a.Key.class()].find(a.Key, now); c != nil { // what was forgotten has nothing to give
			c.until = GiveTurn(a.cost(), c.until, a.Paid, now)
		}
		s.mu.Unlock()
	}
}

func (s *memoryShard) release(k Key) {
	if n := s.places[k]; n > 1 {
		s.places[k] = n - 1
	} else {
		delete(s.places, k)
	}
}

// Spend pays n turns of each of asks, whatever is left, and says how long to wait before going on. Places are not looked at.
func (m *Memory) Spend(_ context.Context, asks []Ask, n int64) (wait time.Duration) {
	now := m.now()
	for i := range asks {
		a := &asks[i]
		if a.Place() {
			continue
		}
		s, class := m.shard(a.Key), a.Key.class()
		s.mu.Lock()
		t := &s.rates[class]
		next, w := SpendTurns(a.Turn, a.Most, n, t.until(a.Key, now), now)
		t.keep(a.Key, now, next, m.buckets[class])
		s.mu.Unlock()
		wait = max(wait, time.Duration(w))
	}
	return wait
}

// Hold counts the places among asks, however many there are, and no turns.
func (m *Memory) Hold(asks []Ask) {
	for i := range asks {
		if a := &asks[i]; a.Place() {
			s := m.shard(a.Key)
			s.mu.Lock()
			s.places[a.Key]++
			s.mu.Unlock()
		}
	}
}

// Count is how many places of k are held.
func (m *Memory) Count(k Key) int64 {
	s := m.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.places[k]
}

// Places tells of every key of which places are held, and how many. Others may take and give meanwhile: each key is told
// once, as it was at some time during the call.
func (m *Memory) Places() iter.Seq2[Key, int64] {
	return func(yield func(Key, int64) bool) {
		type count struct {
			k Key
			n int64
		}
		var all []count
		for i := range m.shards {
			s := &m.shards[i]
			all = all[:0]
			s.mu.Lock()
			for k, n := range s.places {
				all = append(all, count{k, n})
			}
			s.mu.Unlock() // before yield, which may well ask again
			for _, c := range all {
				if !yield(c.k, c.n) {
					return
				}
			}
		}
	}
}

// Len is the number of keys of which places are held, and of those that have turns out.
func (m *Memory) Len() (places, rates int) {
	now := m.now()
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		places += len(s.places)
		for c := range s.rates {
			rates += s.rates[c].len(now)
		}
		s.mu.Unlock()
	}
	return places, rates
}

func (m *Memory) now() int64 { return int64(time.Since(m.start)) }

func (m *Memory) shard(k Key) *memoryShard { return &m.shards[k%shards] }

// lock locks the shards of all keys, always in one order, so that none waits for another in a circle. It returns
// which those are, a bit each.
func (m *Memory) lock(asks []Ask) (locked uint64) {
	for i := range asks {
		locked |= 1 << (asks[i].Key % shards)
	}
	for rest := locked; rest != 0; rest &= rest - 1 {
		m.shards[bits.TrailingZeros64(rest)].mu.Lock()
	}
	return locked
}

func (m *Memory) unlock(locked uint64) {
	for ; locked != 0; locked &= locked - 1 {
		m.shards[bits.TrailingZeros64(locked)].mu.Unlock()
	}
}
