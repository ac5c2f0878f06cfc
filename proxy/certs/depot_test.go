package certs

import (
	"bytes"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"

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
	c.ClientCA.File = filepath.Join(dir, "none.pem")
	pools := func() int {
		var stacks bytes.Buffer
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 2)
		return strings.Count(stacks.String(), "backgroundHealthCheck(")
	}
	before := pools()
	if _, err := New(dir, nil, nil).Prepare(c, nil, []Listener{{Name: "pop3s"}}, Deps{}); err == nil {
		t.Fatal("a CA file that is not there was taken")
	}
	eventually(t, "the storage's connections are closed", func() bool { return pools() <= before })
}
