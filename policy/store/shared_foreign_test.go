package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/peers"
)

// TestSharedForeign has Redis keep something else under popgate's keys: those decisions are made alone, with one line in the log, and the
// others are not touched.
func TestSharedForeign(t *testing.T) {
	r := runServer(t)
	n := runNode(t, shareConfig(r.address))
	n.together(t)
	// Nothing at all is what time has brought back.
	n.Give([]Ask{{Key: 10, Turn: int64(time.Minute), Most: 3, Paid: n.memory.now() + int64(time.Minute)}})
	key := r.redis.Key(part, "t:") + "\x09\x00\x00\x00\x00\x00\x00\x00"
	for i, value := range []string{"", "something", "nan", "inf", "-inf", "1e400", "0x7f"} {
		r.do(t, "DEL", key)
		if i == 0 {
			r.do(t, "RPUSH", key, "x")
		} else {
			r.do(t, "SET", key, value)
		}
		n.Give([]Ask{{Key: 9, Turn: int64(time.Minute), Most: 3, Paid: n.memory.now() + int64(time.Minute)}})
		asks := []Ask{{Key: 8, Most: 1000}, {Key: 9, Turn: int64(time.Millisecond), Most: 3}}
		peers.Eventually(t, fmt.Sprintf("a turn of a key that holds %q", value), func() error {
			if got := n.Take(t.Context(), asks); got != -1 {
				return fmt.Errorf("got %d", got)
			}
			return nil
		})
		r.holds(t, 8, 1)
		n.Give(asks)
		r.holds(t, 8, 0)
	}
	if got := n.log.count("something else"); got != 1 {
		t.Errorf("log lines: got %d, want 1", got)
	}
	if got := n.log.count("no longer shared"); got != 0 {
		t.Errorf("outages: got %d, want none for one key", got)
	}
	if n.Trouble() != nil {
		t.Errorf("trouble: %v, want none for one key", n.Trouble())
	}
	// Its own hash, a field of it, and another node's.
	for _, spoil := range []func(hash string){
		func(hash string) { r.do(t, "HSET", hash, "\x08\x00\x00\x00\x00\x00\x00\x00", "x") },
		func(hash string) { r.do(t, "DEL", hash); r.do(t, "SET", hash, "x") },
		func(string) {
			r.do(t, "ZADD", r.redis.Key(part, "nodes"), "1e15", "other")
			r.do(t, "SET", r.redis.Key(part, "n:other"), "x")
		},
	} {
		members := r.do(t, "ZRANGE", r.redis.Key(part, "nodes"), 0, -1).([]any)
		spoil(r.redis.Key(part, "n:") + members[len(members)-1].(string))
		if got := n.Take(t.Context(), places(8, 1)); got != -1 {
			t.Errorf("a place: got %d", got)
		}
		if got := n.Take(t.Context(), places(8, 1)); got != 0 {
			t.Errorf("a place too many: got %d, want 0", got)
		}
		n.Give(places(8, 1))
	}
	n.together(t)
	// All that the nodes keep: then there is no Redis for them.
	r.do(t, "DEL", r.redis.Key(part, "nodes"))
	r.do(t, "SET", r.redis.Key(part, "nodes"), "x")
	peers.Eventually(t, "nodes that are no nodes", func() error {
		if got := n.Take(t.Context(), places(8, 1)); got != -1 {
			t.Fatalf("a place: got %d", got)
		}
		n.Give(places(8, 1))
		if n.Trouble() == nil {
			return errors.New("no trouble")
		}
		return nil
	})
	n.Take(t.Context(), places(8, 1))
	r.do(t, "DEL", r.redis.Key(part, "nodes"))
	n.together(t)
	r.holds(t, 8, 1)
}

// TestSharedHangs: nothing that Run may hang in, and nothing that uses up the connections, holds up a decision.
func TestSharedHangs(t *testing.T) {
	r := runServer(t)
	config := shareConfig(r.address)
	config.Deadline = 20 * time.Millisecond
	n := runNode(t, config)
	n.together(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 20 { // twice as many as there are connections
		go func() { _, _ = n.client.Do(ctx, "BLPOP", r.redis.Key(part, "nothing"), 0) }()
	}
	peers.Eventually(t, "all connections are in use", func() error {
		for range 3 {
			begun := time.Now()
			n.Take(t.Context(), places(1, 1000))
			if took := time.Since(begun); took > config.Deadline+slack {
				t.Fatalf("a decision took %s", took)
			}
		}
		if n.Trouble() == nil {
			return errors.New("no trouble")
		}
		return nil
	})
	cancel()
	n.together(t)

	// Nobody takes up what waits.
	still := NewShared(NewMemory(1), n.client, config, SharedOptions{})
	still.mode = together
	begun := time.Now()
	if got := still.Take(t.Context(), places(1, 1)); got != -1 {
		t.Errorf("a place: got %d", got)
	}
	if took := time.Since(begun); took < config.Deadline || took > config.Deadline+slack {
		t.Errorf("a decision took %s, want %s", took, config.Deadline)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if got := still.Take(gone, places(1, 1)); got != 0 {
		t.Errorf("a second place: got %d, want 0", got)
	}
	for i := range mostWaiting {
		still.Give(places(Key(i), 0)) // of what was never taken; only that it is told matters
	}
	begun = time.Now()
	if got := still.Take(t.Context(), places(3, 1)); got != -1 || time.Since(begun) > config.Deadline+slack {
		t.Errorf("with more waiting than may: got %d after %s, want a place at once", got, time.Since(begun))
	}
	var b batch
	if still.queue.take(&b) || len(b.entries) != mostWaiting {
		t.Errorf("what waits: got %d entries, want %d and that there were more", len(b.entries), mostWaiting)
	}
}

// FuzzSharedAnswer: whatever Redis answers, it is understood or an error.
func FuzzSharedAnswer(f *testing.F) {
	price := "\x00\x00\x00\x00\x00\x00\xf0\x3f"
	for _, seed := range []string{"", "\x00" + price, "\x01", "\x02", "\xff", "\x00", "\x03", "\x00\xff\xff\xff\xff\xff\xff\xff\xff", "gone", "\x00" + price + "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		var q queue
		q.wake, q.later = make(chan struct{}, 1), make(chan struct{}, 1)
		asks := []Ask{{Key: 1, Most: 3}, {Key: 2, Turn: 1000, Most: 3}}
		o := q.ask(asks)
		var b batch
		q.take(&b)
		rest, verdict, err := b.entries[0].read(b.blob[1:b.entries[0].end], reply)
		if err != nil {
			return
		}
		if verdict < alone || verdict >= len(asks) || len(rest) >= len(reply) {
			t.Errorf("%q: verdict %d, rest %q", reply, verdict, rest)
		}
		if verdict == granted {
			o.price(asks, 0)
			if len(o.out) != 1 {
				t.Errorf("%q: got %d prices, want 1", reply, len(o.out))
			}
		}
	})
}
