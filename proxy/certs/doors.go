package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3"
	"golang.org/x/net/netutil"
)

const (
	// doorRetry is how long a port that could not be had is left alone.
	doorRetry = 30 * time.Second
	// doorTime bounds what one asker may take, doorGuests how many there may be at once.
	doorTime, doorGuests = 10 * time.Second, 64
)

// doors are the listeners on which issuers find the answers to their challenges. They are open all the time, so that any node answers
// for any other. Only run touches them.
type doors struct {
	m     *manager
	http  door
	alpn  door
	told  bool // that no issuer can come in
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
	shut := (httpAddress != "" || alpnAddress != "") && d.http.shut(httpAddress) && d.alpn.shut(alpnAddress)
	if shut && !d.told {
		d.m.log.Error("no issuer can come in: " + onlyDNS)
	}
	d.told = shut
	d.m.open.Store(&manner{withoutHTTP: d.http.ln == nil, without443: d.alpn.ln == nil})
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
	one.ln, one.problem = netutil.LimitListener(ln, doorGuests), ""
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

// shut says that nobody can come in where the address says.
func (one *door) shut(address string) bool { return address == "" || one.ln == nil && !one.taken }

// serveHTTP answers HTTP-01 challenges, and nothing else.
func (d *doors) serveHTTP(ln net.Listener) {
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if v := d.m.view.Load(); v == nil || !v.answerHTTP.HandleHTTPChallenge(w, r) {
				http.NotFound(w, r)
			}
		}),
		ReadTimeout: doorTime, WriteTimeout: doorTime, IdleTimeout: doorTime, MaxHeaderBytes: 8 << 10,
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
			v := d.m.view.Load()
			// What certmagic takes for a challenge (RFC 8737, 3); anything else it would look for in its cache.
			if v == nil || hello.ServerName == "" || len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acmez.ACMETLS1Protocol {
				return nil, errors.New("no challenge")
			}
			return v.answer.GetCertificate(hello)
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
			_ = c.SetDeadline(time.Now().Add(doorTime))
			_ = tls.Server(c, config).Handshake() // the certificate is all that is asked for
		})
	}
}
