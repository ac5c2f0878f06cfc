package main

import (
	"crypto/tls"

	"github.com/popgate/popgate/configs"
)

type proxyHello = func(*tls.ClientHelloInfo) error

// hints say what works and yet may surprise: what must be arranged at the backends.
func hints(c *configs.Config) []string {
	var all []string
	for _, b := range c.Backends {
		all = append(all, b.Hints()...)
	}
	return all
}
