package backend

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/auth"
)

// TestDrain holds that who is drained gets no new logins, keeps its sessions, and stays drained over a reload.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, said := logger()
		b := New(log, nil)
		p := use(t, b, config("one.example.org", "two.example.org:1110")).Pool("old")
		alwaysOK(t, p)
		open(t, p, 8)
		before := sessions(p)
		if before[0] == 0 || before[1] == 0 {
			t.Fatalf("got %v sessions, want some on each", before)
		}
		if err := b.Drain("old/One.example.org", true); err != nil {
			t.Fatal(err)
		}
		p = use(t, b, config("one.example.org", "two.example.org:1110")).Pool("old")
		open(t, p, 8)
		if got := sessions(p); got[0] != before[0] || got[1] != before[1]+8 {
			t.Errorf("got %v sessions, want %d and %d", got, before[0], before[1]+8)
		}
		if s := b.Status()[0]; !s.Servers[0].Drained || s.Servers[1].Drained || s.Up() != 1 || len(b.Trouble()) != 0 {
			t.Errorf("got %+v, trouble %q", s, b.Trouble())
		}
		if err := b.Drain("old", true); err != nil {
			t.Fatal(err)
		}
		_, err := p.Login(t.Context(), request())
		if refused(t, err, Down); !errors.Is(err, errDrained) {
			t.Errorf("got %v", err)
		}
		_, err = p.Login(t.Context(), at("192.0.2.1", ""))
		if refused(t, err, Down); !errors.Is(err, errDrained) {
			t.Errorf("a directory's server of a drained backend: got %v", err)
		}
		if got := b.Trouble(); len(got) != 1 || !strings.Contains(got[0], "drained") {
			t.Errorf("got trouble %q", got)
		}
		for _, name := range []string{"old", "old/one.example.org:110"} {
			if err := b.Drain(name, false); err != nil {
				t.Fatal(err)
			}
		}
		if open(t, p, 1); strings.Count(said.String(), "operator") != 4 {
			t.Errorf("got the log %s", said)
		}
	})
}

func TestDrainNames(t *testing.T) {
	b := New(nil, nil)
	c, all := config("10.0.0.1", "10.0.0.2", "10.0.0.3"), config("10.0.0.4")
	c.Servers[1].Weight, c.Servers[2].Drain = 0, true
	all.Name, all.Drain = "a/b", true
	p := use(t, b, c, all).Pool("old")
	if _, err := p.named(auth.Server{Address: "192.0.2.1", TLS: TLSImplicit}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"old": nil, "old/10.0.0.1": nil, "old/192.0.2.1": nil, "old/10.0.0.1:995": ErrUnknown, "new": ErrUnknown, "new/10.0.0.1": ErrUnknown,
		"old/10.0.0.2": ErrConfigured, "old/10.0.0.3": ErrConfigured, "a/b": ErrConfigured, "a/b/10.0.0.4": ErrConfigured, "": ErrUnknown,
	} {
		if err := b.Drain(name, false); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", name, err, want)
		}
	}
	if err := b.Drain("old/192.0.2.1", true); err != nil {
		t.Fatal(err)
	}
	_, err := p.Login(t.Context(), at("192.0.2.1", TLSImplicit))
	if refused(t, err, Down); !errors.Is(err, errDrained) {
		t.Errorf("got %v", err)
	}
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(nil, nil)
		c := config("one.example.org", "10.0.0.2")
		c.MaxSessions, c.LoginsPerSecond, c.SlowStart = 7, 3, time.Hour
		p := use(t, b, c).Pool("old")
		if _, err := p.named(auth.Server{Address: "192.0.2.1"}); err != nil {
			t.Fatal(err)
		}
		piped(t, p, script("close"), script("close"))
		_, err := p.Login(t.Context(), request())
		refused(t, err, Down)
		one := p.members[0].server
		ips := addrs("192.0.2.8")
		one.name.last.Store(&ips)
		one.name.failed.Store(&lastError{time.Now(), "no DNS"})
		one.places.take(0)
		s := b.Status()[0]
		if s.Name != "old" || s.Balance != BalanceHash || len(s.Servers) != 3 || !s.Servers[2].Directory || s.Servers[1].Directory {
			t.Fatalf("got %+v", s)
		}
		got := s.Servers[0]
		if got.State != StateDown || got.Up || got.Sessions != 1 || got.MaxSessions != 7 || got.LoginsPerSecond != 3 ||
			got.LookupError != "no DNS" || !slices.Equal(got.Addresses, []netip.Addr{netip.MustParseAddr("192.0.2.8")}) ||
			!strings.Contains(got.LastError, "closed") || !got.LastErrorAt.Equal(time.Now()) {
			t.Errorf("got %+v", got)
		}
		if got := b.Trouble(); len(got) != 1 || !strings.Contains(got[0], "no server") { // the directory's does not count
			t.Errorf("got trouble %q", got)
		}
		one.alive(b.now())
		if got := b.Status()[0].Servers[0]; got.State != StateStarting || !got.Up {
			t.Errorf("got %+v", got)
		}
		one.sicken(b.now(), time.Minute)
		if got := b.Status()[0].Servers[0]; got.State != StateFailing || got.Up {
			t.Errorf("got %+v", got)
		}
		<-time.After(2 * time.Hour)
		one.recover(b.now())
		<-time.After(2 * time.Hour)
		if got := b.Status()[0].Servers[0]; got.State != StateUp {
			t.Errorf("got %+v", got)
		}
	})
}

// TestDrainAllOf holds that a server that a directory has named too, with TLS, is drained as a whole.
func TestDrainAllOf(t *testing.T) {
	b := New(nil, nil)
	p := use(t, b, config("10.0.0.1")).Pool("old")
	guest, err := p.named(auth.Server{Address: "10.0.0.1:110", TLS: TLSStart})
	if err != nil {
		t.Fatal(err)
	}
	for _, drained := range []bool{true, false} {
		if err := b.Drain("old/10.0.0.1:110", drained); err != nil {
			t.Fatal(err)
		}
		if p.drains(p.members[0]) != drained || p.drains(guest) != drained {
			t.Errorf("got %v and %v, want %v", p.drains(p.members[0]), p.drains(guest), drained)
		}
	}
}

// TestTroubleIsBounded holds that what a directory's many servers have against popgate does not drown /readyz, nor what the
// configuration's have.
func TestTroubleIsBounded(t *testing.T) {
	b := New(nil, nil)
	p := use(t, b, config("10.0.0.1")).Pool("old")
	servers := []*member{p.members[0]}
	for n := range 300 {
		m, err := p.named(auth.Server{Address: fmt.Sprintf("192.0.2.1:%d", n+1)})
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, m)
	}
	for _, m := range servers {
		m.server.ban.until.Store(int64(b.now() + time.Hour))
	}
	got := b.Trouble()
	if len(got) != mostTrouble+1 || !strings.Contains(got[0], "10.0.0.1:110 refuses") || !strings.Contains(got[mostTrouble], "291 more") {
		t.Errorf("got %q", got)
	}
}
