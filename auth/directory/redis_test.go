//go:build unix

package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/peers"
)

// openRedis makes the source of a valid section.
func openRedis(t *testing.T, c RedisConfig) Opened {
	t.Helper()
	c.validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	o, err := newRedis("users", c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

// redisClient gives the client of a section, to fill the server with; it is what the source itself uses.
func redisClient(t *testing.T, c RedisConfig) redis.UniversalClient {
	t.Helper()
	client, err := newRedisClient("users", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// pings is a server's being up, as c sees it.
func pings(t *testing.T, c RedisConfig) func() error {
	client := redisClient(t, c)
	return func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return client.Ping(ctx).Err()
	}
}

// redisKnows fills a Redis with users and holds the source to it.
func redisKnows(t *testing.T, c RedisConfig) {
	t.Helper()
	ctx := t.Context()
	client := redisClient(t, c)
	for i := range 20 { // so many that a cluster has them on each of its nodes
		user := fmt.Sprintf("user%d@example.org", i)
		if err := client.HSet(ctx, "popgate:user:"+user, "backend", "new", "user", user, "password", " p w ", "disabled", i%2).Err(); err != nil {
			t.Fatal(err)
		}
	}
	o := openRedis(t, c)
	for i := range 20 {
		user := fmt.Sprintf("user%d@example.org", i)
		got, err := o.Lookup(ctx, asks(t, strings.ToUpper(user[:1])+user[1:], ""))
		want := Answer{Backend: "new", User: user, Secret: " p w ", Disabled: i%2 == 1}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || got.Secret != want.Secret {
			t.Errorf("Lookup(%s) = %v, %v, want %v", user, got, err, want)
		}
	}
	if _, err := o.Lookup(ctx, asks(t, "nobody@example.org", "")); !errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("an unknown user: %v", err)
	}
}

// freshRedis is a section for a server of its own, with a password and a user with few rights, on a Unix socket.
func freshRedis(t *testing.T) (RedisConfig, *peers.Daemon) {
	t.Helper()
	dir := peers.Dir(t)
	c := defaultRedis()
	c.Addresses = []string{filepath.Join(dir, "s")}
	c.PasswordFile = writeText(t, filepath.Join(dir, "password"), "first\n")
	return c, peers.Redis(t, "", pings(t, c), "port 0", "unixsocket "+c.Addresses[0], "requirepass first",
		"user reader on >secret ~popgate:user:* ~popgate:domain:* +hgetall +get +exists")
}

func TestRedisSingle(t *testing.T) {
	c, _ := freshRedis(t)
	redisKnows(t, c)
	ctx := t.Context()
	client := redisClient(t, c)

	// Reading is all that popgate's user has to be allowed.
	small := c
	small.Username, small.PasswordFile = "reader", writeText(t, filepath.Join(t.TempDir(), "p"), "secret")
	small.DomainKey = "popgate:domain:{domain}"
	if err := client.Set(ctx, "popgate:domain:example.org", "", 0).Err(); err != nil {
		t.Fatal(err)
	}
	o := openRedis(t, small)
	if _, err := o.Lookup(ctx, asks(t, "user1@example.org", "")); err != nil {
		t.Error(err)
	}
	for domain, want := range map[string]bool{"example.org": true, "example.com": false} {
		if got, err := o.Source.(DomainKnower).KnowsDomain(ctx, domain); got != want || err != nil {
			t.Errorf("KnowsDomain(%s) = %v, %v", domain, got, err)
		}
	}
	if _, ok := openRedis(t, c).Source.(DomainKnower); ok {
		t.Error("a source without domain_key says that it knows domains")
	}
	small.Key = "other:{user}"
	if _, err := openRedis(t, small).Lookup(ctx, asks(t, "user1@example.org", "")); err == nil || errors.Is(err, auth.ErrUnknownUser) || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("a key that may not be read: %v", err)
	}
	small = c
	small.PasswordFile = writeText(t, filepath.Join(t.TempDir(), "p"), "wr0ng")
	if _, err := openRedis(t, small).Lookup(ctx, asks(t, "user1@example.org", "")); err == nil || errors.Is(err, auth.ErrUnknownUser) || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("a wrong password: %v", err)
	}
}

// TestRedisContent has keys that hold something else than an answer.
func TestRedisContent(t *testing.T) {
	c, _ := freshRedis(t)
	ctx := t.Context()
	client := redisClient(t, c)
	hash, text := openRedis(t, c), c
	text.Type, text.Key = redisJSON, "popgate:json:{{{local}}}:{domain}"
	json := openRedis(t, text)
	for user, set := range map[string]func(key string) error{
		"list": func(key string) error { return client.RPush(ctx, key, "x").Err() },
		"typo": func(key string) error { return client.HSet(ctx, key, "bakend", "new").Err() },
		"control": func(key string) error {
			return client.HSet(ctx, key, "user", "a\r\nDELE 1", "password", "geheim\x00").Err()
		},
		"both": func(key string) error { return client.HSet(ctx, key, "server", "10.0.0.1", "host", "10.0.0.2").Err() },
		"long": func(key string) error { return client.HSet(ctx, key, "password", strings.Repeat("geheim", 2000)).Err() },
		"endless": func(key string) error {
			return client.HSet(ctx, key, "password", strings.Repeat("geheim", 1<<20)).Err()
		},
	} {
		if err := set("popgate:user:" + user + "@example.org"); err != nil {
			t.Fatal(err)
		}
		_, err := hash.Lookup(ctx, asks(t, user+"@example.org", ""))
		if err == nil || errors.Is(err, auth.ErrUnknownUser) || !strings.Contains(err.Error(), user+"@example.org") || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v", user, err)
		}
		if errors.As(err, new(contentError)) == (user == "endless") {
			t.Errorf("%s: whose fault is %v", user, err)
		}
	}
	if err := client.HSet(ctx, "popgate:user:alice@example.org", "backend", "new").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := hash.Lookup(ctx, asks(t, "alice@example.org", "")); err != nil {
		t.Errorf("after all that: %v", err)
	}

	if err := client.Set(ctx, "popgate:json:{alice}:example.org", `{"backend":"new","moving":true,"verified":true}`, 0).Err(); err != nil {
		t.Fatal(err)
	}
	got, err := json.Lookup(ctx, asks(t, "alice@example.org", ""))
	if err != nil || got.Backend != "new" || !got.Moving {
		t.Errorf("Lookup = %v, %v", got, err)
	}
	if err := client.Set(ctx, "popgate:json:{bob}:example.org", `{"password":"geheim`, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := json.Lookup(ctx, asks(t, "bob@example.org", "")); err == nil || !strings.Contains(err.Error(), "not one JSON object") {
		t.Errorf("Lookup = %v", err)
	}
	// A name that looks like a pattern, a command or another key is a name.
	for _, user := range []string{"*@example.org", "*\"}", "}:{alice", "popgate:user:alice"} {
		if _, err := hash.Lookup(ctx, asks(t, user, "")); !errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%q: %v", user, err)
		}
	}
}

// TestRedisNames shows which key a name has.
func TestRedisNames(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		keep    bool // the case
		user    string
		want    string
	}{
		{"popgate:user:{user}", false, "Alice@Example.org", "popgate:user:alice@example.org"},
		{"popgate:user:{user}", true, "Alice@Example.ORG", "popgate:user:Alice@Example.ORG"},
		{"{local}/{domain}", true, "Alice+x@Example.ORG", "Alice+x/example.org"},
		{"{{popgate}}:{user}", false, "alice", "{popgate}:alice"},
		{"{{{domain}}}:{local}", false, "alice@example.org", "{example.org}:alice"},
		{"{user}", false, "J\xd6RG", "j\xd6rg"},
		{"{user}", false, "J\u00d6RG", "j\u00f6rg"},
	} {
		p, err := parseKeyPattern(tt.pattern, "user", "local", "domain")
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		r := &redisSource{config: RedisConfig{LowerCase: !tt.keep}, key: p}
		if got := r.keyOf(asks(t, tt.user, "")); got != tt.want {
			t.Errorf("%q of %q is %q, want %q", tt.pattern, tt.user, got, tt.want)
		}
	}
	for _, bad := range []string{"", "popgate", "{", "}", "{user", "user}", "{users}", "{}", "{{user}}", "{User}", "{user}{", "{user}" + strings.Repeat("x", maxPattern)} {
		if p, err := parseKeyPattern(bad, "user", "local", "domain"); err == nil {
			t.Errorf("%.20q: %q", bad, p)
		}
	}
}

func TestRedisTLS(t *testing.T) {
	caFile, server, client, _ := newCertificates(t)
	cert, key := writePair(t, server)
	port := peers.Port(t)
	c := defaultRedis()
	c.Addresses = []string{"127.0.0.1:" + port}
	c.TLS, c.TLSCA = true, caFile
	c.TLSCert, c.TLSKey = writePair(t, client)
	peers.Redis(t, "", pings(t, c), "port 0", "tls-port "+port, "tls-cert-file "+cert, "tls-key-file "+key, "tls-ca-cert-file "+caFile, "tls-auth-clients yes")
	redisKnows(t, c)
	for name, change := range map[string]func(c *RedisConfig){
		"the system's CAs": func(c *RedisConfig) { c.TLSCA = "" },
		"another name":     func(c *RedisConfig) { c.TLSServerName = "elsewhere.example" },
		"no certificate":   func(c *RedisConfig) { c.TLSCert, c.TLSKey = "", "" },
	} {
		wrong := c
		change(&wrong)
		if _, err := openRedis(t, wrong).Lookup(t.Context(), asks(t, "user1@example.org", "")); err == nil || errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedisSentinel(t *testing.T) {
	port, watcher := peers.Port(t), peers.Port(t)
	dir := peers.Dir(t)
	password, watch := writeText(t, filepath.Join(dir, "p"), "first"), writeText(t, filepath.Join(dir, "w"), "watch")
	direct := defaultRedis()
	direct.Addresses, direct.PasswordFile = []string{"127.0.0.1:" + port}, password
	c := direct
	c.Mode, c.Master, c.Addresses, c.SentinelPasswordFile = redisSentinel, "mymaster", []string{"127.0.0.1:" + watcher}, watch
	peers.Redis(t, "", pings(t, direct), "port "+port, "requirepass first")
	peers.Redis(t, "--sentinel", pings(t, c), "port "+watcher, "requirepass watch", "sentinel monitor mymaster 127.0.0.1 "+port+" 1", "sentinel auth-pass mymaster first")
	redisKnows(t, c)
	c.Master = "another"
	for _, c.Type = range []string{redisHash, redisJSON} {
		if _, err := openRedis(t, c).Lookup(t.Context(), asks(t, "user1@example.org", "")); err == nil || errors.Is(err, auth.ErrUnknownUser) {
			t.Errorf("a master that no Sentinel knows: %v", err)
		}
	}
}

// TestRedisCluster has three nodes that share the slots.
func TestRedisCluster(t *testing.T) {
	c := defaultRedis()
	c.Mode = redisCluster
	var first, bus string
	for i := range 3 {
		port, busPort := peers.Port(t), peers.Port(t)
		one := defaultRedis()
		one.Addresses = []string{"127.0.0.1:" + port}
		peers.Redis(t, "", pings(t, one), "port "+port, "cluster-enabled yes", "cluster-port "+busPort)
		node := redisClient(t, one)
		if err := node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", i*5461, min(i*5461+5460, 16383)).Err(); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if err := node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 16383, 16383).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			first, bus = port, busPort
		} else if err := node.Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", first, bus).Err(); err != nil {
			t.Fatal(err)
		}
		c.Addresses = append(c.Addresses, one.Addresses...)
	}
	for _, address := range c.Addresses {
		one := defaultRedis()
		one.Addresses = []string{address}
		node := redisClient(t, one)
		peers.Eventually(t, "the cluster is whole", func() error {
			info, err := node.ClusterInfo(t.Context()).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3")) {
				err = errors.New(info)
			}
			return err
		})
	}
	redisKnows(t, c)
}

// TestRedisFaults breaks the server in all ways; each time the source ends in its time, and when the server is back it is asked again.
func TestRedisFaults(t *testing.T) {
	c, d := freshRedis(t)
	redisKnows(t, c)
	p := newFaultProxy(t, "unix", c.Addresses[0])
	behind := c
	behind.Addresses = []string{p.addr()}
	o := openRedis(t, behind)
	fails := func(what string, time time.Duration) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time)
		defer cancel()
		_, err := o.Lookup(ctx, asks(t, "user1@example.org", ""))
		if err == nil || errors.Is(err, auth.ErrUnknownUser) || strings.Contains(err.Error(), "garbage") {
			t.Errorf("%s: %v", what, err)
		}
	}
	works := func(what string) {
		t.Helper()
		peers.Eventually(t, what, func() error {
			_, err := o.Lookup(t.Context(), asks(t, "user1@example.org", ""))
			return err
		})
	}
	works("at first")
	for f, what := range map[fault]string{faultHang: "hangs", faultRefuse: "refuses", faultGarbage: "talks garbage", faultFlood: "floods"} {
		p.set(f)
		if f == faultHang {
			fails(what, 50*time.Millisecond)
		} else {
			fails(what, 30*time.Second)
		}
		p.set(faultNone)
		p.cut()
		works("after it " + what)
	}
	d.Down(t)
	fails("is down", 30*time.Second)
	d.Up(t)
	if _, err := o.Lookup(t.Context(), asks(t, "user1@example.org", "")); !errors.Is(err, auth.ErrUnknownUser) {
		peers.Eventually(t, "back, and empty", func() error {
			if _, err := o.Lookup(t.Context(), asks(t, "user1@example.org", "")); !errors.Is(err, auth.ErrUnknownUser) {
				return err
			}
			return nil
		})
	}

	// A source is there while its server is not yet.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := defaultRedis()
	nobody.Addresses = []string{l.Addr().String()}
	l.Close()
	if _, err := openRedis(t, nobody).Lookup(t.Context(), asks(t, "user1@example.org", "")); err == nil || errors.Is(err, auth.ErrUnknownUser) {
		t.Errorf("nobody there: %v", err)
	}
}
