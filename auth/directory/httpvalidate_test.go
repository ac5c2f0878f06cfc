package directory

import (
	"strings"
	"testing"
)

// faultsOf are the keys that a section is wrong in.
func faultsOf(v validator) string {
	var keys []string
	v.validate(func(key, problem string) {
		if problem == "" {
			key += " without a word"
		}
		keys = append(keys, key)
	})
	return strings.Join(keys, " ")
}

func TestHTTPValidate(t *testing.T) {
	for _, tt := range []struct {
		change func(c *HTTPConfig)
		want   string
	}{
		{func(c *HTTPConfig) {}, ""},
		{func(c *HTTPConfig) { c.URL = "" }, "url"},
		{func(c *HTTPConfig) { c.URL = "127.0.0.1:9000/auth" }, "url"},
		{func(c *HTTPConfig) { c.URL = "ftp://127.0.0.1/" }, "url"},
		{func(c *HTTPConfig) { c.URL = "http://user:pass@127.0.0.1/" }, "url"},
		{func(c *HTTPConfig) { c.URL = "http://127.0.0.1/#x" }, "url"},
		{func(c *HTTPConfig) { c.URL = "http://127.0.0.1/\r\nX: y" }, "url"},
		{func(c *HTTPConfig) { c.URL = "unix:run/auth.sock:/" }, "url"},
		{func(c *HTTPConfig) { c.URL = "unix:/run/auth.sock:/auth" }, ""},
		{func(c *HTTPConfig) { c.URL = "unix:/run/auth.sock" }, ""},
		// Passwords go in the clear to this machine alone, unless that is said.
		{func(c *HTTPConfig) { c.URL = "http://auth.example.org/" }, "url"},
		{func(c *HTTPConfig) { c.URL = "http://10.0.0.1/" }, "url"},
		{func(c *HTTPConfig) { c.URL = "http://localhost.example.org/" }, "url"},
		{func(c *HTTPConfig) { c.URL, c.Format = "http://10.0.0.1/", formatJSON }, "url"},
		{func(c *HTTPConfig) { c.URL, c.Insecure = "http://10.0.0.1/", true }, ""},
		{func(c *HTTPConfig) { c.URL = "http://[::1]:9000/" }, ""},
		{func(c *HTTPConfig) { c.URL = "http://127.8.9.10/" }, ""},
		{func(c *HTTPConfig) { c.URL = "http://[::ffff:127.0.0.1]/" }, ""},
		{func(c *HTTPConfig) { c.URL = "http://localhost/" }, ""},
		{func(c *HTTPConfig) { c.URL = "https://auth.example.org" }, ""},
		{func(c *HTTPConfig) { c.Format = "xml" }, "format"},
		{func(c *HTTPConfig) { c.SendPassword = true }, "send_password"},
		{func(c *HTTPConfig) { c.Format, c.HostNames = formatJSON, true }, "host_names"},
		{func(c *HTTPConfig) { c.TLSCA = "x" }, "tls_ca"},
		{func(c *HTTPConfig) { c.TLSCert = "x" }, "tls_cert tls_cert"},
		{func(c *HTTPConfig) { c.URL, c.TLSKey = "https://x/", "x" }, "tls_cert"},
		{func(c *HTTPConfig) {
			c.Headers = []HTTPHeader{{Name: "X-Key", Value: "v"}, {Name: "X-Key", ValueFile: "f"}}
		}, ""},
		{func(c *HTTPConfig) {
			c.Headers = []HTTPHeader{{Name: "X Key", Value: "v"}, {Name: "X:", Value: "v"}, {Value: "v"}}
		}, "headers[0].name headers[1].name headers[2].name"},
		{func(c *HTTPConfig) {
			c.Headers = []HTTPHeader{{Name: "auth-user", Value: "v"}, {Name: "HOST", Value: "v"}}
		}, "headers[0].name headers[1].name"},
		{func(c *HTTPConfig) {
			c.Headers = []HTTPHeader{{Name: "X"}, {Name: "X", Value: "v", ValueFile: "f"}, {Name: "X", Value: "a\r\nb"}}
		}, "headers[0].value headers[1].value headers[2].value"},
	} {
		c := defaultHTTP()
		c.URL = "http://127.0.0.1:9000/auth"
		tt.change(&c)
		if got := faultsOf(c); got != tt.want {
			t.Errorf("%+v: %q, want %q", c, got, tt.want)
		}
	}
}

func TestRedisValidate(t *testing.T) {
	for _, tt := range []struct {
		change func(c *RedisConfig)
		want   string
	}{
		{func(c *RedisConfig) {}, ""},
		{func(c *RedisConfig) { c.Addresses = nil }, "addresses"},
		{func(c *RedisConfig) { c.Addresses = []string{"redis"} }, "addresses[0]"},
		{func(c *RedisConfig) { c.Addresses = []string{"/run/redis.sock"} }, ""},
		{func(c *RedisConfig) { c.Addresses, c.Mode = []string{"/run/redis.sock"}, redisCluster }, "addresses[0]"},
		{func(c *RedisConfig) { c.Addresses = []string{"a:1", "b:1"} }, "addresses"},
		{func(c *RedisConfig) { c.Addresses, c.Mode = []string{"a:1", "b:1"}, redisCluster }, ""},
		{func(c *RedisConfig) { c.Mode = "ring" }, "mode"},
		{func(c *RedisConfig) { c.Mode = redisSentinel }, "master"},
		{func(c *RedisConfig) { c.Master = "m" }, "mode"},
		{func(c *RedisConfig) { c.Type = "list" }, "type"},
		{func(c *RedisConfig) { c.Key = "" }, "key"},
		{func(c *RedisConfig) { c.DomainKey = "d:{user}" }, "domain_key"},
		{func(c *RedisConfig) { c.DomainKey = "d:{domain}" }, ""},
		{func(c *RedisConfig) { c.Database = -1 }, "database"},
		{func(c *RedisConfig) { c.Database, c.Mode = 1, redisCluster }, "database"},
		{func(c *RedisConfig) { c.Username = "u" }, "username"},
		{func(c *RedisConfig) { c.MaxConnections = 0 }, "max_connections"},
		{func(c *RedisConfig) { c.TLSCA = "x" }, "tls_ca"},
		{func(c *RedisConfig) { c.TLS, c.TLSCert = true, "x" }, "tls_cert"},
	} {
		c := defaultRedis()
		c.Addresses = []string{"127.0.0.1:6379"}
		tt.change(&c)
		if got := faultsOf(c); got != tt.want {
			t.Errorf("%+v: %q, want %q", c, got, tt.want)
		}
	}
}
