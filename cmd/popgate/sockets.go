package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/popgate/popgate/configs"
	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/admin"
)

// listening is a socket and what it serves.
type listening struct {
	net.Listener
	address string // as the configuration writes it
	use     use
	close   func()
}

// use is whom a socket is for.
type use string

const (
	forClients   use = "POP3 clients"
	forMetrics   use = "metrics and health"
	forOperators use = "popgate's own commands"
	forServers   use = "servers that ask as they would ask weakforced"
)

// wanted are the addresses and paths that a configuration has popgate listen on.
func wanted(c *configs.Config) map[string]use {
	all := map[string]use{adminSocket(c): forOperators}
	if a := c.Metrics.Address; a != "" {
		all[a] = forMetrics
	}
	if a := c.Weakforced.Serve.Address; a != "" {
		all[a] = forServers
	}
	for _, l := range c.Listeners {
		all[l.Address] = forClients
	}
	return all
}

// adminSocket is where this gateway makes its socket for operators.
func adminSocket(c *configs.Config) string { return c.Admin.Paths(os.Getenv)[0] }

// listen opens the sockets that p wants and that are not open yet.
func (g *gateway) listen(ctx context.Context, p *prepared) error {
	var faults []error
	for address, use := range wanted(p.config) {
		if old := g.open[address]; old != nil {
			if old.use != use {
				faults = append(faults, fmt.Errorf("listen on %s: metrics and POP3 cannot change places on one address while popgate runs; restart it", address))
			}
			continue
		}
		open := openSocket
		if use == forOperators {
			open = admin.ListenSocket
		}
		ln, err := open(ctx, address)
		switch {
		case err == nil:
			p.opened = append(p.opened, &listening{Listener: ln, address: address, use: use})
		case use == forOperators && p.config.Admin.Socket == "" && !errors.Is(err, admin.ErrInUse):
			// Nobody asked for it, and mail can be fetched without: a read-only container need not have a place for it.
			g.log.Warn("no socket for popgate certs and its like: write admin.socket, a path that popgate may make", "error", err)
		default:
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		for _, l := range p.opened {
			_ = l.Close()
		}
		return errors.Join(faults...)
	}
	return nil
}

// openSocket listens on address, which may have no host: then on all addresses, IPv4 and IPv6.
func openSocket(ctx context.Context, address string) (net.Listener, error) {
	// Accepted connections inherit keep-alive from the socket, which saves four system calls for each.
	lc := net.ListenConfig{KeepAlive: -1, Control: keepAlive}
	lc.SetMultipathTCP(false) // Landlock and MD5 signatures do not cover it, and mail gains nothing by it
	network := "tcp"
	if ap, err := netip.ParseAddrPort(address); err == nil && ap.Addr().Is4() {
		network = "tcp4" // or 0.0.0.0 would mean IPv6 too
	}
	ln, err := lc.Listen(ctx, network, address)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: another program has that port; stop it (ss -ltnp shows which) or choose another address", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE (AmbientCapabilities in the systemd unit)", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this machine has no such address", address)
	}
	return nil, fmt.Errorf("listen on %s: %w", address, err)
}

// serve starts serving a socket.
func (g *gateway) serve(ctx context.Context, l *listening) {
	g.open[l.address] = l
	serving, cancel := context.WithCancel(ctx)
	l.close = cancel                                  // ends a server of HTTP; a listener for clients is closed instead, and its sessions go on
	address, node := l.Addr().String(), g.config.Node // which does not change, and the config does
	switch l.use {
	case forClients:
		l.close = func() { _ = l.Close() }
	case forOperators:
		address = l.address // it was made under another name
	}
	g.log.Info("listening", "address", address, "for", string(l.use))
	g.serving.Go(func() {
		defer cancel()
		var err error
		switch l.use {
		case forClients:
			err = g.proxy.Serve(ctx, l.Listener, l.address)
		case forMetrics:
			err = admin.Serve(serving, l.Listener, admin.Handler(g.registry, g.ready), g.log)
		case forServers:
			err = admin.Serve(serving, l.Listener, g.policy.Server(), g.log)
		case forOperators:
			err = admin.Serve(serving, l.Listener, admin.SocketHandler(g.resources(node)...), g.log)
		}
		if err != nil && !errors.Is(err, proxy.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			select {
			case g.failed <- err:
			default: // one is enough to stop
			}
		}
	})
}
