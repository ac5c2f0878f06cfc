package storage

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/popgate/popgate/policy/cluster"
)

// The values of Config.Type, and the one word of Config.Encryption.
const (
	TypeFile     = "file"
	TypeRedis    = "redis"
	TypePostgres = "postgres"

	EncryptionNone = "none"
)

// Config says where certificates, their keys, and the accounts with their issuers are kept.
type Config struct {
	// Where to keep them: `file` (the folder `acme` in state_dir), or `redis` or `postgres`, which several gateways can share.
	Type string `yaml:"type"`
	// The Redis for `type: redis`. It must not evict keys (`maxmemory-policy noeviction`) and should write to disk.
	Redis cluster.Config `yaml:"redis"`
	// The database for `type: postgres`.
	Postgres Postgres `yaml:"postgres"`
	// Files with the keys that what is kept is encrypted with, as `openssl rand -base64 32` makes them. Only popgate may read
	// them (`chmod 600`). The first one encrypts, all of them decrypt. To change the key add a new file behind the old one, on
	// all gateways; then put it first, on all; and remove the old one when the log says that nothing needs it any more. Shared
	// storage wants a key; with `type: file` it is up to you. Without these files nothing in the storage can be read again: have a copy.
	EncryptionKeyFiles []string `yaml:"encryption_key_files"`
	// Write `none` to have private keys unencrypted in a shared storage. Session tickets are not shared then.
	Encryption string `yaml:"encryption"`
	// Whether unencrypted records are read although there is a key. They are encrypted in the course of that; the log says when
	// all are. This is for the change from `encryption: none`, and to be removed after it.
	AcceptPlaintext bool `yaml:"accept_plaintext"`
	// Whether each gateway keeps a copy of the certificates it uses in state_dir, to start with when the shared storage is down.
	LocalCopy bool `yaml:"local_copy"`
}

// Postgres says which database to speak to.
type Postgres struct {
	// Host, user and database, as libpq takes them: `postgres://popgate@db.example.org/popgate?sslmode=verify-full`, or
	// `host=db.example.org user=popgate dbname=popgate sslmode=verify-full`. Several hosts and Unix sockets are possible. No password here.
	Connection string `yaml:"connection"`
	// A file with the password. It is read again for each new connection, so that the password can be changed without a restart.
	PasswordFile string `yaml:"password_file"`
	// The schema for popgate's tables, `certificates` and `locks`. Both are made if they are missing.
	Schema string `yaml:"schema"`
	// The most connections that are open at once.
	Connections int `yaml:"connections"`
	// How long connecting to a host may take.
	ConnectTimeout time.Duration `yaml:"connect_timeout"`
	// How long one request may take, connecting included.
	Timeout time.Duration `yaml:"timeout"`
}

// DefaultConfig is what holds where the file says nothing: files, unencrypted, which only popgate's user can read.
func DefaultConfig() Config {
	return Config{
		Type: TypeFile, Redis: cluster.DefaultConfig(), LocalCopy: true,
		Postgres: Postgres{Schema: "popgate", Connections: 4, ConnectTimeout: 2 * time.Second, Timeout: 3 * time.Second},
	}
}

// Shared says whether other gateways can see what is stored.
func (c Config) Shared() bool { return c.Type != TypeFile }

// Validate reports what is wrong with c by itself. It opens no file and asks for no name.
func (c Config) Validate(fault func(key, problem string)) {
	switch c.Type {
	case TypeFile:
	case TypeRedis:
		c.Redis.Validate(func(key, problem string) { fault("redis."+key, problem) })
	case TypePostgres:
		c.Postgres.Validate(func(key, problem string) { fault("postgres."+key, problem) })
	default:
		fault("type", fmt.Sprintf("is %q; write file, redis or postgres", c.Type))
	}
	if c.Type != TypeRedis && len(c.Redis.Addresses) > 0 {
		fault("redis", "has no effect with type: "+c.Type+"; write type: redis, or remove it")
	}
	if c.Type != TypePostgres && c.Postgres.Connection != "" {
		fault("postgres", "has no effect with type: "+c.Type+"; write type: postgres, or remove it")
	}
	c.validateEncryption(fault)
}

func (c Config) validateEncryption(fault func(key, problem string)) {
	keys := len(c.EncryptionKeyFiles) > 0
	switch {
	case c.Encryption != "" && c.Encryption != EncryptionNone:
		fault("encryption", fmt.Sprintf("is %q; write none, or remove the key and write encryption_key_files", c.Encryption))
	case c.Encryption == EncryptionNone && keys:
		fault("encryption", "is none, and there are encryption_key_files; remove one of them")
	case c.Shared() && c.Encryption == "" && !keys:
		fault("encryption_key_files", "is missing, and private keys would lie open in a shared storage; make a key with "+
			"`openssl rand -base64 32`, put the same file on each gateway and write it here. Or write encryption: none, if that is what you want")
	}
	if c.AcceptPlaintext && !keys {
		fault("accept_plaintext", "has no effect without encryption_key_files")
	}
	seen := map[string]bool{}
	for i, f := range c.EncryptionKeyFiles {
		if f == "" || seen[f] {
			fault(fmt.Sprintf("encryption_key_files[%d]", i), "is empty or there twice; remove it")
		}
		seen[f] = true
	}
}

var (
	schemaName  = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}$`)
	passwordKey = regexp.MustCompile(`(?i)(^|\s)password\s*=`)
)

// Validate reports what is wrong with p by itself. It opens no file and asks for no name.
func (p Postgres) Validate(fault func(key, problem string)) {
	if p.Connection == "" {
		fault("connection", "is missing; write where the database is, such as postgres://popgate@db.example.org/popgate?sslmode=verify-full")
	}
	if hasPassword(p.Connection) {
		fault("connection", "holds a password; put that into a file of its own and write password_file")
	}
	if !schemaName.MatchString(p.Schema) {
		fault("schema", fmt.Sprintf("is %q; write a word such as popgate, of small letters, digits and _", p.Schema))
	}
	if p.Connections < 1 || p.Connections > 1000 {
		fault("connections", fmt.Sprintf("is %d; write a number from 1 to 1000", p.Connections))
	}
	if p.ConnectTimeout <= 0 {
		fault("connect_timeout", "is not above 0; write a duration such as 2s: a server that is silent must not hold up popgate")
	}
	if p.Timeout <= 0 {
		fault("timeout", "is not above 0; write a duration such as 3s: a server that is silent must not hold up popgate")
	}
}

func hasPassword(connection string) bool {
	if !strings.HasPrefix(connection, "postgres://") && !strings.HasPrefix(connection, "postgresql://") {
		return passwordKey.MatchString(connection)
	}
	u, err := url.Parse(connection)
	if err != nil {
		return false // pgx will say what is wrong with it
	}
	_, set := u.User.Password()
	return set || u.Query().Has("password")
}
