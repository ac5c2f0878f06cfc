package cluster

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// freePort is one that nothing listens on. Sentinel and cluster need ports that are known before.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// runRedis starts a redis-server with what settings say, one a line, and ends it with the test.
func runRedis(t *testing.T, mode string, settings ...string) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no redis-server: install Debian's redis-server")
		}
		t.Skip("there is no redis-server: install Debian's redis-server")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "redis.conf")
	text := strings.Join(append(settings, "dir "+dir, `save ""`, "bind 127.0.0.1", "protected-mode no"), "\n") + "\n"
	must(t, os.WriteFile(conf, []byte(text), 0o600))
	args := []string{conf}
	if mode != "" {
		args = append(args, mode)
	}
	var log bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("redis-server %s\n%s", mode, &log)
		}
	})
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func newClient(t *testing.T, c Config) *Client {
	t.Helper()
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	client, err := New(c)
	must(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func fileWith(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// exercise does what a part does: several keys in one script.
func exercise(t *testing.T, c *Client) {
	t.Helper()
	ctx := t.Context()
	a, b := c.Key("test", "a"), c.Key("test", "b")
	v, err := c.Eval(ctx, `redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1]) return 2`, []string{a, b}, "x")
	if v != int64(2) || err != nil {
		t.Fatalf("Eval: %v, %v", v, err)
	}
	if v, err := c.Do(ctx, "GET", b); v != "x" || err != nil {
		t.Errorf("GET: %v, %v", v, err)
	}
	if v, err := c.Do(ctx, "GET", c.Key("test", "none")); v != nil || err != nil {
		t.Errorf("GET of nothing: %v, %v", v, err)
	}
	if _, err := c.Do(ctx, "LLEN", a); err == nil || !strings.HasPrefix(err.Error(), "redis: WRONGTYPE") {
		t.Errorf("LLEN of a text: %v", err)
	}
	must(t, c.Health(ctx, "test"))
}

func TestSingle(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	runRedis(t, "", "port 0", "unixsocket "+socket, "requirepass first", "user small on >secret ~popgate* ~{popgate* +@all")
	c := DefaultConfig()
	c.Addresses = []string{socket}
	c.PasswordFile = fileWith(t, "first\n")
	client := newClient(t, c)
	eventually(t, "redis is up", func() error { return client.Health(t.Context(), "test") })
	exercise(t, client)

	small := c
	small.Username, small.PasswordFile = "small", fileWith(t, "secret")
	exercise(t, newClient(t, small))
	small.Prefix = "other"
	if err := newClient(t, small).Health(t.Context(), "test"); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("another's keys: %v", err)
	}

	// The password changes while we run: a new connection takes the new one from the file.
	_, err := client.Do(t.Context(), "CONFIG", "SET", "requirepass", "second")
	must(t, err)
	if err := newClient(t, c).Health(t.Context(), "test"); err == nil {
		t.Error("the old password works")
	}
	must(t, os.WriteFile(c.PasswordFile, []byte("second\n"), 0o600))
	_, err = client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
	if err != nil && !strings.Contains(err.Error(), "EOF") {
		t.Error(err)
	}
	eventually(t, "connected anew", func() error { return client.Health(t.Context(), "test") })
}

func TestHealthOfReplica(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	runRedis(t, "", "port 0", "unixsocket "+socket, "replicaof 127.0.0.1 1")
	c := DefaultConfig()
	c.Addresses = []string{socket}
	client := newClient(t, c)
	eventually(t, "redis is up", func() error { _, err := client.Do(t.Context(), "PING"); return err })
	if err := client.Health(t.Context(), "test"); err == nil || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("a replica: got %v, want READONLY", err)
	}
}

func TestSentinel(t *testing.T) {
	port, watcher := freePort(t), freePort(t)
	runRedis(t, "", "port "+strconv.Itoa(port), "requirepass first")
	runRedis(t, "--sentinel", "port "+strconv.Itoa(watcher), "requirepass watch",
		fmt.Sprintf("sentinel monitor mymaster 127.0.0.1 %d 1", port), "sentinel auth-pass mymaster first")
	c := DefaultConfig()
	c.Mode, c.Master = ModeSentinel, "mymaster"
	c.Addresses = []string{fmt.Sprintf("127.0.0.1:%d", watcher)}
	c.PasswordFile, c.SentinelPasswordFile = fileWith(t, "first"), fileWith(t, "watch\n")
	client := newClient(t, c)
	eventually(t, "the Sentinel knows its master", func() error { return client.Health(t.Context(), "test") })
	exercise(t, client)
	c.Master = "another"
	if err := newClient(t, c).Health(t.Context(), "test"); err == nil {
		t.Error("a master that no Sentinel knows is there")
	}
}

// TestCluster has two nodes that share the slots, so that half of all keys are at the other one.
func TestCluster(t *testing.T) {
	ports := []int{freePort(t), freePort(t)}
	c := DefaultConfig()
	for i, port := range ports {
		runRedis(t, "", "port "+strconv.Itoa(port), "cluster-enabled yes", fmt.Sprintf("cluster-port %d", freePort(t)), "cluster-require-full-coverage no")
		c.Addresses = append(c.Addresses, fmt.Sprintf("127.0.0.1:%d", port))
		one := DefaultConfig()
		one.Addresses = c.Addresses[i:]
		node := newClient(t, one)
		eventually(t, "node is up", func() error { _, err := node.Do(t.Context(), "PING"); return err })
		_, err := node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", i*8192, i*8192+8191)
		must(t, err)
		if i == 1 {
			bus, err := newClient(t, Config{
				Addresses: c.Addresses[:1], Mode: ModeSingle, ConnectTimeout: time.Second, Timeout: time.Second, Prefix: "x",
			}).Do(t.Context(), "CONFIG", "GET", "cluster-port")
			must(t, err)
			busPort := fmt.Sprint(bus.(map[any]any)["cluster-port"])
			_, err = node.Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", ports[0], busPort)
			must(t, err)
		}
	}
	c.Mode = ModeCluster
	eventually(t, "the nodes know each other", func() error {
		for i := range 8 {
			c.Prefix = fmt.Sprintf("popgate%d", i)
			client, err := New(c)
			if err != nil {
				return err
			}
			err = client.Health(t.Context(), "test")
			_ = client.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
	for i := range 8 { // prefixes in slots of both nodes
		c.Prefix = fmt.Sprintf("popgate%d", i)
		exercise(t, newClient(t, c))
	}

	// One node takes no writes any more: a part is healthy if it is at the other.
	one := DefaultConfig()
	one.Addresses = c.Addresses[:1]
	_, err := newClient(t, one).Do(t.Context(), "CONFIG", "SET", "min-replicas-to-write", 1)
	must(t, err)
	found := map[bool]int{}
	for i := range 16 {
		client, part := newClient(t, c), fmt.Sprintf("part%d", i)
		_, err := client.Do(t.Context(), "SET", client.Key(part, "a"), "x")
		if health := client.Health(t.Context(), part); (health == nil) != (err == nil) {
			t.Errorf("%s: health is %v, and a write ends with %v", part, health, err)
		}
		found[err == nil]++
	}
	if len(found) != 2 {
		t.Errorf("writes succeeded, by count: %v; want some and not all", found)
	}
}

// issue makes a CA, and a certificate of it for 127.0.0.1 that serves both sides.
func issue(t *testing.T) (ca, cert, key string) {
	t.Helper()
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		if signer == nil {
			parent, signer = template, k
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &k.PublicKey, signer)
		must(t, err)
		c, err := x509.ParseCertificate(der)
		must(t, err)
		return c, k
	}
	in := time.Now().Add(time.Hour)
	root, rootKey := make(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: in, IsCA: true, BasicConstraintsValid: true,
	}, nil, nil)
	leaf, leafKey := make(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: in, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, root, rootKey)
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	must(t, err)
	text := func(kind string, der []byte) string {
		return fileWith(t, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	return text("CERTIFICATE", root.Raw), text("CERTIFICATE", leaf.Raw), text("PRIVATE KEY", der)
}

func TestTLS(t *testing.T) {
	ca, cert, key := issue(t)
	port := freePort(t)
	runRedis(t, "", "port 0", "tls-port "+strconv.Itoa(port), "tls-ca-cert-file "+ca, "tls-cert-file "+cert, "tls-key-file "+key)
	c := DefaultConfig()
	c.Addresses = []string{fmt.Sprintf("127.0.0.1:%d", port)}
	c.TLS, c.TLSCA, c.TLSCert, c.TLSKey = true, ca, cert, key
	client := newClient(t, c)
	eventually(t, "redis is up", func() error { return client.Health(t.Context(), "test") })
	exercise(t, client)
	for name, change := range map[string]func(*Config){
		"the system's CAs":    func(c *Config) { c.TLSCA = "" },
		"another name":        func(c *Config) { c.TLSServerName = "redis.example.org" },
		"without certificate": func(c *Config) { c.TLSCert, c.TLSKey = "", "" },
	} {
		wrong := c
		change(&wrong)
		if newClient(t, wrong).Health(t.Context(), "test") == nil {
			t.Errorf("%s: connected", name)
		}
	}
}

// TestDeadlines has nobody wait longer than was said, whatever the library would rather do.
func TestDeadlines(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	must(t, err)
	defer l.Close()
	for name, tt := range map[string]struct {
		address      string
		timeout, ctx time.Duration
	}{
		"silent, own timeout": {l.Addr().String(), 300 * time.Millisecond, time.Hour},
		"silent, context":     {l.Addr().String(), time.Hour, 300 * time.Millisecond},
		"refused":             {"127.0.0.1:1", 300 * time.Millisecond, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := DefaultConfig()
			c.Addresses, c.Timeout = []string{tt.address}, tt.timeout
			client := newClient(t, c)
			ctx, cancel := context.WithTimeout(t.Context(), tt.ctx)
			defer cancel()
			begun := time.Now()
			_, err := client.Do(ctx, "PING")
			if took := time.Since(begun); err == nil || took > 1500*time.Millisecond {
				t.Errorf("%v after %v", err, took)
			}
			cancelled, stop := context.WithCancel(t.Context())
			stop()
			if _, err := client.Do(cancelled, "PING"); !errors.Is(err, context.Canceled) {
				t.Errorf("with a cancelled context: %v", err)
			}
		})
	}
}
