package certs

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/certs/internal/servers"
	"github.com/popgate/popgate/proxy/certs/storage"
)

// helperEnv has the test's program be another node: see TestHolderKilled.
const helperEnv = "POPGATE_CERTS_TEST_NODE"

func TestMain(m *testing.M) {
	if text := os.Getenv(helperEnv); text != "" {
		fmt.Fprintln(os.Stderr, beNode(text))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// onServer is the configuration of a storage that is on s.
func onServer(t *testing.T, s *servers.Server) storage.Config {
	t.Helper()
	c := storage.DefaultConfig()
	c.Type, c.Redis = storage.TypeRedis, s.Redis
	if s.Connection != "" {
		c.Type, c.Redis = storage.TypePostgres, storage.DefaultConfig().Redis
		c.Postgres.Connection, c.Postgres.PasswordFile = s.Connection, s.PasswordFile
	}
	// A server that is away refuses at once; one that is busy, on a busy machine, must not pass for it.
	c.Redis.Timeout, c.Postgres.Timeout = 20*time.Second, 20*time.Second
	c.Redis.ConnectTimeout, c.Postgres.ConnectTimeout = 20*time.Second, 20*time.Second
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, []byte(strings.Repeat("0123456789abcdef", 4)))
	c.EncryptionKeyFiles = []string{key}
	return c
}

// eachShared runs test with an issuer and a server of its own for each storage that nodes can share. c is for node B: it answers where the
// issuer looks.
func eachShared(t *testing.T, test func(t *testing.T, p *pebble, s *servers.Server, c Config)) {
	for name, start := range map[string]func(testing.TB) *servers.Server{
		storage.TypeRedis: servers.NewRedis, storage.TypePostgres: servers.NewPostgres,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p := start(t), startPebble(t, pebbleOptions{})
			c := p.config("mail.example.org")
			c.ACME.Storage = onServer(t, s)
			test(t, p, s, c)
		})
	}
}

// TestOtherNodeAnswers: A orders, the issuer comes to B, and there is one certificate for both.
func TestOtherNodeAnswers(t *testing.T) {
	t.Parallel()
	eachShared(t, func(t *testing.T, p *pebble, _ *servers.Server, c Config) {
		idle := c
		idle.ACME.Domains, idle.ACME.OnDemand.Names = nil, []string{"idle.{domain}"}
		b, _ := startRig(t, t.TempDir(), idle, nil)
		b.log.wait(t, "listening")
		alone := c
		alone.ACME.HTTPAddress = freeAddress(t)
		_, viewA := startRig(t, t.TempDir(), alone, nil)
		eventually(t, "A's order", func() bool { return p.orders() == 1 })
		// From here on B wants the same certificate.
		viewB := b.use(c, Listener{Name: "pop3s"})
		one, other := shaken(t, viewA.TLS("pop3s"), p.clientFor("mail.example.org")), shaken(t, viewB.TLS("pop3s"), p.clientFor("mail.example.org"))
		if one.SerialNumber.Cmp(other.SerialNumber) != 0 {
			t.Errorf("A serves %x, B %x", one.SerialNumber, other.SerialNumber)
		}
		if got := p.orders(); got != 1 {
			t.Errorf("got %d orders, want one", got)
		}
	})
}

// node is what another process needs to be one.
type node struct {
	Config   Config
	StateDir string
}

// beNode runs a node until it is killed.
func beNode(text string) error {
	var n node
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return err
	}
	k := New(n.StateDir, nil, nil)
	v, err := k.Prepare(n.Config, nil, []Listener{{Name: "pop3s"}}, Deps{})
	if err != nil {
		return err
	}
	k.Use(v)
	return k.Run(context.Background())
}

// TestHolderKilled kills the node that orders while the issuer waits for its answer; another one takes over.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	eachShared(t, func(t *testing.T, p *pebble, _ *servers.Server, c Config) {
		// The issuer comes to an address where somebody lets it wait.
		ln, err := net.Listen("tcp", "127.0.0.2:"+fmt.Sprint(portOf(p.http)))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		p.dns.set(p.dns.addrs, "mail.example.org", "127.0.0.2")
		first := node{Config: c, StateDir: t.TempDir()}
		first.Config.ACME.HTTPAddress = freeAddress(t)
		text := must(json.Marshal(first))
		var same node
		if err := json.Unmarshal(text, &same); err != nil || !reflect.DeepEqual(same, first) {
			t.Fatalf("the other process would have another configuration: %v\n%+v\n%+v", err, same, first)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperEnv+"="+string(text))
		said := new(output)
		cmd.Stdout, cmd.Stderr = said, said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		if err := ln.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		asker, err := ln.Accept()
		if err != nil {
			t.Fatalf("the issuer did not come: %v, the other process says %q", err, said)
		}
		defer asker.Close()

		r, v := startRig(t, t.TempDir(), c, nil)
		eventually(t, "the second node wants the certificate too", func() bool { return testutil.ToFloat64(r.k.metrics.orders.inFlight) == 1 })
		if got := p.orders(); got != 1 {
			t.Errorf("got %d orders while the first node has the lock, want one", got)
		}
		p.dns.set(p.dns.addrs, "mail.example.org", "127.0.0.1")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		// The lock lasts for half a minute.
		eventuallyWithin(t, 90*time.Second, "a certificate", func() bool { return r.told(audit.CertificateIssued, "mail.example.org") == 1 })
		shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
		if got := p.orders(); got != 2 {
			t.Errorf("got %d orders, want the first node's and the second's", got)
		}
	})
}

// TestStorageAway stops the storage under a node that works.
func TestStorageAway(t *testing.T) {
	t.Parallel()
	eachShared(t, func(t *testing.T, p *pebble, s *servers.Server, c Config) {
		r, v := startRig(t, t.TempDir(), c, nil)
		client := p.clientFor("mail.example.org")
		had := shaken(t, v.TLS("pop3s"), client)
		eventually(t, "the order's end", func() bool { return r.status("mail.example.org")[0].LastError == "" && p.orders() == 1 })
		if err := r.k.Trouble(); err != nil {
			t.Errorf("trouble with a storage that is up: %v", err)
		}
		serves := func(when string, v *View) {
			t.Helper()
			cs, err := shake(v.TLS("pop3s"), client)
			if err != nil || cs.PeerCertificates[0].SerialNumber.Cmp(had.SerialNumber) != 0 {
				t.Errorf("%s: the certificate at hand is not served: %v", when, err)
			}
		}
		s.Down(t)
		serves("at once", v)
		eventually(t, "the trouble is known", func() bool { return r.k.Trouble() != nil })
		serves("the trouble known", v)
		r.stop()
		r, v = startRig(t, r.k.stateDir, c, nil)
		shaken(t, v.TLS("pop3s"), client)
		serves("after a restart", v)
		eventually(t, "the trouble is known after a restart", func() bool { return r.k.Trouble() != nil })

		s.Up(t)
		eventually(t, "all is well again", func() bool { return r.k.Trouble() == nil })
		serves("the storage back", v)
		if got := p.orders(); got != 1 {
			t.Errorf("got %d orders, want one", got)
		}
		if err := r.k.Renew(t.Context(), "mail.example.org"); err != nil {
			t.Errorf("renew with the storage back: %v", err)
		}
		if now := shaken(t, v.TLS("pop3s"), client); now.SerialNumber.Cmp(had.SerialNumber) == 0 {
			t.Error("not renewed")
		}
	})
}
