package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/pop3mem"
)

// floodKinds are the bad connections of a flood.
var floodKinds = []string{"connects alone", "garbage", "a ClientHello alone", "a handshake and a wrong password"}

// A flood comes from many addresses of 127.1.0.0/16, a /24 for each four of them.
type flood struct {
	to        string
	addresses int
	hello     []byte        // of a client that goes no further
	stay      time.Duration // how long a bad connection is kept open, unless the gateway ends it
	made      atomic.Int64
	unmade    atomic.Int64 // could not connect
	first     atomic.Value // the error of the first
	all       sync.WaitGroup
}

func newFlood(to string, addresses int, stay time.Duration) (*flood, error) {
	f := &flood{to: to, addresses: addresses, stay: stay}
	client, server := net.Pipe()
	go func() {
		_ = tls.Client(client, floodTLS()).Handshake() // it ends with the pipe
	}()
	hello := make([]byte, 16<<10)
	n, err := server.Read(hello)
	_, _ = client.Close(), server.Close()
	f.hello = hello[:n]
	return f, err
}

func floodTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"pop3"}}
}

// bad is the i-th connection.
func (f *flood) bad(i int) {
	a := i % f.addresses
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(a/4), byte(1+a%4))}}
	c, err := d.Dial("tcp", f.to)
	if err != nil {
		if f.unmade.Add(1) == 1 {
			f.first.Store(err)
		}
		return
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0) // or the ports of the addresses were used up for a minute
	_ = c.SetDeadline(time.Now().Add(f.stay))
	f.made.Add(1)
	switch (i + i/f.addresses) % len(floodKinds) { // each address all of them in turn, and all of them at any time
	case 0:
		_, _ = c.Read(make([]byte, 1))
	case 1:
		_, _ = c.Write(bytes.Repeat([]byte("GET /"), 40))
		_, _ = io.Copy(io.Discard, c)
	case 2:
		_, _ = c.Write(f.hello)
		_, _ = io.Copy(io.Discard, c)
	default:
		conn := tls.Client(c, floodTLS())
		if conn.Handshake() == nil {
			_, _ = fmt.Fprintf(conn, "USER u%d@example.org\r\nPASS guess %d\r\n", i%1000, i)
			_, _ = io.CopyN(io.Discard, conn, int64(len("+OK POP3 ready\r\n+OK\r\n-ERR")))
		}
	}
}

// run makes so many connections a second for a while, and says how many it made.
func (f *flood) run(perSecond int, d time.Duration) {
	began := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := 0; time.Since(began) < d; <-tick.C {
		for due := int(time.Since(began).Seconds() * float64(perSecond)); i < due; i++ {
			n := i
			f.all.Go(func() { f.bad(n) })
		}
	}
}

// goodLogins has users log in one after another for a while, each time from another address, for they come every few minutes, and says
// how long each login took, from connect to the welcome.
func goodLogins(t testing.TB, s *stream, users int, pause, d time.Duration) []time.Duration {
	t.Helper()
	var (
		mu   sync.Mutex
		took []time.Duration
		all  sync.WaitGroup
	)
	end := time.Now().Add(d)
	for i := range users {
		all.Go(func() {
			for time.Now().Before(end) {
				began := time.Now()
				n := goodAddress.Add(1)
				err := s.loginFrom(fmt.Sprintf("127.%d.%d.1", 64+n/250%64, n%250), fmt.Sprintf("u%d@example.org", i))
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
				if err != nil {
					t.Errorf("u%d: %v", i, err)
					return
				}
				<-time.After(pause)
			}
		})
	}
	all.Wait()
	slices.Sort(took)
	return took
}

// goodAddress counts what goodLogins came from.
var goodAddress atomic.Int64

// loginFrom is once, from an address, to the welcome.
func (f *stream) loginFrom(addr, user string) error {
	c, err := dialPOP3([]string{f.address, addr})
	if err != nil {
		return err
	}
	raw := c.conn.(*net.TCPConn)
	defer func() {
		_ = raw.SetLinger(0)
		_ = raw.Close()
	}()
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if err := c.startTLS(f.ca, "mail.example.org"); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	for _, line := range []string{"", "USER " + user + "\r\n", "PASS " + password + "\r\n"} {
		if _, err := io.WriteString(c.conn, line); err != nil {
			return err
		}
		if reply, err := c.lines.ReadString('\n'); err != nil || !strings.HasPrefix(reply, "+OK") {
			return fmt.Errorf("after %.4q: %q, %w", line, reply, err)
		}
	}
	return nil
}

// floodMail is a server for the good users, who are u0 and so on.
func floodMail(t testing.TB, users int) string {
	server := pop3mem.New(pop3mem.Options{})
	for i := range users {
		account := fmt.Sprintf("u%d@example.org", i)
		server.Add(account, password, pop3mem.Welcome(account)...)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, pop3mem.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// Of a flood, each address gets what its limit says and no more, whatever its connections do; users of other addresses are served all
// the time, and nothing of the flood stays.
func TestFloodIsCounted(t *testing.T) {
	const (
		addresses = 40
		each      = 3 * 4 // connections of an address: three of each kind
		burst     = 5
		users     = 4
	)
	s := serveConfig(t, fmt.Sprintf(`
backends: [{name: old, servers: [{address: %q}]}]
limits: {failure_delay: 20ms, per_ip: {connections: 5/d}, overrides: [{name: users, networks: [127.64.0.0/10], per_ip: {connections: 0}}]}
log: {level: error}
`, floodMail(t, users)))
	f, err := newFlood(s.address, addresses, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	good := &stream{address: s.address, ca: s.roots}
	for i := range addresses * each {
		f.all.Go(func() { f.bad(i) })
	}
	if took := goodLogins(t, good, users, 5*time.Millisecond, time.Second); len(took) < users {
		t.Errorf("%d logins in a second, want some of each user", len(took))
	}
	want := fmt.Sprintf(`popgate_limit_refusals_total{limit="per_ip.connections"} %d`, addresses*(each-burst))
	deadline := time.Now().Add(patience)
	for got := ""; got != want; got = metricOf(t, s, "popgate_limit_refusals_total") {
		if time.Now().After(deadline) {
			t.Fatalf("got %q, want %q", got, want)
		}
		<-time.After(20 * time.Millisecond)
	}
	if n := f.unmade.Load(); n > 0 {
		t.Errorf("%d of the flood's connections came to nothing by themselves: %v", n, f.first.Load())
	}
	f.all.Wait()
	for s.proxy.Sessions() > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions are left", s.proxy.Sessions())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// metricOf is a metric's line.
func metricOf(t *testing.T, s *served, name string) string {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) == 1 {
			m := f.GetMetric()[0]
			return fmt.Sprintf("%s{%s=%q} %v", name, m.GetLabel()[0].GetName(), m.GetLabel()[0].GetValue(), m.GetCounter().GetValue())
		}
	}
	return ""
}

// BenchmarkFlood measures what a flood does to good users: docs/performance.md has its figures. Each of its parts is one flood, which
// takes half a minute and all of the machine.
func BenchmarkFlood(b *testing.B) {
	for _, c := range []struct{ name, limits string }{
		{"none", `{}`},
		{"per_ip", `
  per_ip: {connections: 12/m burst 12, sessions: 20, handshakes: 4}`},
		{"per_ip+per_network", `
  per_ip: {connections: 12/m burst 12, sessions: 20, handshakes: 4}
  per_network: {connections: 60/m burst 40}`},
		{"small_bursts", `
  per_ip: {connections: 12/m burst 5, sessions: 20, handshakes: 4}
  per_network: {connections: 60/m burst 5}`},
		{"small_bursts_per_ip", `
  per_ip: {connections: 12/m burst 5, sessions: 20, handshakes: 4}`},
	} {
		b.Run(c.name, func(b *testing.B) { measureFlood(b, c.limits) })
	}
}

func measureFlood(b *testing.B, limits string) {
	const (
		users    = 20
		rate     = 5000 // bad connections a second
		quiet    = 10 * time.Second
		flooding = 15 * time.Second
		settle   = 4 * time.Second // the bursts of all addresses
		pause    = 100 * time.Millisecond
	)
	address, metrics, cpu := startFlooded(b, floodMail(b, users), limits)
	good := &stream{address: address.to, ca: address.ca}
	goodLogins(b, good, users, pause/2, 2*time.Second) // the first of all cost more
	before := goodLogins(b, good, users, pause, quiet)
	wait := startFlooder(b, address.to, rate, flooding)
	began, used := time.Now(), cpu()
	first := goodLogins(b, good, users, pause, settle)
	then := goodLogins(b, good, users, pause, flooding-settle-time.Second)
	took, used := time.Since(began), cpu()-used
	made, said := wait()
	under := slices.Sorted(slices.Values(slices.Concat(first, then)))

	b.Logf("quiet: %d logins, %s", len(before), percentiles(before))
	b.Logf("flood: %d logins, %s; in its first %v %s, then %s", len(under), percentiles(under), settle, percentiles(first), percentiles(then))
	b.Logf("%s; popgate used %.2f of a core", said, used.Seconds()/took.Seconds())
	text, err := fetch("http://" + metrics + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "popgate_limit_refusals_total") || strings.HasPrefix(line, "popgate_logins_total") {
			b.Log(strings.TrimSpace(line))
		}
	}
	b.ReportMetric(0, "ns/op") // it says nothing
	b.ReportMetric(milliseconds(at(before, 99)), "quiet-p99-ms")
	b.ReportMetric(milliseconds(at(under, 99)), "flood-p99-ms")
	b.ReportMetric(float64(at(under, 99))/float64(at(before, 99)), "times")
	b.ReportMetric(made, "bad/s")
}

func at(d []time.Duration, percent int) time.Duration { return d[(len(d)-1)*percent/100] }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func percentiles(d []time.Duration) string {
	return fmt.Sprintf("p50 %v p90 %v p99 %v", at(d, 50).Round(100*time.Microsecond), at(d, 90).Round(100*time.Microsecond), at(d, 99).Round(100*time.Microsecond))
}

// BenchmarkTurnedAway is a connection that a limit turns away, its client's side and the kernel's work included.
func BenchmarkTurnedAway(b *testing.B) {
	s := serveConfig(b, `
bounds: {accept_ramp: 0s}
backends: [{name: old, servers: [{address: "127.0.0.1:1"}]}]
limits: {per_ip: {connections: 1/d}}
log: {level: error}
`)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 0, 1)}}
	visit := func(wait bool) {
		c, err := d.Dial("tcp", s.address)
		if err != nil {
			b.Fatal(err)
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		if wait {
			_, _ = c.Read(make([]byte, 1))
		}
		_ = c.Close()
	}
	visit(false) // the one of the day
	for b.Loop() {
		visit(true)
	}
}
