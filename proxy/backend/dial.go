package backend

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// raceDelay is how long an address is tried alone before the next one is tried beside it (RFC 8305 section 5).
const raceDelay = 250 * time.Millisecond

var errNoSource = errors.New("none of the addresses in source is of its family")

// A dialer connects to a backend's servers, from its source addresses in turn.
type dialer struct {
	plain    net.Dialer
	bound    bool         // to sources
	v4, v6   []net.Dialer // one a source
	turn     atomic.Uint32
	connect  func(ctx context.Context, d *dialer, to netip.AddrPort, text string) (net.Conn, error)
	backends *Backends
}

func newDialer(b *Backends, c *Config) *dialer {
	d := &dialer{backends: b, bound: len(c.Source) > 0, connect: connect}
	d.plain = net.Dialer{
		Timeout: c.ConnectTimeout,
		// On, with the system's times: the relay has limits of its own, and setting times costs a call each.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1},
	}
	for _, s := range c.Source {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			continue // Validate has said so
		}
		from := d.plain
		from.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), 0))
		from.Control = bindLate
		if ip.Unmap().Is4() {
			d.v4 = append(d.v4, from)
		} else {
			d.v6 = append(d.v6, from)
		}
	}
	return d
}

// dial connects to a. Where that is a name, all its addresses are tried, the one that answered last first, and the next one
// beside it when it takes its time.
func dial(ctx context.Context, d *dialer, a address) (net.Conn, error) {
	if a.ip.IsValid() {
		return d.connect(ctx, d, a.ip, a.text)
	}
	if d.plain.Timeout > 0 { // for the look-up, where there must be one, and all addresses together
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.plain.Timeout)
		defer cancel()
	}
	ips, err := d.backends.addresses(ctx, a)
	if err != nil {
		return nil, err
	}
	c, ip, err := d.race(ctx, ips, a.port)
	if err != nil {
		a.name.again()
		return nil, err
	}
	a.name.prefer(ip)
	return c, nil
}

// dialed is how connecting to one of several addresses ended.
type dialed struct {
	conn net.Conn
	ip   netip.Addr
	err  error
}

// race connects to the first of ips that answers.
func (d *dialer) race(ctx context.Context, ips []netip.Addr, port uint16) (net.Conn, netip.Addr, error) {
	if len(ips) == 1 {
		to := netip.AddrPortFrom(ips[0], port)
		c, err := d.connect(ctx, d, to, to.String())
		return c, ips[0], err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // those that are too late
	results, over := make(chan dialed), make(chan struct{})
	defer close(over)
	next := time.NewTimer(0)
	defer next.Stop()
	var failed []error
	for running := 0; running > 0 || len(ips) > 0; {
		select {
		case <-next.C:
			if len(ips) > 0 {
				go d.runner(ctx, netip.AddrPortFrom(ips[0], port), results, over)
				ips, running = ips[1:], running+1
				next.Reset(raceDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, r.ip, nil
			}
			failed, running = append(failed, r.err), running-1
			next.Reset(0)
		}
	}
	return nil, netip.Addr{}, telling(failed)
}

// runner is one of a race. It ends with the race, at the latest.
func (d *dialer) runner(ctx context.Context, to netip.AddrPort, results chan<- dialed, over <-chan struct{}) {
	c, err := d.connect(ctx, d, to, to.String())
	select {
	case results <- dialed{c, to.Addr(), err}:
	case <-over:
		if c != nil {
			_ = c.Close()
		}
	}
}

// telling is what failed connections to the addresses of one server say of it together: what we have too little of says
// nothing, where another one says more than that this machine has no way to its address, by IPv6 mostly.
func telling(failed []error) error {
	var theirs, short []error
	for _, err := range failed {
		switch {
		case ours(err):
			short = append(short, err)
		case !pathless(err):
			theirs = append(theirs, err)
		}
	}
	switch {
	case len(theirs) > 0:
		return errors.Join(theirs...)
	case len(short) > 0:
		return errors.Join(short...)
	}
	return errors.Join(failed...)
}

// pathless says that this machine has no address, or no route, of a family.
func pathless(err error) bool {
	return errors.Is(err, errNoSource) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// connect connects to one address, which text is as well. It leaves the choice of the local port to connect(2), with source addresses too: a port
// that is bound first would be one for all servers together, of which there are some 28,000.
func connect(ctx context.Context, d *dialer, to netip.AddrPort, text string) (net.Conn, error) {
	if !d.bound {
		return d.plain.DialContext(ctx, "tcp", text)
	}
	sources := d.v6
	if to.Addr().Unmap().Is4() {
		sources = d.v4
	}
	if len(sources) == 0 {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: errNoSource}
	}
	first := d.turn.Add(1)
	var failed error
	for i := range uint32(len(sources)) {
		c, err := sources[(first+i)%uint32(len(sources))].DialContext(ctx, "tcp", text)
		if err == nil || !noPort(err) {
			return c, err
		}
		failed = err
	}
	return nil, failed
}

// ours says that err comes from what popgate or this machine has too little of.
func ours(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return noPort(err)
}

// noPort says that this machine has no port left towards one server, or not the address to come from; towards another it
// may.
func noPort(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL)
}
