package backend

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

// A network is what a dialer finds: how long each address takes to answer, and with what error. One that is not there
// never answers.
type network struct {
	mu    sync.Mutex
	after map[string]time.Duration
	errs  map[string]error
	tried []string
	open  int
}

type counted struct {
	net.Conn
	n *network
}

func (c counted) Close() error {
	c.n.mu.Lock()
	c.n.open--
	c.n.mu.Unlock()
	return nil
}

func (n *network) connect(ctx context.Context, _ *dialer, to netip.AddrPort, _ string) (net.Conn, error) {
	ip := to.Addr().String()
	n.mu.Lock()
	n.tried = append(n.tried, ip)
	after, ok := n.after[ip]
	n.mu.Unlock()
	if !ok {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	<-time.After(after) // a dialer may be late to look at its context
	if err := n.errs[ip]; err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.open++
	n.mu.Unlock()
	return counted{n: n}, nil
}

// named makes a pool of one server with a name, whose addresses are ips, on a network.
func named(t *testing.T, n *network, ips ...string) *Pool {
	t.Helper()
	p := pool(t, config("mail.example.org"))
	p.dialer.connect = n.connect
	p.backends.lookup = func(context.Context, string, string) ([]netip.Addr, error) { return addrs(ips...), nil }
	return p
}

// TestRace holds which of a name's addresses gets the connection, after what time, and that no other stays open.
func TestRace(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	const six, four, other = "2001:db8::1", "192.0.2.1", "192.0.2.2"
	tests := []struct {
		name   string
		after  map[string]time.Duration
		errs   map[string]error
		ips    []string
		want   string
		within time.Duration
		tried  []string
	}{
		{"one", map[string]time.Duration{four: time.Second}, nil, []string{four}, four, time.Second, []string{four}},
		{"IPv6 first", map[string]time.Duration{six: 100, four: 0}, nil, []string{four, six}, six, 100, []string{six}},
		{"IPv6 is a black hole", map[string]time.Duration{four: 10}, nil, []string{six, four}, four, raceDelay + 10, []string{six, four}},
		{"IPv6 refuses", map[string]time.Duration{six: 5, four: 10}, map[string]error{six: refused}, []string{six, four}, four, 15,
			[]string{six, four}},
		{"both are slow", map[string]time.Duration{six: 2 * time.Second, four: time.Second}, nil, []string{six, four}, four,
			raceDelay + time.Second, []string{six, four}},
		{"the third", map[string]time.Duration{six: 5, four: 10, other: 20}, map[string]error{six: refused, four: refused},
			[]string{six, four, other}, other, 35, []string{six, four, other}},
		{"none", map[string]time.Duration{six: 5, four: 10}, map[string]error{six: refused, four: refused}, []string{six, four}, "", 15,
			[]string{six, four}},
		{"all are black holes", nil, nil, []string{six, four}, "", 5 * time.Second, []string{six, four}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{after: tt.after, errs: tt.errs}
				p := named(t, n, tt.ips...)
				start := time.Now()
				a := p.members[0].address
				if len(tt.ips) == 1 {
					p.dialer.plain.Timeout = 0
				}
				c, err := dial(t.Context(), p.dialer, a)
				if (err == nil) != (tt.want != "") || time.Since(start) != tt.within {
					t.Errorf("got %v after %v, want it after %v", err, time.Since(start), tt.within)
				}
				if err == nil {
					if got := a.name.best.Load().String(); got != tt.want {
						t.Errorf("got %s, want %s", got, tt.want)
					}
					_ = c.Close()
				} else if len(a.name.poke) != 1 {
					t.Error("nobody is asked to look the name up again")
				}
				<-time.After(10 * time.Second)
				synctest.Wait()
				if n.open != 0 || !slices.Equal(n.tried, tt.tried) {
					t.Errorf("%d connections are left open; tried %q, want %q", n.open, n.tried, tt.tried)
				}
			})
		})
	}
}

// TestBestFirst holds that the address that answered is tried first the next time, as long as it is the name's.
func TestBestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{after: map[string]time.Duration{"192.0.2.1": 0, "192.0.2.2": 0}}
		p := named(t, n, "2001:db8::1", "192.0.2.1")
		a := p.members[0].address
		for range 2 {
			c, err := dial(t.Context(), p.dialer, a)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if want := []string{"2001:db8::1", "192.0.2.1", "192.0.2.1"}; !slices.Equal(n.tried, want) {
			t.Errorf("tried %q, want %q", n.tried, want)
		}
		moved := addrs("192.0.2.2", "2001:db8::2")
		a.name.last.Store(&moved)
		if got, err := p.backends.addresses(t.Context(), a); err != nil || !slices.Equal(got, moved) {
			t.Errorf("got %v, %v, want the new addresses alone", got, err)
		}
	})
}

// TestTelling holds that what we have too little of decides only where nothing else does.
func TestTelling(t *testing.T) {
	none, refused := error(syscall.EADDRNOTAVAIL), error(syscall.ECONNREFUSED)
	if err := telling([]error{none, refused}); ours(err) {
		t.Errorf("got %v, want what the server did", err)
	}
	for _, pathless := range []error{syscall.ENETUNREACH, errNoSource} { // no IPv6 here
		if err := telling([]error{pathless, none}); !ours(err) {
			t.Errorf("got %v, which speaks against the server", err)
		}
		if err := telling([]error{pathless, refused}); ours(err) || !errors.Is(err, refused) {
			t.Errorf("got %v, want that the server refuses", err)
		}
	}
	if err := telling([]error{none, none}); !ours(err) {
		t.Errorf("got %v, want what we have too little of", err)
	}
}

func TestInterleave(t *testing.T) {
	got := interleave(addrs("192.0.2.1", "::ffff:192.0.2.2", "192.0.2.1", "2001:db8::1", "192.0.2.3", "2001:db8::2"))
	if want := addrs("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var many []netip.Addr
	for i := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	if got := len(interleave(many)); got != maxAddresses {
		t.Errorf("got %d addresses of 100, want %d", got, maxAddresses)
	}
}

// TestResolvedAfresh holds that a name is looked up again and again, and that its last good answer outlives the DNS.
func TestResolvedAfresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, said := logger()
		b := New(log, nil)
		b.dial = func(context.Context, *dialer, address) (net.Conn, error) { return answer(t, capaScript), nil }
		var mu sync.Mutex
		var answers []netip.Addr
		var broken error
		lookups := 0
		b.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
			mu.Lock()
			defer mu.Unlock()
			if host != "mail.example.org." {
				t.Errorf("looked up %q", host)
			}
			lookups++
			return answers, broken
		}
		is := func(err error, list ...string) {
			mu.Lock()
			answers, broken, lookups = addrs(list...), err, 0
			mu.Unlock()
		}
		is(nil, "192.0.2.1")
		c := config("mail.example.org.")
		p := use(t, b, c).Pool("old")
		a := p.members[0].address
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		want := func(list ...string) {
			t.Helper()
			<-time.After(time.Minute)
			synctest.Wait()
			if got, err := b.addresses(ctx, a); err != nil || !slices.Equal(got, addrs(list...)) {
				t.Errorf("got %v, %v, want %v", got, err, list)
			}
		}
		want("192.0.2.1")
		is(nil, "192.0.2.2", "2001:db8::2")
		want("2001:db8::2", "192.0.2.2")
		is(errors.New("server misbehaving"))
		want("2001:db8::2", "192.0.2.2")
		is(nil) // an answer without addresses is no good one
		want("2001:db8::2", "192.0.2.2")
		is(nil, "192.0.2.3")
		want("192.0.2.3")
		if n := lookups; n < 1 || n > 4 {
			t.Errorf("%d look-ups a minute, want one every 30s or so", n)
		}
		if got := said.String(); !strings.Contains(got, "last_answer_stands=true") || !strings.Contains(got, "misbehaving") {
			t.Errorf("got the log %s", got)
		}
		// Who cannot connect has it looked up at once, but not more often than that.
		is(nil, "192.0.2.4")
		for range 100 {
			a.name.again()
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if got := (*a.name.last.Load())[0]; got != netip.MustParseAddr("192.0.2.4") {
			t.Errorf("got %v, want the new address at once", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestUnknownName holds that a name that was never found is looked up by the login, and that the login says so.
func TestUnknownName(t *testing.T) {
	p := pool(t, config("mail.example.org"))
	p.backends.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "mail.example.org", IsNotFound: true}
	}
	_, err := login(t, p)
	if refused(t, err, Down); !strings.Contains(err.Error(), "no such host") {
		t.Errorf("got %v", err)
	}
	p.backends.lookup = func(context.Context, string, string) ([]netip.Addr, error) { return nil, nil }
	_, err = login(t, p)
	refused(t, err, Down)
}

// TestNameOverSockets logs in at a server by a name with an address that refuses, and one that answers.
func TestNameOverSockets(t *testing.T) {
	s := script(loginScript)
	_, port, _ := strings.Cut(s.listen(t), ":")
	p := pool(t, config("mail.example.org:"+port))
	p.backends.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return addrs("127.0.0.2", "127.0.0.1"), nil
	}
	for range 2 {
		if _, err := login(t, p); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSource holds that connections come from the configured addresses in turn, from the next one where one cannot be used.
func TestSource(t *testing.T) {
	if !loopbacks() {
		t.Skip("this system has no 127.0.0.2")
	}
	s := script(loginScript)
	c := config(s.listen(t))
	c.Source = []string{"127.0.0.2", "198.51.100.1", "::1", "127.0.0.3"} // 198.51.100.1 is nobody's
	p := pool(t, c)
	came := map[string]int{}
	for range 6 {
		conn, err := login(t, p)
		if err != nil {
			t.Fatal(err)
		}
		came[conn.LocalAddr().(*net.TCPAddr).IP.String()]++
	}
	if came["127.0.0.2"]+came["127.0.0.3"] != 6 || came["127.0.0.2"] < 2 || came["127.0.0.3"] < 2 {
		t.Errorf("connections came from %v, want both in turn", came)
	}
	c.Source = []string{"198.51.100.1", "198.51.100.2"}
	p = pool(t, c)
	_, err := login(t, p)
	if refused(t, err, Local); !p.members[0].server.up() {
		t.Error("a source address that is not ours marks the server dead")
	}
	c.Source = []string{"::1"}
	var keys []string
	c.Validate(func(key, _ string) { keys = append(keys, key) })
	if !slices.Equal(keys, []string{"servers[0].address"}) {
		t.Errorf("got faults at %q, want the server that no source reaches", keys)
	}
}

// loopbacks says that the whole of 127.0.0.0/8 is this machine, as on Linux.
func loopbacks() bool {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// TestMuteAddress holds that an address that takes connections, and whose server never greets, does not keep logins from
// the name's others.
func TestMuteAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, config("mail.example.org"))
		p.config.RetryAfter = 0
		p.backends.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
			return addrs("192.0.2.1", "192.0.2.2"), nil
		}
		p.dialer.connect = func(_ context.Context, _ *dialer, to netip.AddrPort, _ string) (net.Conn, error) {
			lines := allIn
			if to.Addr().String() == "192.0.2.1" {
				lines = "close"
			}
			return &remote{answer(t, lines), net.TCPAddrFromAddrPort(to)}, nil
		}
		_, err := p.Login(t.Context(), request())
		refused(t, err, Down)
		for range 2 {
			c, err := p.Login(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	})
}

// TestLookupTimeout holds that a DNS that does not answer does not take longer than connect_timeout.
func TestLookupTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, config("mail.example.org"))
		p.backends.lookup = func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		start := time.Now()
		_, err := p.Login(t.Context(), request())
		if refused(t, err, Down); time.Since(start) > 2*p.config.ConnectTimeout { // it is tried again as a dead one
			t.Errorf("took %v", time.Since(start))
		}
	})
}
