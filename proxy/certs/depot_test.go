package certs

import (
	"bytes"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/certs/storage"
)

// TestDiscard: what Prepare opened is closed where it is not used, and never what is in force.
func TestDiscard(t *testing.T) {
	dir := t.TempDir()
	k := New(dir, nil, nil)
	c := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
	c.ACME.Domains, c.ACME.Agree = []string{"other.example.org"}, true
	c.ACME.Storage.Type, c.ACME.Storage.Encryption = storage.TypeRedis, storage.EncryptionNone
	c.ACME.Storage.Redis.Addresses = []string{filepath.Join(dir, "nobody")}
	next := func() *View {
		v, err := k.Prepare(c, nil, []Listener{{Name: "pop3s"}}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	closed := func(v *View) bool {
		err := v.acme.depot.store.Probe(t.Context())
		return err != nil && strings.Contains(err.Error(), "client is closed")
	}
	(*View)(nil).Discard()
	unused := next()
	if unused.Discard(); !closed(unused) {
		t.Error("a storage that nobody uses was left open")
	}
	inForce := next()
	t.Cleanup(func() { _ = inForce.acme.depot.store.Close() })
	k.Use(inForce)
	next().Discard() // it shares the storage
	if inForce.Discard(); closed(inForce) {
		t.Error("the storage in force was closed")
	}
}

// TestFailedPrepareLeavesNothing: an operator may try a configuration many times.
func TestFailedPrepareLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig()
	c.ACME.Domains, c.ACME.Agree = []string{"mail.example.org"}, true
	c.ACME.Storage.Type, c.ACME.Storage.Encryption = storage.TypePostgres, storage.EncryptionNone
	c.ACME.Storage.Postgres.Connection = "postgres://popgate@127.0.0.1:1/popgate"
	noCA, noResolver, noIssuer := c, c, c
	noCA.ClientCA.File = filepath.Join(dir, "none.pem")
	noResolver.ACME.OnDemand.Resolver = "127.0.0.1:none"
	noIssuer.ACME.Issuers = []Issuer{{CARoot: filepath.Join(dir, "none.pem")}}
	pools := func() int {
		var stacks bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2)
		return strings.Count(stacks.String(), "backgroundHealthCheck(")
	}
	before := pools()
	for name, c := range map[string]Config{"CA": noCA, "resolver": noResolver, "issuer": noIssuer} {
		if _, err := New(dir, nil, nil).Prepare(c, nil, []Listener{{Name: "pop3s"}}, Deps{}); err == nil {
			t.Fatalf("a %s that cannot be had was taken", name)
		}
	}
	eventually(t, "the storage's connections are closed", func() bool { return pools() <= before })
}

// TestReloadsInARow: of views that follow each other so fast that nothing has begun with one, no storage stays open.
func TestReloadsInARow(t *testing.T) {
	dir := t.TempDir()
	k := New(dir, nil, nil)
	defer k.dropCache()
	depots := &depots{m: k.acme}
	use := func(part string) *depot {
		c := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
		c.ACME.Domains, c.ACME.Agree = []string{"other.example.org"}, true
		c.ACME.Storage.Type, c.ACME.Storage.Encryption = storage.TypeRedis, storage.EncryptionNone
		c.ACME.Storage.Redis.Addresses = []string{filepath.Join(dir, part)}
		v, err := k.Prepare(c, nil, []Listener{{Name: "pop3s"}}, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		k.Use(v)
		return v.depot
	}
	closed := func(d *depot) bool {
		err := d.store.Probe(t.Context())
		return err != nil && strings.Contains(err.Error(), "client is closed")
	}
	first := use("first")
	depots.follow(t.Context())
	second, third := use("second"), use("third")
	depots.follow(t.Context())
	if !depots.leaving() || closed(first) || closed(second) {
		t.Error("what an order may still use was closed")
	}
	depots.retire(time.Now().Add(2 * orderTimeout))
	if !closed(first) || !closed(second) || closed(third) || depots.leaving() {
		t.Errorf("closed: the first %v, the second %v, the third %v", closed(first), closed(second), closed(third))
	}
	fourth, fifth := use("fourth"), use("fifth")
	depots.follow(t.Context())
	sixth := use("sixth")
	depots.close()
	for n, d := range []*depot{third, fourth, fifth, sixth} {
		if !closed(d) {
			t.Errorf("number %d is open after the end", n+3)
		}
	}
}
