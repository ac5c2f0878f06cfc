package legacy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/policy/cluster"
)

// login is a mark of somebody.
func login(user, addr, version string, when time.Time) Mark {
	p, err := netip.MustParseAddr(addr).Prefix(32)
	if err != nil {
		panic(err)
	}
	return Mark{User: user, Tenant: "acme", Listener: "old", Network: p, Version: version, When: when}
}

func text(uses []Use) string {
	var all []string
	for _, u := range uses {
		all = append(all, fmt.Sprint(u.User, " ", u.Network.Addr(), " ", u.Version, " ", u.Count))
	}
	return strings.Join(all, ", ")
}

func TestMarks(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	k := New("", Options{Registerer: reg})
	now := time.Now()
	end := now.Add(time.Hour)
	k.Mark(login("anna", "192.0.2.7", "TLS 1.0", now.Add(-3*time.Hour)))
	k.Mark(login("bob", "192.0.2.8", "", now.Add(-2*time.Hour)))
	k.Mark(login("anna", "192.0.2.9", "TLS 1.0", now.Add(-time.Hour)))
	last := login("anna", "192.0.2.7", "TLS 1.0", now)
	last.Tenant, last.Until = "new", end
	k.Mark(last)
	if got, want := text(k.List()), "anna 192.0.2.7 TLS 1.0 2, anna 192.0.2.9 TLS 1.0 1, bob 192.0.2.8 no TLS 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	u := k.List()[0]
	if u.Tenant != "new" || !u.Until.Equal(end) || !u.First.Equal(now.Add(-3*time.Hour)) || !u.Last.Equal(now) || u.Listener != "old" {
		t.Errorf("got %+v, want what the last login said", u)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP popgate_legacy_users Users remembered to have come by the legacy lane in the last 180 days.
# TYPE popgate_legacy_users gauge
popgate_legacy_users 2
`)); err != nil {
		t.Error(err)
	}
}

// TestBounds: no user pushes out another by coming from everywhere, and of too many the oldest go.
func TestBounds(t *testing.T) {
	k := New("", Options{})
	now := time.Now()
	for i := range 1000 {
		k.Mark(login("anna", fmt.Sprintf("192.0.%d.%d", i/250, i%250), "TLS 1.1", now.Add(time.Duration(i)*time.Millisecond)))
	}
	if got := k.List(); len(got) != maxPerUser || got[0].Network.Addr().String() != "192.0.3.249" {
		t.Errorf("one user: got %d, %v first", len(got), got[0])
	}
	for i := range maxUsers {
		k.Mark(login(fmt.Sprint("u", i), "192.0.2.7", "TLS 1.1", now.Add(time.Minute+time.Duration(i)*time.Microsecond)))
	}
	if got := k.count(now); got != maxUsers {
		t.Errorf("users: got %d, want %d", got, maxUsers)
	}
	if got := k.List(); got[len(got)-1].User != "u0" {
		t.Errorf("the oldest: got %s, want anna gone and u0", got[len(got)-1].User)
	}
}

// TestOldOnesGo: who has not come for half a year is not told of.
func TestOldOnesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := New("", Options{})
		k.Mark(login("anna", "192.0.2.7", "TLS 1.0", time.Now()))
		<-time.After(keepFor / 2)
		k.Mark(login("bob", "192.0.2.7", "TLS 1.0", time.Now()))
		k.Mark(login("anna", "192.0.2.8", "TLS 1.0", time.Now()))
		<-time.After(keepFor/2 + time.Hour)
		if got, want := text(k.List()), "anna 192.0.2.8 TLS 1.0 1, bob 192.0.2.7 TLS 1.0 1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		<-time.After(keepFor)
		if got := k.count(time.Now()); got != 0 || len(k.List()) != 0 {
			t.Errorf("a year later: got %d", got)
		}
	})
}

// TestRestart: what is known is there again, with one file that nobody else may read.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		k := New(dir, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		for i, user := range []string{"anna", "bob", "<c&d>", "anna"} {
			k.Mark(login(user, "192.0.2.7", "TLS 1.0", time.Now().Add(time.Duration(i)*time.Second)))
		}
		<-time.After(saveEvery + time.Second)
		synctest.Wait()
		if _, err := os.Stat(filepath.Join(dir, stateFile)); err != nil {
			t.Errorf("after %s: %v", saveEvery, err)
		}
		k.Mark(login("dora", "2.2.2.2", "", time.Now()))
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		info, err := os.Stat(filepath.Join(dir, stateFile))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("got %v, %v, want 0600", info.Mode(), err)
		}
		again := New(dir, Options{})
		if err := again.Load(); err != nil {
			t.Fatal(err)
		}
		got, want := k.List(), again.List()
		a, _ := json.Marshal(got)
		b, _ := json.Marshal(want)
		if len(got) != 4 || !bytes.Equal(a, b) {
			t.Errorf("got %s, want %s", a, b)
		}
		if files, _ := os.ReadDir(dir); len(files) != 1 {
			t.Errorf("got %v, want one file", files)
		}
	})
}

func TestLoadFaults(t *testing.T) {
	for name, content := range map[string]string{
		"cut":        `[{"user":"anna","network":"192.0.2.7/32","tls":"TLS 1.0","li`,
		"no network": `[{"user":"anna","tls":"TLS 1.0","listener":"old","count":1}]`,
		"no user":    `[{"network":"192.0.2.7/32","count":1}]`,
		"long":       `[{"user":"` + strings.Repeat("a", 1000) + `","network":"192.0.2.7/32","count":1}]`,
		"empty":      ``,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		k := New(dir, Options{})
		if err := k.Load(); err == nil || !strings.Contains(err.Error(), stateFile) || len(k.List()) != 0 {
			t.Errorf("%s: got %v and %v", name, err, k.List())
		}
		k.Mark(login("anna", "192.0.2.7", "TLS 1.0", time.Now()))
		if err := errors.Join(k.Save(), New(dir, Options{}).Load()); err != nil {
			t.Errorf("%s: it does not heal: %v", name, err)
		}
	}
	if err := New(filepath.Join(t.TempDir(), "missing"), Options{}).Load(); err != nil {
		t.Errorf("no folder yet: %v", err)
	}
}

// A hub is a cluster in one process.
type hub struct {
	mu    sync.Mutex
	hears []func([]byte)
	shelf map[uint64]cluster.Fact
	take  []func(cluster.Fact)
	all   []iter.Seq[cluster.Fact]
	lossy bool // messages are lost
}

// A seat is one node's place in a hub.
type seat struct {
	*hub
	number int
}

func (h *hub) join() *Cluster {
	s := &seat{h, len(h.hears)}
	h.hears, h.take, h.all = append(h.hears, nil), append(h.take, nil), append(h.all, nil)
	return &Cluster{Key: [32]byte{1}, Bus: s, Shelf: s}
}

func (s *seat) Publish(_ string, message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, hear := range s.hears {
		if i != s.number && !s.lossy {
			hear(message)
		}
	}
}

func (s *seat) Subscribe(_ string, hear func([]byte)) { s.hears[s.number] = hear }

func (s *seat) Put(f cluster.Fact) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shelf[f.Key] = f
}

func (s *seat) Own(take func(cluster.Fact), all iter.Seq[cluster.Fact]) {
	s.take[s.number], s.all[s.number] = take, all
}

// read has a node read the shelf.
func (h *hub) read(number int) {
	for _, f := range h.shelf {
		h.take[number](f)
	}
}

// TestNodes: what one node marks the others know within a minute, each login once, and a node that was not there from the shelf.
func TestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{shelf: map[uint64]cluster.Fact{}}
		k, other := New("", Options{Cluster: h.join()}), New("", Options{Cluster: h.join()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx) }()
		now := time.Now()
		other.Mark(login("anna", "192.0.2.7", "TLS 1.0", now.Add(time.Hour)))
		for range 3 {
			k.Mark(login("anna", "192.0.2.7", "TLS 1.0", now))
			k.Mark(login("bob", "192.0.2.7", "", now))
			<-time.After(shareEvery)
			synctest.Wait()
		}
		want := "anna 192.0.2.7 TLS 1.0 4, bob 192.0.2.7 no TLS 3"
		if got := text(other.List()); got != want {
			t.Errorf("over the bus: got %s, want %s", got, want)
		}
		if first := other.List()[0]; !first.First.Equal(now) || !first.Last.Equal(now.Add(time.Hour)) {
			t.Errorf("got %+v, want the first and the last time of both", first)
		}
		h.lossy = true
		k.Mark(login("bob", "192.0.2.7", "", now.Add(2*time.Hour)))
		cancel()
		if err := <-ended; err != nil { // it tells a last time
			t.Error(err)
		}
		for range 3 {
			h.read(1) // as often as it may have missed something
		}
		if got, want := text(other.List()), "bob 192.0.2.7 no TLS 4, anna 192.0.2.7 TLS 1.0 4"; got != want {
			t.Errorf("after messages were lost: got %s, want %s", got, want)
		}
		clear(h.shelf)
		for f := range h.all[1] { // Redis was emptied
			h.shelf[f.Key] = f
		}
		young := New("", Options{Cluster: h.join()})
		h.read(2)
		if got, want := text(young.List()), text(other.List()); got != want {
			t.Errorf("a new node: got %s, want %s", got, want)
		}
		for _, bad := range []string{"", "{}", `{"user":"x"}`, `{"user":"x","network":"192.0.2.1/32","count":-1}`, "\xff"} {
			h.hears[1]([]byte(bad))
			h.take[1](cluster.Fact{Value: []byte(bad)})
		}
		if got := len(other.List()); got != 2 {
			t.Errorf("what no node says: got %d uses", got)
		}
	})
}

func TestMany(t *testing.T) {
	k := New(t.TempDir(), Options{Cluster: (&hub{shelf: map[uint64]cluster.Fact{}}).join()})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 200 {
				k.Mark(login(fmt.Sprint("u", j%10), fmt.Sprintf("192.0.2.%d", i), "TLS 1.1", time.Now()))
				_ = k.List()
				k.tell(t.Context())
			}
			if err := k.Save(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	var n int64
	for _, u := range k.List() {
		n += u.Count
	}
	if n != 800 {
		t.Errorf("got %d logins, want 800", n)
	}
}

func BenchmarkMark(b *testing.B) {
	k := New("", Options{})
	now := time.Now()
	marks := make([]Mark, 10_000)
	for i := range marks {
		marks[i] = login(fmt.Sprint("user", i, "@example.org"), "192.0.2.7", "TLS 1.0", now)
	}
	b.ReportAllocs()
	for i := range b.N {
		m := marks[i%len(marks)]
		m.When = now.Add(time.Duration(i))
		k.Mark(m)
	}
}

// TestManyNews: what there is to share after a busy minute goes in pieces that the bus can take.
func TestManyNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{shelf: map[uint64]cluster.Fact{}}
		k := New("", Options{Cluster: h.join()})
		h.join()
		most, now, last := 0, 0, time.Now()
		h.hears[1] = func([]byte) {
			if time.Since(last) > 0 {
				now, last = 0, time.Now()
			}
			now++
			most = max(most, now)
		}
		for i := range 1050 {
			k.Mark(login(fmt.Sprint("u", i), "192.0.2.7", "TLS 1.0", time.Now()))
		}
		k.tell(t.Context())
		if took := time.Since(last); most > 100 || now != 50 || len(h.shelf) != 1050 {
			t.Errorf("got %d at once, %d at the end %s ago and %d kept, want 100, 50 and 1050", most, now, took, len(h.shelf))
		}
	})
}

// BenchmarkRead has a node read a full shelf, in no order.
func BenchmarkRead(b *testing.B) {
	k := New("", Options{Cluster: (&hub{shelf: map[uint64]cluster.Fact{}}).join()})
	now := time.Now()
	facts := make([]cluster.Fact, maxUsers)
	for i, at := range rand.Perm(maxUsers) {
		u := Use{User: fmt.Sprint("user", i), Network: netip.MustParsePrefix("192.0.2.7/32"), Version: NoTLS, Count: 1}
		u.First = now.Add(-time.Duration(at) * time.Second)
		u.Last = u.First
		facts[i] = k.fact(&u)
	}
	for b.Loop() {
		for _, f := range facts {
			k.take(f)
		}
	}
}
