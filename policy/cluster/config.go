package cluster

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The values of Config.Mode.
const (
	ModeSingle   = "single"
	ModeSentinel = "sentinel"
	ModeCluster  = "cluster"
)

// Config says which Redis to speak to.
type Config struct {
	// The servers as `host:port`. With `mode: single` that is one, which may also be the path of a Unix socket. With
	// `sentinel` these are the Sentinels, with `cluster` some nodes of the cluster, which name the others.
	Addresses []string `yaml:"addresses"`
	// What the addresses are: `single` (one server), `sentinel` or `cluster`.
	Mode string `yaml:"mode"`
	// The name that the Sentinels know the master by.
	Master string `yaml:"master"`
	// The user of Redis' access lists. Empty is the user `default`.
	Username string `yaml:"username"`
	// A file with the password. It is read again for each new connection, so that the password can be changed without a restart.
	PasswordFile string `yaml:"password_file"`
	// A file with the password of the Sentinels themselves, where they ask for one.
	SentinelPasswordFile string `yaml:"sentinel_password_file"`
	// The number of the database. A Redis Cluster knows only 0.
	Database int `yaml:"database"`
	// Whether to speak TLS with the servers.
	TLS bool `yaml:"tls"`
	// A PEM file with the certificates of the CA to believe. Empty are those that the system believes.
	TLSCA string `yaml:"tls_ca"`
	// The name that the servers' certificates must carry. Empty is the host of the address.
	TLSServerName string `yaml:"tls_server_name"`
	// A PEM file with the certificate to show to servers that ask for one, and its intermediates.
	TLSCert string `yaml:"tls_cert"`
	// The file with the private key of `tls_cert`.
	TLSKey string `yaml:"tls_key"`
	// How long connecting to a server may take.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// How long one command may take, connecting included.
	Timeout time.Duration `yaml:"timeout"`
	// What all keys begin with. Gateways with the same prefix on the same Redis belong together.
	Prefix string `yaml:"prefix"`
}

// DefaultConfig is what holds where the file says nothing.
func DefaultConfig() Config {
	return Config{Mode: ModeSingle, ConnectTimeout: time.Second, Timeout: 3 * time.Second, Prefix: "popgate"}
}

// Validate reports what is wrong with c by itself. It opens no file and asks for no name.
func (c Config) Validate(fault func(key, problem string)) {
	if !slices.Contains([]string{ModeSingle, ModeSentinel, ModeCluster}, c.Mode) {
		fault("mode", fmt.Sprintf("is %q; write single, sentinel or cluster", c.Mode))
	}
	c.validateAddresses(fault)
	if c.Master == "" && c.Mode == ModeSentinel {
		fault("master", "is missing; write the name that the Sentinels know the master by, often mymaster")
	}
	if c.Mode != ModeSentinel && (c.Master != "" || c.SentinelPasswordFile != "") {
		fault("mode", "is "+c.Mode+", and there are keys for Sentinels; write mode: sentinel, or remove master and sentinel_password_file")
	}
	if c.Database < 0 || c.Database != 0 && c.Mode == ModeCluster {
		fault("database", fmt.Sprintf("is %d; write the number of a database, which is 0 in a Redis Cluster", c.Database))
	}
	if c.Username != "" && c.PasswordFile == "" {
		fault("username", "has no password; write password_file beside it")
	}
	c.validateTimeouts(fault)
	// Braces mark what decides over the slot in a Redis Cluster, and we set them.
	if c.Prefix == "" || len(c.Prefix) > 64 || strings.ContainsAny(c.Prefix, "{} \t*?[]\\") {
		fault("prefix", fmt.Sprintf("is %q; write a word such as popgate, without blanks, braces and wildcards", c.Prefix))
	}
	c.validateTLS(fault)
}

func (c Config) validateTimeouts(fault func(key, problem string)) {
	if c.ConnectTimeout <= 0 {
		fault("connect_timeout", "is not above 0; write a duration such as 1s: a server that is silent must not hold up popgate")
	}
	if c.Timeout <= 0 {
		fault("timeout", "is not above 0; write a duration such as 3s: a server that is silent must not hold up popgate")
	}
}

func (c Config) validateAddresses(fault func(key, problem string)) {
	switch {
	case len(c.Addresses) == 0:
		fault("addresses", `is empty; write where Redis listens, such as ["127.0.0.1:6379"]`)
	case len(c.Addresses) > 1 && c.Mode == ModeSingle:
		fault("addresses", "has several entries; write mode: sentinel or mode: cluster beside it, or one address")
	}
	for i, a := range c.Addresses {
		if c.Mode == ModeSingle && filepath.IsAbs(a) {
			continue
		}
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			fault(fmt.Sprintf("addresses[%d]", i), fmt.Sprintf("is %q; write host:port, an IPv6 address in brackets", a))
		}
	}
}

func (c Config) validateTLS(fault func(key, problem string)) {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		fault("tls_cert", "and tls_key belong together; write both or neither")
	}
	if c.TLS {
		return
	}
	for key, value := range map[string]string{"tls_ca": c.TLSCA, "tls_server_name": c.TLSServerName, "tls_cert": c.TLSCert} {
		if value != "" {
			fault(key, "has no effect without TLS; write tls: true beside it")
		}
	}
}
