package directory

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// A fault is what a faultProxy does to the connections it has and gets.
type fault int

const (
	faultNone    fault = iota // carries both ways
	faultHang                 // takes connections and bytes, and nothing comes back
	faultRefuse               // ends connections at once
	faultGarbage              // answers with bytes of no protocol
	faultFlood                // answers with 10 MB
)

// A faultProxy stands before a server and breaks what it carries.
type faultProxy struct {
	listener        net.Listener
	network, target string
	tls             bool

	mu    sync.Mutex
	fault fault
	taken int
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// newFaultProxy starts a proxy before target. It ends with the test.
func newFaultProxy(t testing.TB, network, target string) *faultProxy {
	t.Helper()
	return newTLSFaultProxy(t, network, target, nil)
}

// newTLSFaultProxy starts one that ends TLS, where there is a config.
func newTLSFaultProxy(t testing.TB, network, target string, config *tls.Config) *faultProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	p := &faultProxy{listener: l, network: network, target: target, tls: config != nil, conns: make(map[net.Conn]bool)}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

// addr is where the proxy listens.
func (p *faultProxy) addr() string { return p.listener.Addr().String() }

// port is the port of addr.
func (p *faultProxy) port() string {
	_, port, _ := net.SplitHostPort(p.addr())
	return port
}

// set changes what happens from now on; connections under way have it too.
func (p *faultProxy) set(f fault) {
	p.mu.Lock()
	p.fault = f
	p.mu.Unlock()
	if f == faultRefuse {
		p.cut()
	}
}

// cut ends all connections under way.
func (p *faultProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// count is how many connections were taken so far.
func (p *faultProxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

func (p *faultProxy) now() fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// keep has a connection end with the proxy; done forgets it.
func (p *faultProxy) keep(c net.Conn) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
		_ = c.Close()
	}
}

func (p *faultProxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.taken++
		p.mu.Unlock()
		done := p.keep(c)
		p.wg.Go(func() { p.serve(c); done() })
	}
}

func (p *faultProxy) serve(client net.Conn) {
	if f := p.now(); f != faultNone {
		p.break1(client, f)
		return
	}
	server, err := net.Dial(p.network, p.target)
	if err != nil {
		return
	}
	defer p.keep(server)()
	p.wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if f := p.now(); f != faultNone {
			p.break1(client, f)
			return
		}
		if err != nil {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// break1 does the fault to one connection, in place of the server.
func (p *faultProxy) break1(client net.Conn, f fault) {
	switch f {
	case faultGarbage:
		_, _ = client.Write(bytes.Repeat([]byte("\x30\x84garbage\xff\x00\r\n"), 8))
	case faultFlood:
		// The length is one that PostgreSQL, MySQL and LDAP all read as long.
		_, _ = client.Write(append([]byte("\x30\x84\x00\xa0\x00\x00"), bytes.Repeat([]byte("D\x00\x01\x00"), 10<<20/4)...))
	case faultRefuse:
		return
	}
	_, err := io.Copy(io.Discard, client) // until the other side gives up
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return
	}
}
