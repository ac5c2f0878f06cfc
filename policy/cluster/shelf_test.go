package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/auth/peers"
)

func newTestShelf(t testing.TB, c *Client, part string, most int) *Shelf {
	t.Helper()
	if c == nil {
		c = &Client{config: Config{Prefix: "x"}}
	}
	return NewShelf(c, NewBus(c, BusOptions{}), part, ShelfOptions{Key: [32]byte{1}, Most: most})
}

// An owner is a node that knows facts and has a shelf for them.
type owner struct {
	*Shelf
	bus   *Bus
	mu    sync.Mutex
	facts map[uint64]Fact
}

func newOwner(t testing.TB, p *redisPeer, most int) *owner {
	t.Helper()
	c := p.client(t)
	o := &owner{bus: NewBus(c, BusOptions{Key: [32]byte{1}}), facts: make(map[uint64]Fact)}
	o.Shelf = NewShelf(c, o.bus, "test", ShelfOptions{Key: [32]byte{1}, Most: most})
	o.Own(func(f Fact) {
		o.mu.Lock()
		if f.At.After(o.facts[f.Key].At) {
			o.facts[f.Key] = f
		}
		o.mu.Unlock()
	}, func(yield func(Fact) bool) {
		for _, f := range o.all() {
			if !yield(f) {
				return
			}
		}
	})
	run(t, o.bus.Run)
	run(t, o.Run)
	return o
}

func (o *owner) all() map[uint64]Fact {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.facts)
}

// learn has the node know a fact, and put it on its shelf.
func (o *owner) learn(f Fact) {
	f.At, f.Until = f.At.Truncate(time.Microsecond), f.Until.Truncate(time.Microsecond)
	o.mu.Lock()
	o.facts[f.Key] = f
	o.mu.Unlock()
	o.Put(f)
}

func (o *owner) wantEventually(t testing.TB, what string, want map[uint64]string) {
	t.Helper()
	peers.Eventually(t, what, func() error {
		got := o.all()
		for key, value := range want {
			if string(got[key].Value) != value {
				return fmt.Errorf("fact %d: got %q, want %q, of %d", key, got[key].Value, value, len(got))
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("got %d facts, want %d", len(got), len(want))
		}
		return nil
	})
}

// onShelf waits until so many facts are in Redis.
func onShelf(t testing.TB, s *Shelf, want int) {
	t.Helper()
	peers.Eventually(t, "they are on the shelf", func() error {
		for i, command := range []string{"ZCARD", "HLEN"} {
			n, err := s.client.Do(t.Context(), command, s.keys[i])
			if err != nil || n != int64(want) {
				return fmt.Errorf("%s: got %v, %v, want %d", command, n, err, want)
			}
		}
		return nil
	})
}

func TestShelf(t *testing.T) {
	p := newRedis(t)
	a := newOwner(t, p, 10_000)
	now, hour := time.Now(), time.Now().Add(time.Hour)
	want := map[uint64]string{}
	for i := range uint64(1500) {
		want[i<<50] = fmt.Sprint("value ", i)
		a.learn(Fact{Key: i << 50, At: now, Until: hour, Value: []byte(want[i<<50])})
	}
	onShelf(t, a.Shelf, len(want))
	b := newOwner(t, p, 10_000)
	b.wantEventually(t, "a node that starts knows them", want)

	// The later of two holds, whoever puts it when.
	b.learn(Fact{Key: 0, At: now.Add(time.Second), Until: hour, Value: []byte("later")})
	a.Put(Fact{Key: 0, At: now.Add(-time.Second), Until: hour, Value: []byte("earlier")})
	want[0] = "later"
	peers.Eventually(t, "both are written", func() error {
		if n := testutil.ToFloat64(a.metrics.put); n < 1501 || testutil.ToFloat64(b.metrics.put) < 1 {
			return errors.New("not yet")
		}
		v, err := a.client.Do(t.Context(), "HGET", a.keys[1], fieldOf(0)) // b puts all that it knows too
		if text, ok := v.(string); err != nil || !ok {
			return fmt.Errorf("%v, %v", v, err)
		} else if f, err := a.open(fieldOf(0), []byte(text)); err != nil || string(f.Value) != "later" {
			return fmt.Errorf("got %q, %v", f.Value, err)
		}
		return nil
	})
	newOwner(t, p, 10_000).wantEventually(t, "the later holds", want)

	// Redis is emptied while nodes run, and while they do not look.
	_, err := p.client(t).Do(t.Context(), "FLUSHALL")
	must(t, err)
	onShelf(t, a.Shelf, len(want))
	p.Down(t)
	p.Up(t)
	onShelf(t, a.Shelf, len(want))

	// It was short of memory, and threw away a part.
	_, err = p.client(t).Do(t.Context(), "HDEL", a.keys[1], fieldOf(0))
	must(t, err)
	onShelf(t, a.Shelf, len(want))
}

// TestShelfForged: what is in Redis without the key's seal is not believed, and does no harm.
func TestShelfForged(t *testing.T) {
	p := newRedis(t)
	a := newOwner(t, p, 100)
	a.learn(Fact{Key: 1, At: time.Now(), Until: time.Now().Add(time.Hour), Value: []byte("x")})
	onShelf(t, a.Shelf, 1)
	client := p.client(t)
	v, err := client.Do(t.Context(), "HGET", a.keys[1], fieldOf(1))
	must(t, err)
	for field, value := range map[string]any{fieldOf(2): v, fieldOf(3): "\x00\x00\x00\x00\x00\x00\x01junk", "field": "value"} {
		// Both at once: the node looks at any time whether there is a part only.
		_, err := client.Eval(t.Context(), "redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) return redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])",
			a.keys[:2], field, value, time.Now().Add(time.Hour).UnixMicro())
		must(t, err)
	}
	b := newOwner(t, p, 100)
	b.wantEventually(t, "only what was sealed is believed", map[uint64]string{1: "x"})
	peers.Eventually(t, "the others were counted", func() error {
		if n := testutil.ToFloat64(b.metrics.refused); n < 3 {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
}

// TestShelfLost: who puts back what Redis has lost has the others look: one that began meanwhile found nothing there.
func TestShelfLost(t *testing.T) {
	p := newRedis(t)
	a := newOwner(t, p, 100)
	a.learn(Fact{Key: 1, At: time.Now(), Until: time.Now().Add(time.Hour), Value: []byte("x")})
	onShelf(t, a.Shelf, 1)
	l := newListener(t, p.client(t), 1)
	peers.Eventually(t, "it hears", func() error {
		a.bus.Publish("test", []byte("hello"))
		if len(l.all()) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	before := l.missed.Load()
	_, err := p.client(t).Do(t.Context(), "FLUSHALL")
	must(t, err)
	peers.Eventually(t, "it is told to look", func() error {
		if l.missed.Load() == before {
			return errors.New("not yet")
		}
		return nil
	})
	onShelf(t, a.Shelf, 1)
}

// TestShelfBounds: what is over, and what is too much, is cleared away: what ends soonest goes first.
func TestShelfBounds(t *testing.T) {
	p := newRedis(t)
	s := newTestShelf(t, p.client(t), "test", 100)
	now := time.Now()
	for i := range uint64(700) {
		s.Put(Fact{Key: i, At: now, Until: now.Add(time.Hour + time.Duration(i)*time.Second)})
	}
	s.Put(Fact{Key: 7000, At: now, Until: now.Add(-time.Second)})
	run(t, s.Run)
	peers.Eventually(t, "the last hundred are left", func() error {
		left, err := s.client.Do(t.Context(), "ZRANGE", s.keys[0], 0, 0)
		if err != nil || len(left.([]any)) == 0 || left.([]any)[0] != fieldOf(600) {
			return fmt.Errorf("the first is %x, %v", left, err)
		}
		return nil
	})
	onShelf(t, s, 100)
	s.Put(Fact{Key: 8000, At: now, Until: time.Now().Add(100 * time.Hour)})
	onShelf(t, s, 100)

	// More than can wait is asked for again.
	b := newTestShelf(t, p.client(t), "more", maxPending*2)
	facts := map[uint64]Fact{}
	for i := range uint64(maxPending + 1000) {
		facts[i] = Fact{Key: i, At: now, Until: now.Add(time.Hour)}
		b.Put(facts[i])
	}
	if n := len(b.pending); n != maxPending {
		t.Errorf("pending: got %d, want %d", n, maxPending)
	}
	b.Own(func(Fact) {}, maps.Values(facts))
	run(t, b.Run)
	onShelf(t, b, len(facts))
}

// TestShelfAway: nobody waits for a Redis that is away or frozen, and when it is back all nodes know what one learned meanwhile.
func TestShelfAway(t *testing.T) {
	p := newRedis(t)
	a, b := newOwner(t, p, 100_000), newOwner(t, p, 100_000)
	want := map[uint64]string{}
	hour := time.Now().Add(time.Hour)
	for i, how := range []struct {
		name       string
		away, back func()
	}{
		{"frozen", func() { p.signal(t, syscall.SIGSTOP) }, func() { p.signal(t, syscall.SIGCONT) }},
		{"stopped, and empty", func() { p.Down(t) }, func() { p.Up(t) }},
	} {
		how.away()
		for _, o := range []*owner{a, b} {
			peers.Eventually(t, how.name+": it says so", func() error {
				if o.Trouble() == nil {
					return errors.New("no trouble")
				}
				return nil
			})
		}
		start := time.Now()
		for n, o := range []*owner{a, b} {
			for j := range 2000 {
				key := uint64(10*i+n+1)<<32 | uint64(j)
				want[key] = how.name
				o.learn(Fact{Key: key, At: time.Now(), Until: hour, Value: []byte(how.name)})
			}
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: 4000 facts took %v, want nobody to wait", how.name, took)
		}
		how.back()
		for _, o := range []*owner{a, b} {
			o.wantEventually(t, how.name+": both know all", want)
		}
		onShelf(t, a.Shelf, len(want))
	}
	if keys := slices.Sorted(maps.Keys(a.all())); len(keys) != 8000 {
		t.Errorf("got %d, want 8000", len(keys))
	}
}

// TestShelfEnd: what is put last is written when the node stops.
func TestShelfEnd(t *testing.T) {
	p := newRedis(t)
	t.Run("a node", func(t *testing.T) {
		s := newTestShelf(t, p.client(t), "test", 100)
		run(t, s.Run)
		onShelf(t, s, 0)
		s.Put(Fact{Key: 1, At: time.Now(), Until: time.Now().Add(time.Hour)})
	})
	s := newTestShelf(t, p.client(t), "test", 100)
	if n, err := s.client.Do(t.Context(), "HLEN", s.keys[1]); n != int64(1) || err != nil {
		t.Errorf("got %v, %v, want the one", n, err)
	}
}
