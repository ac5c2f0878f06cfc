package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/popgate/popgate/auth"
)

const (
	// doorRetry is how long a port that could not be had is left alone.
	doorRetry = 30 * time.Second
	// An issuer speaks as soon as it is connected, though this machine may be busy: hearTime is how long a request may take to come,
	// shakeTime a whole handshake, doorTime all the rest, for which the storage may be asked.
	hearTime, shakeTime, doorTime = 5 * time.Second, 10 * time.Second, 10 * time.Second
	// doorGuests is how many askers there may be at once, doorShare how many of one network
	// once there are so many: till then issuers may come in a crowd, for several names at once.
	doorGuests, doorShare = 512, 4
)

// doors are the listeners on which issuers find the answers to their challenges. They are open all the time, so that any node answers
// for any other. Only run touches them.
type doors struct {
	m     *manager
	http  door
	alpn  door
	told  string // why no issuer can come in
	ended sync.WaitGroup
}

// door is one of them.
type door struct {
	address string
	ln      net.Listener // nil while it is closed
	taken   bool         // by another program, which may pass challenges on, or answer them itself from the same storage
	again   time.Time    // when to try to open it again
	problem string       // what was said of it last
}

func newDoors(m *manager) *doors { return &doors{m: m} }

// follow opens and closes doors as the view in force wants it.
func (d *doors) follow(ctx context.Context) {
	var httpAddress, alpnAddress string
	v := d.m.view.Load()
	// With DNS-01 nobody comes.
	if v != nil && v.section.DNS.Provider == "" {
		httpAddress, alpnAddress = v.section.HTTPAddress, v.section.TLSALPNAddress
	}
	d.move(ctx, &d.http, httpAddress, d.serveHTTP)
	d.move(ctx, &d.alpn, alpnAddress, d.serveALPN)
	d.tell(httpAddress != "" || alpnAddress != "")
	d.m.open.Store(&manner{withoutHTTP: d.http.ln == nil, without443: d.alpn.ln == nil})
}

// tell says once that no door is open where one should be: this host may have nothing but port 995.
func (d *doors) tell(wanted bool) {
	shut := ""
	switch {
	case !wanted || d.http.ln != nil || d.alpn.ln != nil:
	case d.http.taken || d.alpn.taken:
		// Perhaps it passes challenges on already, or is a gateway with the same storage.
		shut = "another program has the ports that issuers connect to, and unless it helps no certificate can be obtained: "
	default:
		shut = "no issuer can come in: "
	}
	if shut != "" && shut != d.told {
		d.m.log.Error(shut + onlyDNS)
	}
	d.told = shut
}

// explain adds to an order's failure what to do about it, where the issuer could not come in.
func (m *manager) explain(iss *issuer, err error) error {
	problem, refused := errors.AsType[acme.Problem](err)
	open := m.open.Load()
	shut := open != nil && open.withoutHTTP && open.without443
	switch {
	case iss.dns != nil:
	case refused && problem.Type == acme.ProblemTypeConnection,
		refused && shut && slices.Contains([]string{acme.ProblemTypeUnauthorized, acme.ProblemTypeIncorrectResponse, acme.ProblemTypeTLS}, problem.Type),
		err != nil && shut && strings.Contains(err.Error(), "could not start listener"): // certmagic keeps the cause to itself
		return fmt.Errorf("%w; %s", err, onlyDNS)
	}
	return err
}

func (d *doors) move(ctx context.Context, one *door, address string, serve func(net.Listener)) {
	if one.address != address {
		one.close()
		*one = door{address: address}
	}
	if address == "" || one.ln != nil || time.Now().Before(one.again) {
		return
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		one.again, one.taken = time.Now().Add(doorRetry), errors.Is(err, syscall.EADDRINUSE)
		if one.problem != err.Error() {
			one.problem = err.Error()
			d.m.log.Warn("cannot listen for challenges: "+advice(err), "address", address, "error", err)
		}
		return
	}
	one.ln, one.problem = newLobby(ln), ""
	d.m.log.Info("listening", "address", ln.Addr().String(), "for", "challenges of certificate issuers")
	d.ended.Go(func() { serve(one.ln) })
}

func advice(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another program has the port: let it pass /.well-known/acme-challenge/ on to another tls.acme.http_address, or set tls.acme.dns"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need root or CAP_NET_BIND_SERVICE (AmbientCapabilities in the systemd unit)"
	}
	return "see tls.acme.http_address and tls_alpn_address"
}

func (one *door) close() {
	if one.ln != nil {
		_ = one.ln.Close()
	}
}

func (d *doors) close() {
	d.http.close()
	d.alpn.close()
	d.ended.Wait()
}

// doors says by which challenges an order can be answered. Where one of two doors is ours and the other is not, a validation there would
// most likely fail, and issuers count that. Where none is, somebody else may answer for us: another node, or a web server.
func (m *manager) doors() manner {
	if a := m.open.Load(); a != nil && a.withoutHTTP != a.without443 {
		return *a
	}
	return manner{}
}

// serveHTTP answers HTTP-01 challenges, and nothing else.
func (d *doors) serveHTTP(ln net.Listener) {
	server := &http.Server{
		Handler:           http.HandlerFunc(d.answer),
		ReadHeaderTimeout: hearTime, ReadTimeout: doorTime, WriteTimeout: doorTime, IdleTimeout: doorTime, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // strangers' slips
	}
	server.SetKeepAlivesEnabled(false)
	_ = server.Serve(ln) // ends when the door is shut
	_ = server.Close()
}

// serveALPN answers TLS-ALPN-01 challenges, and nothing else.
func (d *doors) serveALPN(ln net.Listener) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{acmez.ACMETLS1Protocol},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if v := d.m.view.Load(); v != nil {
				return v.answerALPN(hello)
			}
			return nil, errNoChallenge
		},
		SessionTicketsDisabled: true,
	}
	var guests sync.WaitGroup
	defer guests.Wait()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond) // out of descriptors, say
			continue
		}
		guests.Go(func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(shakeTime))
			_ = tls.Server(c, config).Handshake() // the certificate is all that is asked for
		})
	}
}

// lobby is a listener that strangers cannot fill: it never stops accepting. Where all places are taken a network that has its share
// gets no more, and for others the guest that has been silent for longest gives way, or else the one that came first.
type lobby struct {
	net.Listener

	mu     sync.Mutex
	guests []*guest // in the order they came
	shares map[netip.Prefix]int
}

// guest is a connection in a lobby.
type guest struct {
	net.Conn
	lobby   *lobby
	network netip.Prefix
	spoke   atomic.Bool
}

func newLobby(ln net.Listener) *lobby {
	return &lobby{Listener: ln, shares: make(map[netip.Prefix]int)}
}

// Accept waits for the next guest that gets a place.
func (l *lobby) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g := l.admit(c); g != nil {
			return g, nil
		}
		_ = c.Close()
	}
}

// admit gives c a place, or nil where its network has its share.
func (l *lobby) admit(c net.Conn) *guest {
	g := &guest{Conn: c, lobby: l}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		g.network = auth.Network(a.AddrPort().Addr())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.guests) >= doorGuests {
		if l.shares[g.network] >= doorShare {
			return nil
		}
		// Not one of the later half: it may not have been read from yet.
		silent := slices.IndexFunc(l.guests[:doorGuests/2], func(g *guest) bool { return !g.spoke.Load() })
		out := l.guests[max(0, silent)]
		l.leave(out)
		_ = out.Conn.Close() // who serves it finds out, and closes it again
	}
	l.guests = append(l.guests, g)
	l.shares[g.network]++
	return g
}

// leave frees the place of a guest, once. The lock is held.
func (l *lobby) leave(g *guest) {
	n := slices.Index(l.guests, g)
	if n < 0 {
		return
	}
	l.guests = slices.Delete(l.guests, n, n+1)
	if l.shares[g.network]--; l.shares[g.network] == 0 {
		delete(l.shares, g.network)
	}
}

// Read notes that the guest has spoken.
func (g *guest) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if n > 0 {
		g.spoke.Store(true)
	}
	return n, err
}

// Close gives the place back.
func (g *guest) Close() error {
	g.lobby.mu.Lock()
	g.lobby.leave(g)
	g.lobby.mu.Unlock()
	return g.Conn.Close()
}
