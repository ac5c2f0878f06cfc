package proxy

import (
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

// waitInfo waits until the gateway's Info is as want, but for what a test cannot know.
func (r *rig) waitInfo(want Info) {
	r.t.Helper()
	want.Started = r.gw.started
	for late := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got := r.gw.Info(10)
		if reflect.DeepEqual(got, want) {
			return
		}
		if time.Now().After(late) {
			r.t.Fatalf("got %+v, want %+v", got, want)
		}
	}
}

// TestInfo follows one session through its life: its network counts once it is known, its user once he is.
func TestInfo(t *testing.T) {
	s := listen(t)
	r := start(t, s.address, behindProxy(TLSImplicit))
	none := []Share{}
	r.waitInfo(Info{Listeners: none, Tenants: none, Networks: none, Users: none})

	c := r.plain()
	before := []Share{{Name: "pop3s", Sessions: 1, BeforeLogin: 1}}
	r.waitInfo(Info{BeforeLogin: 1, Arriving: 1, Listeners: before, Tenants: none, Networks: none, Users: none})
	c.send("PROXY TCP4 192.0.2.1 192.0.2.2 4711 995\r\n")
	r.waitInfo(Info{
		BeforeLogin: 1, Listeners: before, Tenants: none, Users: none,
		Networks: []Share{{Name: "192.0.2.1/32", Sessions: 1, BeforeLogin: 1}}, NetworkCount: 1,
	})
	legs := make(chan *leg, 1)
	go func() { legs <- s.welcome(t) }()
	c.startTLS(clientTLS())
	c.login("alice@example.org", "secret")
	b := receive(t, legs, "the login at the backend")
	r.waitInfo(Info{
		LoggedIn: 1, Listeners: []Share{{Name: "pop3s", Sessions: 1}}, Tenants: []Share{{Name: "example", Sessions: 1}},
		Networks: []Share{{Name: "192.0.2.1/32", Sessions: 1}}, NetworkCount: 1,
		Users: []Share{{Name: "alice@example.org", Sessions: 1}}, UserCount: 1,
	})
	c.conn.Close()
	b.conn.Close()
	r.waitInfo(Info{Listeners: none, Tenants: none, Networks: none, Users: none})
}

// TestInfoBesideSessions holds, for the race detector, that sessions may live and die while they are counted.
func TestInfoBesideSessions(t *testing.T) {
	address, _ := mail(t, false)
	r := start(t, address)
	stop := make(chan struct{})
	var looking sync.WaitGroup
	for range 2 {
		looking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					r.gw.Info(3)
				}
			}
		})
	}
	for range 20 {
		c := r.loggedIn()
		c.send("QUIT\r\n")
		c.line()
		c.conn.Close()
	}
	close(stop)
	looking.Wait()
}

// TestSweep holds that a sweep meets each session that stays once, while others come and go.
func TestSweep(t *testing.T) {
	var l sessions
	stays := map[*session]int{}
	for range 5*sweepAtOnce + 7 {
		s := &session{}
		stays[s] = 0
		l.add(s)
	}
	for range 3 {
		stop := make(chan struct{})
		var others sync.WaitGroup
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var some [100]*session
				for i := range some {
					some[i] = &session{id: "other"}
					l.add(some[i])
				}
				for _, s := range some {
					l.remove(s)
				}
			}
		})
		l.sweep(func(s *session) {
			if s.id == "" {
				stays[s]++
			}
		})
		close(stop)
		others.Wait()
	}
	for _, n := range stays {
		if n != 3 {
			t.Fatalf("three sweeps met a session %d times", n)
		}
	}
	if l.count() != len(stays) {
		t.Errorf("%d sessions are left, want %d", l.count(), len(stays))
	}
}

// crowd is a list of n sessions, of which all but each tenth have logged in.
func crowd(n int) *sessions {
	var l sessions
	here := &Listener{}
	here.Name = "pop3s"
	for i := range n {
		s := &session{listener: here, relay: &relay{}}
		s.client = auth.Client{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 3 >> 8), byte(i / 3)}), 1)}
		s.relay.who = identity{user: fmt.Sprintf("user%d@example.org", i/2), tenant: fmt.Sprintf("tenant%d", i%7)}
		s.phase.Store(phaseRelaying)
		if i%10 == 0 {
			s.phase.Store(phaseWaiting)
		}
		l.add(s)
	}
	return &l
}

// TestInfoTop holds which are shown where there are too many, and that asking again and again makes little garbage.
func TestInfoTop(t *testing.T) {
	live := crowd(3000)
	var c census
	i := c.take(live, 2)
	if i.LoggedIn != 2700 || i.BeforeLogin != 300 || i.NetworkCount != 1000 || i.UserCount != 1500 {
		t.Errorf("got %+v", i)
	}
	want := []Share{{Name: "10.0.0.0/32", Sessions: 3, BeforeLogin: 1}, {Name: "10.0.0.1/32", Sessions: 3}}
	if !reflect.DeepEqual(i.Networks, want) {
		t.Errorf("networks: got %+v, want %+v", i.Networks, want)
	}
	if len(i.Users) != 2 || i.Users[0].Sessions != 2 || i.Users[1].Sessions != 2 || i.Users[0].Name > i.Users[1].Name {
		t.Errorf("users: got %+v", i.Users)
	}
	if len(i.Tenants) != 2 || len(c.take(live, 0).Users) != 0 {
		t.Errorf("tenants: got %+v", i.Tenants)
	}
	if n := testing.AllocsPerRun(10, func() { c.take(live, 20) }); n > 200 {
		t.Errorf("%v allocations to count 3,000 sessions, want no more than the answer needs", n)
	}
}

func BenchmarkInfo(b *testing.B) {
	for _, n := range []int{2000, 50000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			live := crowd(n)
			var c census
			c.take(live, 20)
			b.ReportAllocs()
			for b.Loop() {
				c.take(live, 20)
			}
		})
	}
}
