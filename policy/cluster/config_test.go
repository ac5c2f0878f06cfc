package cluster

import (
	"slices"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string // the keys at fault
	}{
		{"one server", func(*Config) {}, nil},
		{"a socket", func(c *Config) { c.Addresses = []string{"/run/redis/redis.sock"} }, nil},
		{"IPv6", func(c *Config) { c.Addresses = []string{"[::1]:6379"} }, nil},
		{"sentinel", func(c *Config) {
			c.Mode, c.Master, c.Addresses = ModeSentinel, "mymaster", []string{"a:26379", "b:26379"}
		}, nil},
		{"cluster", func(c *Config) { c.Mode, c.Addresses = ModeCluster, []string{"a:6379", "b:6379"} }, nil},
		{"TLS", func(c *Config) { c.TLS, c.TLSCA, c.TLSCert, c.TLSKey = true, "ca", "cert", "key" }, nil},
		{"no address", func(c *Config) { c.Addresses = nil }, []string{"addresses"}},
		{"no port", func(c *Config) { c.Addresses = []string{"redis.example.org"} }, []string{"addresses[0]"}},
		{"no host", func(c *Config) { c.Addresses = []string{":6379"} }, []string{"addresses[0]"}},
		{"two of single", func(c *Config) { c.Addresses = []string{"a:1", "b:1"} }, []string{"addresses"}},
		{"a socket of a cluster", func(c *Config) { c.Mode, c.Addresses = ModeCluster, []string{"/run/s"} }, []string{"addresses[0]"}},
		{"mode", func(c *Config) { c.Mode = "replica" }, []string{"mode"}},
		{"no master", func(c *Config) { c.Mode = ModeSentinel }, []string{"master"}},
		{"master of single", func(c *Config) { c.Master = "mymaster" }, []string{"mode"}},
		{"database of a cluster", func(c *Config) { c.Mode, c.Database = ModeCluster, 1 }, []string{"database"}},
		{"database", func(c *Config) { c.Database = -1 }, []string{"database"}},
		{"user without password", func(c *Config) { c.Username = "popgate" }, []string{"username"}},
		{"no timeouts", func(c *Config) { c.ConnectTimeout, c.Timeout = 0, -time.Second }, []string{"connect_timeout", "timeout"}},
		{"prefix", func(c *Config) { c.Prefix = "{x}" }, []string{"prefix"}},
		{"no prefix", func(c *Config) { c.Prefix = "" }, []string{"prefix"}},
		{"half a pair", func(c *Config) { c.TLS, c.TLSCert = true, "cert" }, []string{"tls_cert"}},
		{"CA without TLS", func(c *Config) { c.TLSCA = "ca" }, []string{"tls_ca"}},
	} {
		c := DefaultConfig()
		c.Addresses = []string{"127.0.0.1:6379"}
		tt.change(&c)
		var got []string
		c.Validate(func(key, _ string) { got = append(got, key) })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
