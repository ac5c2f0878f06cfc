package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/popgate/popgate/auth/files"
)

// Client speaks to Redis. Its methods may be called at once. Close it when nothing uses it any more.
type Client struct {
	redis  redis.UniversalClient
	config Config
	outage outage
}

// New makes a client of a valid Config. It reads the files that c names, so that a missing one is found at the start, and
// connects to nothing: a Redis that is down shows when it is asked.
func New(c Config) (*Client, error) {
	hushOnce()
	o := &redis.UniversalOptions{
		Addrs: c.Addresses, DB: c.Database, MasterName: c.Master, IsClusterMode: c.Mode == ModeCluster,
		// By default the library ignores contexts and tries again on its own: 300 ms become 5 s.
		ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1,
		DialTimeout: c.ConnectTimeout, ReadTimeout: c.Timeout, WriteTimeout: c.Timeout, PoolTimeout: c.Timeout,
		DisableIdentity: true, PipelinePoolSize: -1,
		// Private keys and tickets pass through here, ten a minute: room for a thousand would be room for nothing.
		PoolSize: 10, ReadBufferSize: 16 << 10, WriteBufferSize: 16 << 10,
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
	var err error
	if o.TLSConfig, err = c.tls(); err != nil {
		return nil, err
	}
	return &Client{redis: redis.NewUniversalClient(o), config: c}, nil
}

func (c Config) tls() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	if err := files.TLS(t, c.TLSCA, c.TLSCert, c.TLSKey); err != nil {
		return nil, err
	}
	return t, nil
}

// Key names what part keeps under name. All keys of one part stay together in a Redis Cluster, so that one script can touch them.
func (c *Client) Key(part, name string) string {
	return "{" + c.config.Prefix + ":" + part + "}:" + name
}

// Do sends one command and gives its reply: a string, an int64, a []any, or nil where Redis knows of none.
func (c *Client) Do(ctx context.Context, args ...any) (any, error) {
	return c.result(ctx, func(ctx context.Context) (any, error) { return c.redis.Do(ctx, args...).Result() })
}

// Eval runs a Lua script, which sees keys as KEYS and args as ARGV, and gives its reply as Do does. The script is sent
// whole each time: what names scripts by their SHA-1 fails where FIPS 140 is enforced.
func (c *Client) Eval(ctx context.Context, script string, keys []string, args ...any) (any, error) {
	return c.result(ctx, func(ctx context.Context) (any, error) { return c.redis.Eval(ctx, script, keys, args...).Result() })
}

// Health tells whether Redis is there and takes writes where it keeps part. A replica, a server that is loading, or one whose disk
// is full does not.
func (c *Client) Health(ctx context.Context, part string) error {
	// Below the part's own tag: a Redis Cluster keeps other keys on other servers.
	_, err := c.Do(ctx, "SET", c.Key(part, "probe"), "1", "EX", 60)
	return err
}

func (c *Client) result(ctx context.Context, ask func(context.Context) (any, error)) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	v, err := ask(ctx)
	// Not errors.Is: what comes of Sentinels that do not know the master wraps it too.
	if err == redis.Nil {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	return v, nil
}

// Close ends all connections. Calls under way fail.
func (c *Client) Close() error { return c.redis.Close() }

// hushOnce keeps the library from writing to standard error in a format of its own: what fails is returned to whoever asked.
var hushOnce = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

// Printf does nothing.
func (silence) Printf(context.Context, string, ...any) {}
