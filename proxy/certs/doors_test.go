package certs

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"
)

// opened gives doors of a manager without a view, one of them served on a port of its own.
func opened(t *testing.T, serve func(*doors, net.Listener)) (*lobby, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLobby(ln)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(newDoors(New(t.TempDir(), nil, nil).acme), l)
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return l, ln.Addr().String()
}

// silent connects n times from 127.0.x.y, each of them another network if spread, and says nothing.
func silent(t *testing.T, address string, n int, spread bool) (all []net.Conn) {
	t.Helper()
	for i := range n {
		from := net.IPv4(127, 0, 1, 1)
		if spread {
			from = net.IPv4(127, 0, byte(2+i/200), byte(1+i%200))
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
		c, err := d.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		all = append(all, c)
	}
	return all
}

// closedWithin says whether the other side ends c in that time.
func closedWithin(c net.Conn, d time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(d))
	_, err := io.Copy(io.Discard, c)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestSilentStrangers: they cannot keep an issuer out, wherever they come from.
func TestSilentStrangers(t *testing.T) {
	t.Parallel()
	for _, spread := range []bool{true, false} {
		l, address := opened(t, (*doors).serveHTTP)
		strangers := silent(t, address, 600, spread)
		start := time.Now()
		client := http.Client{Timeout: hearTime / 2, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + address + "/.well-known/acme-challenge/x")
		if err != nil {
			t.Fatalf("spread %v: the issuer waited for %s: %v", spread, time.Since(start), err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("spread %v: got %s, want 404", spread, resp.Status)
		}
		if first := strangers[0]; spread && !closedWithin(first, hearTime/2) {
			t.Error("the stranger that came first has kept its place")
		}
		for _, c := range strangers {
			if !closedWithin(c, 2*hearTime) {
				t.Fatalf("spread %v: a stranger may stay silent for longer than %s", spread, 2*hearTime)
			}
		}
		eventually(t, "all places are free again", func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(l.guests) == 0 && len(l.shares) == 0
		})
	}
}

// TestSilentStrangersAtALPN: a handshake that is begun ends, one way or the other, while others say nothing.
func TestSilentStrangersAtALPN(t *testing.T) {
	t.Parallel()
	_, address := opened(t, (*doors).serveALPN)
	strangers := silent(t, address, 600, true)
	d := net.Dialer{Deadline: time.Now().Add(shakeTime / 2)}
	_, err := tls.DialWithDialer(&d, "tcp", address, &tls.Config{ServerName: "mail.example.org", NextProtos: []string{"acme-tls/1"}})
	if told, ok := errors.AsType[*net.OpError](err); !ok || told.Op != "remote error" {
		t.Errorf("got %v, want an alert: there is no challenge", err)
	}
	if !closedWithin(strangers[599], 2*shakeTime) {
		t.Errorf("a stranger may stay silent for longer than %s", 2*shakeTime)
	}
}

// pretend is a connection from an address, which has been told something or not.
type pretend struct {
	net.Conn
	from   string
	closed bool
}

func (p *pretend) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(p.from), 1))
}
func (p *pretend) Read(b []byte) (int, error) { return copy(b, "G"), nil }
func (p *pretend) Close() error               { p.closed = true; return nil }

func TestLobby(t *testing.T) {
	l := newLobby(nil)
	var guests []*guest
	for i := range doorGuests {
		a := netip.AddrFrom4([4]byte{192, 0, byte(i / doorShare >> 8), byte(i / doorShare)})
		g := l.admit(&pretend{from: a.String()})
		if g == nil {
			t.Fatalf("guest %d got no place", i)
		}
		guests = append(guests, g)
	}
	if l.admit(&pretend{from: "::ffff:192.0.0.0"}) != nil {
		t.Error("a network got more than its share")
	}
	gone := func(n int) bool { return guests[n].Conn.(*pretend).closed }
	_, _ = bufio.NewReader(guests[0]).ReadByte()
	if l.admit(&pretend{from: "2001:db8::1"}) == nil || gone(0) || !gone(1) {
		t.Error("the first that was silent did not give way")
	}
	for _, g := range guests[2 : doorGuests/2+1] {
		_, _ = bufio.NewReader(g).ReadByte()
	}
	if l.admit(&pretend{from: "2001:db8::2"}) == nil || !gone(0) || gone(doorGuests/2+1) {
		t.Error("of those that spoke and those that only just came, the first did not give way")
	}
	// Its server closes it once more: that frees nothing of others.
	_ = guests[0].Close()
	_ = guests[0].Close()
	if got := l.shares[guests[0].network]; got != doorShare-2 || len(l.guests) != doorGuests {
		t.Errorf("got %d of the network and %d in all, want %d and %d", got, len(l.guests), doorShare-2, doorGuests)
	}
}
