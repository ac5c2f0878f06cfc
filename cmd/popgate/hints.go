package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"

	"github.com/popgate/popgate/configs"
)

type proxyHello = func(*tls.ClientHelloInfo) error

// hints say what works and yet may surprise: what must be arranged at the backends.
func hints(c *configs.Config) []string {
	var all []string
	for _, b := range c.Backends {
		if b.ClientInfo == "none" {
			all = append(all, fmt.Sprintf("backend %s sees all clients at popgate's address (client_info: none): exempt that address from its limits and penalties for failed logins, or set client_info", b.Name))
		}
		if b.TLS != "none" {
			continue
		}
		for _, s := range b.Servers {
			if host, _, err := net.SplitHostPort(s.Address); err == nil && public(host) {
				all = append(all, fmt.Sprintf("backend %s: passwords go to %s in clear over a public address; set tls: starttls or implicit there, or use a private network", b.Name, s.Address))
			}
		}
	}
	return all
}

// public says that host is an address that strangers' networks may carry.
func public(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsGlobalUnicast() && !a.IsPrivate()
}
