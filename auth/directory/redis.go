package directory

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// The values of RedisConfig.Mode and RedisConfig.Type.
const (
	redisSingle   = "single"
	redisSentinel = "sentinel"
	redisCluster  = "cluster"

	redisHash = "hash"
	redisJSON = "json"
)

// RedisConfig is the section `redis` of a directory.
type RedisConfig struct {
	// The servers as `host:port`. With `mode: single` that is one, which may also be the path of a Unix socket. With
	// `sentinel` these are the Sentinels, with `cluster` some nodes of the cluster, which name the others.
	Addresses []string `yaml:"addresses"`
	// What the addresses are: `single` (one server), `sentinel` or `cluster`.
	Mode string `yaml:"mode"`
	// The name that the Sentinels know the master by.
	Master string `yaml:"master"`
	// The key that holds a user: text with {user} (the name as typed), {local} (the part before the domain) and {domain}.
	// Braces that a Redis Cluster is to see, to keep keys together, are written twice: "{{popgate}}:{user}".
	Key string `yaml:"key"`
	// What is at the key: a `hash`, whose fields are the answer, or a text with a `json` object. The fields are backend, server,
	// host, port, tls, user, password, master, hash, tenant, disabled, moving and allow_nets; others are an error.
	Type string `yaml:"type"`
	// A key that exists for each domain with users in it: text with {domain}. Certificates for customers' own names ask it.
	// Empty means that this directory knows no domains by themselves.
	DomainKey string `yaml:"domain_key"`
	// Put names into lower case for keys: users write theirs as they like.
	LowerCase bool `yaml:"lower_case"`
	// The user of Redis' access lists. Empty is the user `default`.
	Username string `yaml:"username"`
	// A file with the password. It is read again for each new connection, so that the password can be changed without a restart.
	PasswordFile string `yaml:"password_file"`
	// A file with the password of the Sentinels themselves, where they ask for one.
	SentinelPasswordFile string `yaml:"sentinel_password_file"`
	// The number of the database. A Redis Cluster knows only 0.
	Database int `yaml:"database"`
	// How many connections to a server there may be.
	MaxConnections int `yaml:"max_connections"`
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
}

// defaultRedis is what holds where the section says nothing.
func defaultRedis() RedisConfig {
	return RedisConfig{Mode: redisSingle, Type: redisHash, Key: "popgate:user:{user}", LowerCase: true, MaxConnections: 16}
}

// validate reports what is wrong with c by itself. It opens no file and asks nobody.
func (c RedisConfig) validate(fault func(key, problem string)) {
	if !slices.Contains([]string{redisSingle, redisSentinel, redisCluster}, c.Mode) {
		fault("mode", fmt.Sprintf("is %q; write single, sentinel or cluster", clip(c.Mode)))
	}
	c.validateAddresses(fault)
	if c.Type != redisHash && c.Type != redisJSON {
		fault("type", fmt.Sprintf("is %q; write hash or json", clip(c.Type)))
	}
	if _, err := parseKeyPattern(c.Key, "user", "local", "domain"); err != nil {
		fault("key", err.Error())
	}
	if c.DomainKey != "" {
		if _, err := parseKeyPattern(c.DomainKey, "domain"); err != nil {
			fault("domain_key", err.Error())
		}
	}
	if c.Database < 0 || c.Database != 0 && c.Mode == redisCluster {
		fault("database", fmt.Sprintf("is %d; write the number of a database, which is 0 in a Redis Cluster", c.Database))
	}
	if c.Username != "" && c.PasswordFile == "" {
		fault("username", "has no password; write password_file beside it")
	}
	if c.MaxConnections < 1 || c.MaxConnections > maxConnections {
		fault("max_connections", fmt.Sprintf("is %d; write a number from 1 to %d", c.MaxConnections, maxConnections))
	}
	c.validateTLS(fault)
}

func (c RedisConfig) validateAddresses(fault func(key, problem string)) {
	switch {
	case len(c.Addresses) == 0:
		fault("addresses", `is empty; write where Redis listens, such as ["127.0.0.1:6379"]`)
	case len(c.Addresses) > 1 && c.Mode == redisSingle:
		fault("addresses", "has several entries; write mode: sentinel or mode: cluster beside it, or one address")
	}
	for i, a := range c.Addresses {
		if c.Mode == redisSingle && filepath.IsAbs(a) {
			continue
		}
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			fault(fmt.Sprintf("addresses[%d]", i), fmt.Sprintf("is %q; write host:port, an IPv6 address in brackets", clip(a)))
		}
	}
	if c.Master == "" && c.Mode == redisSentinel {
		fault("master", "is missing; write the name that the Sentinels know the master by, often mymaster")
	}
	if c.Mode != redisSentinel && (c.Master != "" || c.SentinelPasswordFile != "") {
		fault("mode", "is "+clip(c.Mode)+", and there are keys for Sentinels; write mode: sentinel, or remove master and sentinel_password_file")
	}
}

func (c RedisConfig) validateTLS(fault func(key, problem string)) {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		fault("tls_cert", "and tls_key belong together; write both or neither")
	}
	if c.TLS {
		return
	}
	for _, f := range []struct{ key, value string }{{"tls_ca", c.TLSCA}, {"tls_server_name", c.TLSServerName}, {"tls_cert", c.TLSCert}} {
		if f.value != "" {
			fault(f.key, "has no effect without TLS; write tls: true beside it")
		}
	}
}

// A keyPattern is text with the names of a user's parts in it: literal, name, literal, name, …, literal.
type keyPattern []string

// maxPattern bounds what is written of a key.
const maxPattern = 512

// parseKeyPattern reads a pattern that has at least one of names.
func parseKeyPattern(text string, names ...string) (keyPattern, error) {
	written := "{" + strings.Join(names, "}, {") + "}"
	p := keyPattern{""}
	for rest := text; rest != ""; {
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			i = len(rest)
		}
		p[len(p)-1] += rest[:i]
		if rest = rest[i:]; rest == "" {
			break
		}
		if strings.HasPrefix(rest, "{{") || strings.HasPrefix(rest, "}}") {
			p[len(p)-1] += rest[:1]
			rest = rest[2:]
			continue
		}
		name, behind, ok := strings.Cut(rest[1:], "}")
		if !ok || rest[0] == '}' || !slices.Contains(names, name) {
			return nil, fmt.Errorf("has a brace that belongs to none of %s; a brace of the key itself is written twice", written)
		}
		p = append(p, name, "")
		rest = behind
	}
	switch {
	case len(text) > maxPattern:
		return nil, fmt.Errorf("has %d bytes, and more than %d are not taken", len(text), maxPattern)
	case len(p) == 1:
		return nil, fmt.Errorf("has no name in it; write one of %s", written)
	}
	return p, nil
}

// fill puts the names in. A key is an argument of its own on the wire, so that no name can be more than a name.
func (p keyPattern) fill(value func(name string) string) string {
	var b strings.Builder
	for i, s := range p {
		if i%2 == 1 {
			s = value(s)
		}
		b.WriteString(s)
	}
	return b.String()
}

// newRedis makes the source of a section. It reads the files that the section names, and connects to nothing yet.
func newRedis(name string, c RedisConfig, _ *slog.Logger) (Opened, error) {
	r := &redisSource{config: c}
	var err error
	if r.key, err = parseKeyPattern(c.Key, "user", "local", "domain"); err != nil {
		return Opened{}, fmt.Errorf("key %w", err)
	}
	if c.DomainKey != "" {
		if r.domainKey, err = parseKeyPattern(c.DomainKey, "domain"); err != nil {
			return Opened{}, fmt.Errorf("domain_key %w", err)
		}
	}
	if r.client, err = newRedisClient(name, c); err != nil {
		return Opened{}, err
	}
	o := Opened{Source: r, Vary: VaryUser}
	if c.DomainKey != "" {
		o.Source = redisWithDomains{r}
	}
	return o, nil
}
