package wforce

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	good := func() Config {
		c := DefaultConfig()
		c.URL, c.NonceFile = "http://127.0.0.1:8084/", "/nonce"
		return c
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		key    string
		want   string
	}{
		{"good", func(*Config) {}, "", ""},
		{"off", func(c *Config) { *c = Config{} }, "", ""},
		{"IPv6", func(c *Config) { c.URL = "http://[::1]:8084" }, "", ""},
		{"declared", func(c *Config) { c.URL, c.Insecure = "http://wforce.example.org/", true }, "", ""},
		{"query", func(c *Config) { c.URL, c.Form = "https://wforce.example.org/?a=b&", FormQuery }, "", ""},
		{"no URL", func(c *Config) { c.URL = "127.0.0.1:8084" }, "url", "is no URL"},
		{"another scheme", func(c *Config) { c.URL = "ftp://127.0.0.1/" }, "url", "is no URL"},
		{"user", func(c *Config) { c.URL = "http://u:p@127.0.0.1/" }, "url", "password_file"},
		{"fragment", func(c *Config) { c.URL = "http://127.0.0.1/#a" }, "url", "#"},
		{"question mark", func(c *Config) { c.URL = "http://127.0.0.1/?" }, "url", "form: query"},
		{"network", func(c *Config) { c.URL = "http://192.0.2.1/" }, "url", "insecure: true"},
		{"form", func(c *Config) { c.Form = "old" }, "form", "path or query"},
		{"two secrets", func(c *Config) { c.PasswordFile, c.APIKeyFile = "/a", "/b" }, "api_key_file", "one of the two"},
		{"header", func(c *Config) { c.APIKeyFile, c.APIKeyHeader = "/b", "X Key" }, "api_key_header", "no name of a header"},
		{"nonce", func(c *Config) { c.NonceFile = "" }, "nonce_file", "is missing"},
		{"no bits", func(c *Config) { c.HashTruncate = 0 }, "hash_truncate", "1 to 32"},
		{"all bits", func(c *Config) { c.HashTruncate = 256 }, "hash_truncate", "1 to 32"},
		{"no time", func(c *Config) { c.Timeout = 0 }, "timeout", "such as 2s"},
		{"long time", func(c *Config) { c.Timeout = time.Minute }, "timeout", "such as 2s"},
		{"on failure", func(c *Config) { c.OnFailure = "" }, "on_failure", "allow or refuse"},
		{"wait", func(c *Config) { c.MaxWait = -1 }, "max_wait", "such as 5s"},
		{"pair", func(c *Config) { c.URL, c.TLSCert = "https://127.0.0.1/", "/c" }, "tls_cert", "belong together"},
		{"no TLS", func(c *Config) { c.TLSCA = "/ca" }, "tls_ca", "no effect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := good()
			tt.change(&c)
			faults := map[string]string{}
			c.Validate(func(key, problem string) { faults[key] = problem })
			if tt.key == "" && len(faults) != 0 || tt.key != "" && (len(faults) != 1 || !strings.Contains(faults[tt.key], tt.want)) {
				t.Errorf("got %q, want %q with %q", faults, tt.key, tt.want)
			}
		})
	}
}

func TestValidateServer(t *testing.T) {
	for _, tt := range []struct {
		c   ServerConfig
		key string
	}{
		{ServerConfig{Address: "127.0.0.1:8084", PasswordFile: "/a"}, ""},
		{ServerConfig{Address: "127.0.0.1:8084", APIKeyFile: "/a", APIKeyHeader: "X-API-Key"}, ""},
		{ServerConfig{Address: "127.0.0.1:8084", APIKeyHeader: "X-API-Key"}, "password_file"},
		{ServerConfig{Address: "localhost:8084", PasswordFile: "/a"}, "address"},
		{DefaultServerConfig(), ""},
		{ServerConfig{Address: "127.0.0.1:8084", APIKeyFile: "/a"}, "api_key_header"},
	} {
		got := ""
		tt.c.Validate(func(key, _ string) { got += key })
		if got != tt.key {
			t.Errorf("%+v: got a fault of %q, want %q", tt.c, got, tt.key)
		}
	}
}

func TestURL(t *testing.T) {
	for _, tt := range []struct {
		url  string
		form Form
		want string
	}{
		{"http://h:1", FormPath, "http://h:1/command/allow"},
		{"http://h:1/", FormPath, "http://h:1/command/allow"},
		{"http://h:1/a", FormPath, "http://h:1/a/command/allow"},
		{"http://h:1/", FormQuery, "http://h:1/?command=allow"},
		{"http://h:1/a?b=c&", FormQuery, "http://h:1/a?b=c&command=allow"},
	} {
		c := Config{URL: tt.url, Form: tt.form}
		if got := c.url(commandAllow); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.url, tt.form, got, tt.want)
		}
		if strings.Contains(c.where(), "?") {
			t.Errorf("%s: a log would have its query", tt.url)
		}
	}
}

// TestPrepareFiles: a file that is missing, empty or too much is found before anything changes, and its content is told
// to nobody.
func TestPrepareFiles(t *testing.T) {
	two := filepath.Join(t.TempDir(), "two")
	if err := os.WriteFile(two, []byte("top\nsecret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ok := secretFile(t, "x")
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"nonce", func(c *Config) { c.NonceFile = "/nowhere" }, "nonce_file"},
		{"empty", func(c *Config) { c.NonceFile = secretFile(t, "") }, "is empty"},
		{"password", func(c *Config) { c.PasswordFile = two }, "password_file"},
		{"key", func(c *Config) { c.APIKeyFile = two }, "more than one line"},
		{"ca", func(c *Config) { c.TLSCA = ok }, "no certificate"},
		{"ca is missing", func(c *Config) { c.TLSCA = "/nowhere" }, "tls_ca"},
		{"cert", func(c *Config) { c.TLSCert, c.TLSKey = ok, ok }, "tls_cert"},
	} {
		c := DefaultConfig()
		c.URL, c.NonceFile = "https://127.0.0.1/", ok
		tt.change(&c)
		_, err := New(nil, nil).Prepare(c)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret\n") {
			t.Errorf("%s: got %v, want one about %s", tt.name, err, tt.want)
		}
	}
}

// TestServerHint: who answers beyond this machine is reminded that there is no TLS.
func TestServerHint(t *testing.T) {
	for address, want := range map[string]bool{
		"": false, "127.0.0.1:8084": false, "[::1]:8084": false, ":8084": true, "0.0.0.0:8084": true, "192.0.2.1:8084": true,
	} {
		if hint := (ServerConfig{Address: address}).Hint(); strings.Contains(hint, "without TLS") != want {
			t.Errorf("%q: got %q, want a hint: %t", address, hint, want)
		}
	}
}
