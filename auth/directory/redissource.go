package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/files"
)

// redisTimeout is for what no lookup waits for, or no longer: each lookup has its own time.
const redisTimeout = 10 * time.Second

// A redisSource asks Redis.
type redisSource struct {
	config         RedisConfig
	client         redis.UniversalClient
	key, domainKey keyPattern
}

// newRedisClient makes a client, which connects to nothing: a Redis that is down shows when it is asked.
func newRedisClient(name string, c RedisConfig) (redis.UniversalClient, error) {
	redis.SetLogger(&logging.VoidLogger{}) // it would write to standard error; what fails is returned to who asked
	o := &redis.UniversalOptions{
		Addrs: c.Addresses, DB: c.Database, MasterName: c.Master, IsClusterMode: c.Mode == redisCluster,
		// By default the library ignores contexts and tries again on its own: 300 ms become 5 s.
		ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1,
		DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout, PoolTimeout: redisTimeout,
		DisableIdentity: true, PipelinePoolSize: -1,
		PoolSize: c.MaxConnections, MaxActiveConns: c.MaxConnections, ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if c.PasswordFile != "" {
		if _, err := files.Secret(c.PasswordFile); err != nil {
			return nil, fmt.Errorf("password_file: %w", err)
		}
		o.CredentialsProviderContext = func(context.Context) (string, string, error) {
			password, err := files.Secret(c.PasswordFile)
			return c.Username, password, err
		}
	}
	if c.SentinelPasswordFile != "" {
		var err error
		if o.SentinelPassword, err = files.Secret(c.SentinelPasswordFile); err != nil {
			return nil, fmt.Errorf("sentinel_password_file: %w", err)
		}
	}
	var t *tls.Config
	if c.TLS {
		t = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
		if err := files.TLS(t, c.TLSCA, c.TLSCert, c.TLSKey); err != nil {
			return nil, err
		}
	}
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialRedis(ctx, network, addr, t)
	}
	return redis.NewUniversalClient(o), nil
}

// dialRedis connects with a bound on what an answer may be, for the library believes any length that a server announces.
func dialRedis(ctx context.Context, network, addr string, t *tls.Config) (net.Conn, error) {
	if filepath.IsAbs(addr) {
		network = "unix"
	}
	c, err := dialBounded(ctx, network, addr)
	if err != nil || t == nil {
		return c, err
	}
	if t.ServerName == "" {
		t = t.Clone()
		if t.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			c.Close()
			return nil, err
		}
	}
	secure := tls.Client(c, t)
	if err := secure.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("TLS with %s: %w", addr, err)
	}
	return secure, nil
}

// keyOf is the key of the user of q.
func (r *redisSource) keyOf(q *auth.Query) string {
	return r.key.fill(func(name string) string {
		value := q.Name.Typed
		switch name {
		case "local":
			value = q.Name.Local
		case "domain":
			value = q.Name.Domain
		}
		if r.config.LowerCase {
			value = string(appendLowerAny(nil, value))
		}
		return value
	})
}

// Lookup reads the user's key.
func (r *redisSource) Lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	key := r.keyOf(q)
	answer, err := r.read(ctx, key)
	if errors.Is(err, errNoKey) {
		return Answer{}, fmt.Errorf("%w: there is no key %q", auth.ErrUnknownUser, key)
	}
	if err != nil {
		return Answer{}, fmt.Errorf("read the key %q: %w", key, redisError(err))
	}
	return answer, nil
}

// errNoKey means that Redis has answered, and has no such key. It is not redis.Nil: the library wraps that in the error of a
// Sentinel which knows no such master.
var errNoKey = errors.New("no such key")

// read reads a key.
func (r *redisSource) read(ctx context.Context, key string) (Answer, error) {
	if r.config.Type == redisJSON {
		text, err := r.client.Get(ctx, key).Bytes()
		if err == redis.Nil { // itself, and nothing that wraps it
			return Answer{}, errNoKey
		}
		if err != nil {
			return Answer{}, wrongType(err)
		}
		answer, err := jsonAnswer(text)
		return answer, asContent(err)
	}
	values, err := r.client.HGetAll(ctx, key).Result()
	if err != nil {
		return Answer{}, wrongType(err)
	}
	if len(values) == 0 { // there are no empty hashes
		return Answer{}, errNoKey
	}
	var f fields
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if hasControl(values[name]) {
			return Answer{}, asContent(fmt.Errorf("%q has a control byte", clip(name)))
		}
		if err := f.set(name, values[name]); err != nil {
			return Answer{}, asContent(err)
		}
	}
	answer, err := f.result()
	return answer, asContent(err)
}

// wrongType tells the error of a key that holds something else: a name can be the rest of another key, and anybody can type it.
func wrongType(err error) error {
	if redis.HasErrorPrefix(err, "WRONGTYPE") {
		return asContent(err)
	}
	return err
}

// redisError is err, if it cannot hold a piece of an answer: what the library cannot read it shows.
func redisError(err error) error {
	var content contentError
	var refusal redis.Error
	var network net.Error
	switch {
	case errors.As(err, &content):
		return err
	case errors.As(err, &refusal), errors.As(err, &network), errors.Is(err, errAnswerTooLong), errors.Is(err, io.EOF),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, redis.ErrPoolTimeout):
		return err
	}
	var t *tls.CertificateVerificationError
	if errors.As(err, &t) {
		return err
	}
	return errors.New("the server cannot be spoken with, or does not answer as Redis does")
}

// Close ends all connections.
func (r *redisSource) Close() error { return r.client.Close() }

// redisWithDomains is a source that has a key for each domain too.
type redisWithDomains struct{ *redisSource }

// KnowsDomain says whether the domain's key exists.
func (r redisWithDomains) KnowsDomain(ctx context.Context, domain string) (bool, error) {
	key := r.domainKey.fill(func(string) string { return domain })
	n, err := r.client.Exists(ctx, key).Result()
	if err != nil {
		return false, fmt.Errorf("look for the key %q: %w", key, redisError(err))
	}
	return n > 0, nil
}
