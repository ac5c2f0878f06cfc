package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/peers"
	"github.com/popgate/popgate/policy/cluster"
)

// TestSharedSpread: alone, a node grants all of the limits or its part of them.
func TestSharedSpread(t *testing.T) {
	for _, tt := range []struct {
		spread string
		want   int
	}{{cluster.SpreadFull, 10}, {cluster.SpreadEven, 5}} {
		t.Run(tt.spread, func(t *testing.T) {
			r := runServer(t)
			config := shareConfig(r.address)
			config.Spread, config.Deadline = tt.spread, 50*time.Millisecond
			a, b := runNode(t, config), runNode(t, config)
			a.together(t)
			b.together(t)
			twoAlive(t, a, b)
			r.Down(t)
			a.apart(t)
			b.apart(t)
			if text := a.Trouble().Error(); strings.Contains(text, "its part") != (tt.spread == cluster.SpreadEven) {
				t.Errorf("trouble does not tell what is granted: %s", text)
			}
			var asks []Ask
			for i := 0; ; i++ {
				ask := []Ask{{Key: 1, Most: 10}, {Key: 2, Turn: int64(time.Hour), Most: 1000}, {Key: 3}}
				if a.Take(t.Context(), ask) != -1 {
					if i != tt.want {
						t.Errorf("places: got %d, want %d", i, tt.want)
					}
					break
				}
				asks = append(asks, ask...)
			}
			turned := 0
			for a.Take(t.Context(), turns(4, time.Hour, 20)) == -1 {
				turned++
			}
			if turned != 2*tt.want {
				t.Errorf("turns: got %d, want %d", turned, 2*tt.want)
			}
			others := 0 // the limit holds for each node: twice, or each its half
			for b.Take(t.Context(), places(1, 10)) == -1 {
				others++
			}
			if others != tt.want {
				t.Errorf("places of the other: got %d, want %d", others, tt.want)
			}
			r.Up(t)
			a.together(t)
			b.together(t)
			r.holds(t, 1, int64(2*tt.want))
			r.holds(t, 3, int64(tt.want))
			if got := b.Take(t.Context(), places(1, 10)); got != 0 {
				t.Errorf("a place, when all are known to be taken: got %d, want 0", got)
			}
			for range others {
				b.Give(places(1, 10))
			}
			// Turns taken alone count for the other now.
			more := 0
			for b.Take(t.Context(), turns(4, time.Hour, 20)) == -1 {
				more++
			}
			if more != 20-turned {
				t.Errorf("turns of the other, after the merge: got %d, want %d", more, 20-turned)
			}
			a.Give(asks)
			r.holds(t, 1, 0)
			r.holds(t, 3, 0)
		})
	}
}

func twoAlive(t *testing.T, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		peers.Eventually(t, "two nodes alive", func() error {
			if got := n.Nodes().Alive(); got != 2 {
				return fmt.Errorf("got %d", got)
			}
			return nil
		})
	}
}

// TestSharedDivided: with even limits, what was granted in the belief that Redis would have the last word is looked at again.
func TestSharedDivided(t *testing.T) {
	r := runServer(t)
	p := runProxy(t, r.address)
	config := shareConfig(p.address)
	config.Spread, config.Deadline = cluster.SpreadEven, 50*time.Millisecond
	a := runNode(t, config)
	a.together(t)
	other := config
	other.Redis.Addresses = []string{r.address}
	b := runNode(t, other)
	b.together(t)
	twoAlive(t, a, b)
	for range 2 {
		if got := a.Take(t.Context(), places(1, 4)); got != -1 {
			t.Fatalf("in time: got %d", got)
		}
	}
	p.delay.Store(int64(200 * time.Millisecond))
	if got := a.Take(t.Context(), places(1, 4)); got != 0 {
		t.Errorf("too late, and more than half: got %d, want it refused", got)
	}
	p.delay.Store(0)
	r.holds(t, 1, 2)
	a.together(t)
	if got := b.Take(t.Context(), places(1, 4)); got != -1 {
		t.Errorf("the other's half: got %d", got)
	}
}

// TestSharedSpend: what nodes spend together comes to the rate, and Redis is asked a few times a second for it.
func TestSharedSpend(t *testing.T) {
	r := runServer(t)
	var nodes []*node
	for range 2 {
		n := runNode(t, shareConfig(r.address))
		n.together(t)
		nodes = append(nodes, n)
	}
	const second, piece = 1 << 20, 4 << 10 // 1 MiB a second
	spent := make(chan int, 2)
	begun := time.Now()
	for _, n := range nodes {
		go func() {
			total := 0
			for time.Since(begun) < 4*time.Second {
				wait := n.Spend(t.Context(), turns(5, time.Second/second, second), piece)
				total += piece
				if wait > 0 {
					<-time.After(wait)
				}
			}
			spent <- total
		}()
	}
	got := <-spent + <-spent
	// A turn is 953 ns and not 953.67; and each node may be a lump ahead, and not have used another.
	want := second + int(time.Since(begun)/(time.Second/second))
	if lump := second / 4; got > want+2*lump+2*piece || got < want-3*lump {
		t.Errorf("spent: got %d, want %d", got, want)
	}
	// Four lumps a second for each, some smaller, and what the joining took.
	if got := nodes[0].calls(t); got == 0 || got > 60 {
		t.Errorf("calls of Redis in 4 seconds: got %d, want some 20", got)
	}
}

// TestSharedSpendAlone: a node that is alone paces by itself, and its lumps are forgotten when nobody uses them.
func TestSharedSpendAlone(t *testing.T) {
	r := runServer(t)
	config := shareConfig(r.address)
	config.Deadline = 50 * time.Millisecond
	n := runNode(t, config)
	n.together(t)
	ask := turns(5, time.Second, 2)
	n.Spend(t.Context(), ask, 1)
	peers.Eventually(t, "a lump", func() error {
		n.lumps.mu.Lock()
		defer n.lumps.mu.Unlock()
		if p := n.lumps.m[5]; p == nil || p.asked != 0 {
			return fmt.Errorf("got %+v", p)
		}
		return nil
	})
	n.lumps.sweep(n.memory.now() + int64(lumpIdle) + 1)
	if n.lumped() != 0 {
		t.Error("a lump that nobody uses is kept")
	}
	r.Down(t)
	n.apart(t)
	wait := n.Spend(t.Context(), ask, 10)
	if wait < 5*time.Second || wait > 10*time.Second {
		t.Errorf("alone: got %s to wait, want some 9s", wait)
	}
	if n.lumped() != 0 {
		t.Error("a node that is alone has lumps")
	}
	r.Up(t)
	n.together(t)
	if got := n.Take(t.Context(), []Ask{{Key: 5, Turn: int64(time.Second), Most: 2}}); got != 0 {
		t.Errorf("a turn, all being spent: got %d, want 0", got)
	}
}

// TestSharedPartGiven: what was taken at a part of the rate is given back altogether, and what is whole is not divided.
func TestSharedPartGiven(t *testing.T) {
	r := runServer(t)
	config := shareConfig(r.address)
	config.Spread = cluster.SpreadEven
	a, b := runNode(t, config), runNode(t, config)
	a.together(t)
	b.together(t)
	twoAlive(t, a, b)
	r.Down(t)
	a.apart(t)
	for i := range 100 {
		asks := turns(1, time.Hour, 20)
		if got := a.Take(t.Context(), asks); got != -1 {
			t.Fatalf("turn %d, all before given back: got %d", i, got)
		}
		a.Give(asks)
	}
	whole := turns(2, time.Hour, 1)
	whole[0].Whole = true
	if got := a.Take(t.Context(), whole); got != -1 {
		t.Fatalf("a whole turn: got %d", got)
	}
	now := a.memory.now()
	if out := a.memory.until(2, now) - now; out > int64(time.Hour) {
		t.Errorf("a whole turn: it is out for %s, want an hour", time.Duration(out))
	}
}
