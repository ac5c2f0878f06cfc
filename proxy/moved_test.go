package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/cluster"
)

// movedNodes are nodes that share where users were let in, with what they told each other, and what was kept.
type movedNodes struct {
	nodes []*moved
	told  int
	kept  map[uint64]cluster.Fact
}

func newMovedNodes(n int) *movedNodes {
	all := &movedNodes{nodes: make([]*moved, n), kept: make(map[uint64]cluster.Fact)}
	for i := range all.nodes {
		all.nodes[i] = new(moved)
	}
	for i, m := range all.nodes {
		m.share([32]byte{1}, func(message []byte) {
			all.told++
			for j, other := range all.nodes {
				if j != i {
					other.hear(message)
				}
			}
		}, func(f cluster.Fact) { all.kept[f.Key] = f })
	}
	return all
}

// TestMovedIsShared: where a user was let in last is known at all nodes, and at one that starts.
func TestMovedIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newMovedNodes(3)
		check := func(m *moved, account, want string) {
			t.Helper()
			if got := m.last(account); got != want {
				t.Errorf("%s: got %q, want %q", account, got, want)
			}
		}
		all.nodes[0].worked("anna", "old")
		<-time.After(time.Second)
		all.nodes[1].worked("anna", "new")
		all.nodes[2].worked("bert", "old")
		for _, m := range all.nodes {
			check(m, "anna", "new")
			check(m, "bert", "old")
			check(m, "carl", "")
		}
		for range 100 { // others know it
			all.nodes[0].worked("anna", "new")
			<-time.After(time.Minute)
		}
		if all.told != 3 {
			t.Errorf("messages: got %d, want 3", all.told)
		}
		<-time.After(24 * time.Hour)
		all.nodes[2].worked("anna", "new")
		if all.told != 4 {
			t.Errorf("messages a day later: got %d, want one more", all.told)
		}

		late := newMovedNodes(1).nodes[0]
		for _, f := range all.kept {
			late.take(f)
			if !f.Until.After(time.Now().Add(movedFor-48*time.Hour)) || bytes.Contains(f.Value, []byte("anna")) {
				t.Errorf("kept: got %+v, want a backend alone, for long", f)
			}
		}
		check(late, "anna", "new")
		check(late, "bert", "old")
		back := map[uint64]string{}
		late.all(func(f cluster.Fact) bool { back[f.Key] = string(f.Value); return true })
		if got := slices.Sorted(maps.Values(back)); fmt.Sprint(got) != "[new old]" {
			t.Errorf("put back: got %v, want both", got)
		}

		// What came earlier does not hold, whenever it is heard of; what cannot be is left alone.
		anna := late.digest("anna")
		late.take(cluster.Fact{Key: anna, At: time.Now().Add(-365 * 24 * time.Hour), Value: []byte("old")})
		late.take(cluster.Fact{Key: anna, At: time.Now().Add(time.Hour)})
		late.hear(nil)
		late.hear(make([]byte, 8))
		late.hear(make([]byte, 9+maxBackend))
		check(late, "anna", "new")
		late.take(cluster.Fact{Key: anna, At: time.Now().Add(time.Hour), Value: []byte("ahead")})
		<-time.After(time.Second)
		late.hear(append(binary.BigEndian.AppendUint64(nil, anna), "later"...))
		check(late, "anna", "later")
	})
}
