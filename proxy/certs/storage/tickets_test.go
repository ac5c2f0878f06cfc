package storage

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// newShared are stores of several nodes over one folder: what a shared storage is to Tickets, in a bubble.
func newShared(t *testing.T, n int) []*Store {
	t.Helper()
	f, err := openFiles(t.TempDir())
	must(t, err)
	sealer := newTestSealer(t, false, newKeyFile(t))
	var all []*Store
	for range n {
		c := DefaultConfig()
		s, err := Open(c, t.TempDir(), nil)
		must(t, err)
		s.backend, s.sealer, s.shared = f, sealer, true
		all = append(all, s)
	}
	return all
}

func syncAll(t *testing.T, all ...*Tickets) {
	t.Helper()
	for _, one := range all {
		must(t, one.Sync(t.Context()))
	}
}

func TestTicketsOnlyWhereEncrypted(t *testing.T) {
	s := newShared(t, 1)[0]
	if s.Tickets("pop3s") == nil {
		t.Error("nothing is shared")
	}
	s.sealer = nil
	if s.Tickets("pop3s") != nil {
		t.Error("ticket keys would lie open")
	}
	s.shared = false
	if s.Tickets("pop3s") != nil {
		t.Error("one host shares with itself")
	}
}

// TestTicketsRotate has two nodes, one of which is late by up to the lead: at no time one seals with what the other cannot open.
func TestTicketsRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := newShared(t, 2)
		a, b := stores[0].Tickets("pop3s"), stores[1].Tickets("pop3s")
		if len(a.Keys()) != 0 || !a.Stale() {
			t.Error("there are keys before the first Sync")
		}
		syncAll(t, a, b)
		sealed := map[[32]byte]bool{}
		end := time.Now().Add(10 * 24 * time.Hour)
		for i := 0; time.Now().Before(end); i++ {
			syncAll(t, a)
			if i%4 == 0 {
				syncAll(t, b) // it misses three of four
			}
			ka, kb := a.Keys(), b.Keys()
			if !slices.Contains(ka, kb[0]) || !slices.Contains(kb, ka[0]) {
				t.Fatalf("after %v one node seals with what the other cannot open", time.Duration(i)*TicketsEvery)
			}
			if len(ka) > ticketKept+1 || a.Stale() {
				t.Fatalf("%d keys, stale: %v", len(ka), a.Stale())
			}
			sealed[ka[0]] = true
			<-time.After(TicketsEvery)
		}
		if len(sealed) < 9 || len(sealed) > 11 {
			t.Errorf("%d keys have sealed in ten days", len(sealed))
		}
	})
}

func TestTicketsNewKeyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newShared(t, 1)[0].Tickets("pop3s")
		syncAll(t, a)
		first := a.Keys()
		<-time.After(ticketLife)
		syncAll(t, a)
		both := a.Keys()
		if len(both) != 2 || both[0] != first[0] {
			t.Errorf("%d keys; the new one must not seal yet", len(both))
		}
		<-time.After(ticketLead)
		if now := a.Keys(); now[0] != both[1] || now[1] != first[0] {
			t.Error("the new key does not seal")
		}
		// The storage stays away: after a day the keys are stale, and say so.
		<-time.After(ticketLife + time.Hour)
		if !a.Stale() {
			t.Error("not stale")
		}
		<-time.After(ticketKept * ticketLife)
		if len(a.Keys()) != 0 {
			t.Error("keys open tickets for ever")
		}
	})
}

// TestTicketsStartAtOnce has many nodes make the first keys together: they agree.
func TestTicketsStartAtOnce(t *testing.T) {
	stores := newShared(t, 8)
	all := make([]*Tickets, len(stores))
	done := make(chan error)
	for i, s := range stores {
		all[i] = s.Tickets("pop3s")
		go func() { done <- all[i].Sync(t.Context()) }()
	}
	for range stores {
		must(t, <-done)
	}
	for _, one := range all[1:] {
		if !slices.Equal(one.Keys(), all[0].Keys()) {
			t.Error("two nodes have different keys")
		}
	}
	if slices.Equal(stores[0].Tickets("other").Keys(), all[0].Keys()) {
		t.Error("two names share keys")
	}
}

func TestTicketsDamaged(t *testing.T) {
	s := newShared(t, 1)[0]
	a := s.Tickets("pop3s")
	future := ring{Version: 1, Keys: []ringKey{{Key: make([]byte, 32), Made: time.Now().Add(48 * time.Hour), Seals: time.Now()}}}
	text, err := json.Marshal(future)
	must(t, err)
	for name, record := range map[string][]byte{
		"not encrypted":    []byte(`{"version":1,"keys":[]}`),
		"no JSON":          s.sealer.seal(a.key, []byte("x")),
		"no keys":          s.sealer.seal(a.key, []byte(`{"version":1}`)),
		"short key":        s.sealer.seal(a.key, []byte(`{"version":1,"keys":[{"key":"eA=="}]}`)),
		"from the future":  s.sealer.seal(a.key, text),
		"of another ring":  s.sealer.seal("tickets/other", []byte(`{"version":1}`)),
		"nothing any more": {},
	} {
		must(t, s.backend.store(t.Context(), a.key, record))
		if err := a.Sync(t.Context()); err != nil || len(a.Keys()) != 1 || a.Stale() {
			t.Errorf("%s: %d keys, %v", name, len(a.Keys()), err)
		}
	}
	must(t, s.backend.store(t.Context(), a.key, s.sealer.seal(a.key, []byte(`{"version":2}`))))
	if err := a.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "newer popgate") {
		t.Errorf("a newer version's keys: %v", err)
	}
	if len(a.Keys()) != 1 {
		t.Error("the keys at hand are gone")
	}
}
