package main

import (
	"crypto/tls"

	"github.com/popgate/popgate/configs"
)

type proxyHello = func(*tls.ClientHelloInfo) error

// hints say what works and yet may surprise: what must be arranged at the backends, and what directories do.
func hints(c *configs.Config) []string {
	var all []string
	for _, l := range c.Listeners {
		if hint := l.Hint(); hint != "" {
			all = append(all, hint)
		}
	}
	if hint := c.Weakforced.Serve.Hint(); hint != "" {
		all = append(all, hint)
	}
	for _, b := range c.Backends {
		all = append(all, b.Hints()...)
	}
	for _, d := range c.Directories {
		all = append(all, d.Hints()...)
	}
	return all
}
