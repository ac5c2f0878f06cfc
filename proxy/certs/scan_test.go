package certs

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A stranger is a client that says hello and reads the answer: its end of a handshake, in memory. Most of what a scan does with a gateway
// happens here, and nothing of what it does with the network.
type stranger struct {
	net.Conn
	from  netip.Addr
	hello *bytes.Reader
	heard bytes.Buffer
}

func (s *stranger) Read(b []byte) (int, error)  { return s.hello.Read(b) }
func (s *stranger) Write(b []byte) (int, error) { return s.heard.Write(b) }
func (s *stranger) Close() error                { return nil }
func (s *stranger) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 995} }
func (s *stranger) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.from, 1024))
}

// refused says whether the answer was the alert unrecognized_name, and nothing besides.
func (s *stranger) refused() bool {
	const alert, fatal, unrecognizedName = 21, 2, 112
	heard := s.heard.Bytes()
	return len(heard) == 7 && heard[0] == alert && heard[5] == fatal && heard[6] == unrecognizedName
}

// recorder keeps what a client says first.
type recorder struct {
	net.Conn
	said bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) { return r.said.Write(b) }
func (r *recorder) Read([]byte) (int, error)    { return 0, io.EOF }
func (r *recorder) Close() error                { return nil }

// helloFor is a client's whole ClientHello for a name, of TLS up to a version.
func helloFor(name string, version uint16) []byte {
	r := new(recorder)
	_ = tls.Client(r, &tls.Config{ServerName: name, MaxVersion: version}).Handshake() // it ends with the end of what there is to read
	return r.said.Bytes()
}

func heapNow() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// series counts the series of all metrics.
func series(t *testing.T, reg *prometheus.Registry) (n int) {
	t.Helper()
	for _, family := range must(reg.Gather()) {
		n += len(family.GetMetric())
	}
	return n
}

// TestScan makes 100,000 handshakes with a gateway at work, each for another invented name: half of them of domains that nobody knows, half
// below one all of whose names are known. None is ordered; memory and metrics do not grow with their number.
func TestScan(t *testing.T) {
	const (
		scan     = 100_000
		networks = 20
	)
	p := startPebble(t, pebbleOptions{})
	c := p.demanding("mail.{domain}")
	c.ACME.OnDemand.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1")} // where no name leads
	reg := prometheus.NewRegistry()
	r, v := startRig(t, t.TempDir(), c, func(r *rig) {
		knowing("*.example.org")(r)
		r.k = New(r.k.stateDir, nil, reg)
	})
	name := func(i int) string { return fmt.Sprintf("mail.i%07d.example.%s", i, []string{"org", "net"}[i%2]) }
	// With TLS 1.3 crypto/tls agrees on keys before it asks for a certificate: a millisecond each where races are looked for, and nothing
	// of ours. Some will do.
	templates := [2][]byte{helloFor(name(0), tls.VersionTLS13), helloFor(name(0), tls.VersionTLS12)}
	visit := func(i int) bool {
		hello := bytes.Replace(templates[min(1, i/2%100)], []byte(name(0)), []byte(name(i)), 1)
		s := &stranger{from: netip.AddrFrom4([4]byte{198, 51, 100, byte(i / 2 % networks)}), hello: bytes.NewReader(hello)}
		err := tls.Server(s, v.TLS("pop3s")).Handshake()
		return err != nil && s.refused()
	}
	between := func(from, to int) {
		t.Helper()
		var next, wrong atomic.Int64
		next.Store(int64(from))
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for i := int(next.Add(1)) - 1; i < to; i = int(next.Add(1)) - 1 {
					if !visit(i) {
						wrong.Add(1)
					}
				}
			})
		}
		all.Wait()
		if n := wrong.Load(); n > 0 {
			t.Errorf("%d of the names %d to %d got something else than the alert", n, from, to)
		}
	}
	const begun = scan / 10
	between(2, begun)
	heap, kinds := heapNow(), series(t, reg)
	between(begun, scan)
	if grown := heapNow() - heap; grown > 4<<20 {
		t.Errorf("%d more names took %d bytes", scan-begun, grown)
	}
	if got := series(t, reg); got != kinds {
		t.Errorf("%d series after the scan, %d before", got, kinds)
	}
	if strings.Contains(p.log.String(), "POST") {
		t.Error("the issuer was asked for something")
	}
	if got := len(must(r.k.List(t.Context()))); got != 0 {
		t.Errorf("%d names have a place", got)
	}
	p.dns.mu.Lock()
	defer p.dns.mu.Unlock()
	if got, most := len(p.dns.asked), networks*c.ACME.OnDemand.PerNetwork.Count; got != most {
		t.Errorf("DNS was asked for %d names, want %d: what the networks may ask for", got, most)
	}
}
