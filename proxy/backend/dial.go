package backend

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// A dialer connects to a backend's servers.
type dialer struct {
	net.Dialer
}

func newDialer(c *Config) dialer {
	return dialer{Dialer: net.Dialer{
		Timeout: c.ConnectTimeout,
		// On, with the system's times: the relay has limits of its own, and setting times costs a call each.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1},
	}}
}

// dial connects to a. It leaves the choice of the local port to connect(2): a port bound first would be one for all
// servers together, of which there are some 28,000.
func dial(ctx context.Context, d *dialer, a address) (net.Conn, error) {
	return d.DialContext(ctx, "tcp", a.text)
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

// noPort says that this machine has no port left towards one server; towards another it may.
func noPort(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL)
}
