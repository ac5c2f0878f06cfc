package cluster

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// runOne is a client of a redis-server of the test's own.
func runOne(t *testing.T) *Client {
	t.Helper()
	port := freePort(t)
	runRedis(t, "", "port "+strconv.Itoa(port))
	c := DefaultConfig()
	c.Addresses = []string{fmt.Sprintf("127.0.0.1:%d", port)}
	client := newClient(t, c)
	eventually(t, "redis is up", func() error { return client.Health(t.Context(), "test") })
	return client
}

func TestScript(t *testing.T) {
	c := runOne(t)
	s := c.Script(`return {KEYS[1], ARGV[1], #ARGV}`)
	key := c.Key("test", "a")
	for i, before := range []string{"", "FLUSH", ""} {
		if before != "" { // it is forgotten, as by a restart
			_, err := c.Do(t.Context(), "SCRIPT", before)
			must(t, err)
		}
		v, err := s.Run(t.Context(), []string{key}, "x", 7)
		if got, want := fmt.Sprint(v), "["+key+" x 2]"; err != nil || got != want {
			t.Errorf("run %d: got %s, %v, want %s", i+1, got, err, want)
		}
	}
	if _, err := c.Script(`return redis.call('INCR', KEYS[1]) .. nil`).Run(t.Context(), []string{key}); err == nil {
		t.Error("a script that fails: no error")
	}
	if v, err := c.Do(t.Context(), "GET", key); v != "1" || err != nil {
		t.Errorf("a script that failed in its midst ran so often: got %v, %v, want once", v, err)
	}
	if _, err := c.Script(`this is not Lua`).Run(t.Context(), []string{key}); err == nil || !strings.Contains(err.Error(), "compil") {
		t.Errorf("no script: got %v, want an error of the compiler", err)
	}
}

func TestNodes(t *testing.T) {
	c, ctx := runOne(t), t.Context()
	const lease = 2 * time.Second
	a, b := NewNodes(c, "test", "mail1", lease), NewNodes(c, "test", "mail1", lease)
	if a.ID() == b.ID() || !strings.HasPrefix(a.ID(), "mail1/") {
		t.Errorf("two runs of one node: %s and %s, want them told apart", a.ID(), b.ID())
	}
	first, second := a.Member(), b.Member()
	must(t, a.Join(ctx, first, ""))
	must(t, b.Join(ctx, second, ""))
	if a.Alive() != 1 || b.Alive() != 2 {
		t.Errorf("alive: got %d and %d, want 1 and 2", a.Alive(), b.Alive())
	}
	if got := b.Names(); !slices.Equal(got, []string{"mail1", "mail1"}) {
		t.Errorf("names: got %q", got)
	}
	key := c.Key("test", "n:"+first)
	if known, err := a.Beat(ctx, first, key); known || err != nil {
		t.Errorf("without what it keeps: got %v, %v, want that it is gone", known, err)
	}
	_, err := c.Do(ctx, "HSET", key, "#", 0)
	must(t, err)
	if known, err := a.Beat(ctx, first, key); !known || err != nil || a.Alive() != 2 {
		t.Errorf("with what it keeps: got %v, %v, %d alive, want 2", known, err, a.Alive())
	}
	if v, err := c.Do(ctx, "PTTL", key); err != nil || v.(int64) <= 0 || v.(int64) > 2*lease.Milliseconds() {
		t.Errorf("life of what it keeps: got %v, %v, want twice the lease", v, err)
	}
	// Another membership takes the place of the former.
	again := a.Member()
	must(t, a.Join(ctx, again, first))
	if a.Alive() != 2 {
		t.Errorf("alive, joined again: got %d, want 2", a.Alive())
	}
	// Without a sign of life the other is dead after its lease, and gone after another.
	_, err = c.Do(ctx, "RENAME", key, c.Key("test", "n:"+again))
	must(t, err)
	for _, want := range []struct {
		what  string
		alive int
		known int64
	}{{"dead", 1, 2}, {"gone", 1, 1}} {
		eventually(t, "the other is "+want.what, func() error {
			if _, err := a.Beat(ctx, again, c.Key("test", "n:"+again)); err != nil {
				return err
			}
			known, err := c.Do(ctx, "ZCARD", a.Key())
			if a.Alive() != want.alive || known.(int64) > want.known {
				return fmt.Errorf("%d alive of %d, %v", a.Alive(), known, err)
			}
			return nil
		})
	}
	must(t, a.Leave(ctx, again, c.Key("test", "n:"+again)))
	if v, err := c.Do(ctx, "EXISTS", a.Key(), c.Key("test", "n:"+again)); v != int64(0) || err != nil {
		t.Errorf("after all have left: got %v keys, %v", v, err)
	}
	// Somebody else's key.
	_, err = c.Do(ctx, "SET", a.Key(), "x")
	must(t, err)
	if err := a.Join(ctx, again, ""); err == nil {
		t.Error("with another's key: joined")
	}
}
