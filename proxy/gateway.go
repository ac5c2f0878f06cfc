package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
)

// ErrServerClosed is what Serve returns after Shutdown or Close.
var ErrServerClosed = errors.New("gateway is closed")

// A Router says where a user goes. It is called by many sessions at once.
type Router interface {
	// Route answers auth.ErrUnknownUser where nobody would take the user, auth.ErrWrongPassword or auth.ErrNetwork where the
	// client is refused before any backend is asked. Any other error means that it could not be found out, and is no
	// fault of the user. The route beside an error says as much as is known. Its secret is the caller's to wipe.
	Route(ctx context.Context, q auth.Query) (auth.Route, error)
	// Refresh tells that the login of q was refused where r led, so that what is remembered of the user may be old.
	Refresh(q auth.Query, r *auth.Route)
}

// A Gate admits clients. It is called by many sessions at once.
type Gate interface {
	Admit(ctx context.Context, c *auth.Client) (*policy.Visit, error)
	// MaxLoginDelay is the longest time that some user has to leave between two logins, 0 where nobody has to.
	MaxLoginDelay() time.Duration
}

// A Recorder keeps the audit. It is called by many sessions at once.
type Recorder interface {
	// Record returns once the event is written, or with an error that the login must not survive.
	Record(ctx context.Context, e *audit.Event) error
	// Post takes an event that nobody waits for.
	Post(e *audit.Event)
	// Refused counts a connection that was turned away before it was a session.
	Refused(r audit.Refusal)
}

// A Snapshot is all that a reload can change. It is immutable once it has been given to Apply: a session keeps the
// one it began with.
type Snapshot struct {
	Listeners []Listener
	Router    Router
	Gate      Gate
	Backends  *backend.View
	Timeouts  Timeouts
	Bounds    Bounds
	// FailureDelay is the tick on which refused credentials leave; 0 lets them leave at once.
	FailureDelay time.Duration
}

// A Listener is a listener's settings together with what was made of them.
type Listener struct {
	ListenerConfig
	// TLSConfig is used as it is, never cloned: session tickets would stop working. Its GetConfigForClient calls
	// Gateway.Hello. It is nil where TLS is offloaded.
	TLSConfig *tls.Config
}

func (s *Snapshot) listener(address string) *Listener {
	i := slices.IndexFunc(s.Listeners, func(l Listener) bool { return l.Address == address })
	if i < 0 {
		return nil
	}
	return &s.Listeners[i]
}

// A Gateway serves POP3 clients. All its methods may be called at once.
type Gateway struct {
	log      *slog.Logger
	recorder Recorder
	metrics  *metrics
	snapshot atomic.Pointer[Snapshot]
	live     sessions
	slots    slots
	pace     pace
	moved    moved
	ids      ids
	said     said
	census   census
	started  time.Time

	closing chan struct{} // closed when Shutdown or Close begins
	once    sync.Once
	serving sync.WaitGroup // accept loops and sessions
	mu      sync.Mutex
	lns     map[net.Listener]struct{}
	began   time.Time            // when it first served
	cancels []context.CancelFunc // one for each Serve: they end the logins at work
}

// New makes a gateway, which serves once it has a snapshot. It registers its metrics with reg, which may be nil.
func New(recorder Recorder, log *slog.Logger, reg prometheus.Registerer) *Gateway {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		log:      log,
		recorder: recorder,
		closing:  make(chan struct{}),
		lns:      make(map[net.Listener]struct{}),
		ids:      newIDs(),
		started:  time.Now(),
	}
	g.metrics = newMetrics(reg, &g.live)
	return g
}

// Apply puts a snapshot in force for the connections that come from now on.
func (g *Gateway) Apply(s *Snapshot) {
	g.slots.resize(s.Bounds.Handshakes)
	g.snapshot.Store(s)
}

// Serve accepts connections from ln until ln is closed or the gateway is, and serves each by the snapshot's listener
// with this address, as the configuration writes it. It closes ln. The end of ctx cuts short the logins at work;
// sessions themselves end by Shutdown or Close.
//
// It returns ErrServerClosed after Shutdown or Close, net.ErrClosed where somebody else closed ln.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener, address string) error {
	ctx, cancel := context.WithCancel(ctx)
	if !g.track(ln, cancel) {
		cancel()
		return errors.Join(ErrServerClosed, ln.Close())
	}
	defer g.untrack(ln)
	storm := newRamp(g.began, &g.snapshot.Load().Bounds)
	for delay := time.Duration(0); ; {
		conn, err := ln.Accept()
		switch {
		case err == nil:
			delay = 0
			if storm != nil {
				storm = g.climb(ctx, storm)
			}
			g.start(ctx, conn, address)
		case g.isClosing():
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			// Out of descriptors, mostly: sessions that end make room, so wait for them rather than spin.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			g.metrics.accept.errors.Inc()
			g.log.Warn("accept a connection", "address", address, "error", err, "retry_in", delay.String())
			select {
			case <-time.After(delay):
			case <-g.closing:
			}
		}
	}
}

// climb has a connection wait for its turn. It returns the ramp as long as there is one.
func (g *Gateway) climb(ctx context.Context, r *ramp) *ramp {
	waited, over := r.wait(ctx)
	g.metrics.accept.waits.Add(waited.Seconds())
	if over {
		return nil
	}
	return r
}

func (g *Gateway) track(ln net.Listener, cancel context.CancelFunc) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isClosing() {
		return false
	}
	if g.began.IsZero() {
		g.began = time.Now()
	}
	g.lns[ln] = struct{}{}
	g.cancels = append(g.cancels, cancel)
	g.serving.Add(1) // under the lock, so that no connection slips in beside the wait of Shutdown
	return true
}

func (g *Gateway) untrack(ln net.Listener) {
	_ = ln.Close() // it may be closed already
	g.mu.Lock()
	delete(g.lns, ln)
	g.mu.Unlock()
	g.serving.Done()
}

// start makes a session of a connection.
func (g *Gateway) start(ctx context.Context, conn net.Conn, address string) {
	snap := g.snapshot.Load()
	l := snap.listener(address)
	if l == nil { // a reload has just removed the listener
		_ = conn.Close()
		return
	}
	s := &session{gw: g, snap: snap, listener: l, raw: &clientConn{Conn: conn}, began: time.Now()}
	s.raw.session = s
	s.client = auth.Client{Addr: addrPort(conn.RemoteAddr()), Local: addrPort(conn.LocalAddr()), Listener: l.Name}
	if len(l.ProxyProtocolFrom) > 0 && !contains(l.ProxyProtocolFrom, s.client.Addr.Addr()) {
		g.refuse(audit.Refusal{Reason: audit.ProxyHeader}, &s.client)
		g.sayStranger(s, "is not in proxy_protocol_from")
		_ = conn.Close()
		return
	}
	s.id = g.ids.next()
	g.serving.Add(1)
	g.live.add(s)
	go s.run(ctx, (*session).open)
}

// refuse counts a connection that is turned away before it is a session.
func (g *Gateway) refuse(r audit.Refusal, c *auth.Client) {
	g.metrics.refused.WithLabelValues(c.Listener, string(r.Reason)).Inc()
	r.Network = c.Network()
	g.recorder.Refused(r)
}

func (g *Gateway) isClosing() bool {
	select {
	case <-g.closing:
		return true
	default:
		return false
	}
}

// Sessions is the number of sessions now, those before login included.
func (g *Gateway) Sessions() int { return g.live.count() }

// Shutdown closes the listeners, ends the sessions that have not logged in, with [SYS/TEMP] where they can hear it,
// and waits until those that have are done. When ctx ends first, it closes them and returns ctx's error.
func (g *Gateway) Shutdown(ctx context.Context) error {
	g.stop()
	g.live.each(func(s *session) { s.wake() })
	done := make(chan struct{})
	go func() {
		g.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		g.cut()
		<-done
		return ctx.Err()
	}
}

// Close ends everything at once.
func (g *Gateway) Close() {
	g.stop()
	g.cut()
	g.serving.Wait()
}

// cut breaks off all sessions, and the logins that they wait for.
func (g *Gateway) cut() {
	g.mu.Lock()
	for _, cancel := range g.cancels {
		cancel()
	}
	g.mu.Unlock()
	g.live.each((*session).cut)
}

// stop closes the listeners and makes isClosing true.
func (g *Gateway) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.once.Do(func() { close(g.closing) })
	for ln := range g.lns {
		_ = ln.Close() // Serve reports it
	}
}

// addrPort unmaps: a client that came over an IPv6 socket with an IPv4 address is an IPv4 client.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	a = a.WithZone("")
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(a) })
}
