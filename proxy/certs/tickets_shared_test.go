package certs

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy/certs/internal/servers"
)

// TestTicketsShared has a client resume on another node, never across a policy on clients' certificates, and on its own node whatever happened.
func TestTicketsShared(t *testing.T) {
	c := withFiles(issueFiles(t, t.TempDir(), "mail", "mail.example.org"))
	c.ACME.Domains, c.ACME.Agree, c.ACME.Storage = []string{"other.example.org"}, true, onServer(t, servers.NewRedis(t))
	asking := c
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, testCAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	asking.ClientCA.File, asking.ClientCA.Mode = ca, "request"

	var nodes []*tls.Config
	var early []*tls.Config
	for _, conf := range []Config{c, c, asking, asking} {
		k := New(t.TempDir(), nil, nil)
		k.every = 10 * time.Millisecond
		config := prepare(t, k, conf).TLS("pop3s")
		before := resumer(tls.VersionTLS13)
		resumes(t, config, before)
		nodes, early = append(nodes, config), append(early, before)
		// Not Run: it would place orders.
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); k.shareTickets(ctx) }()
		t.Cleanup(func() { stop(); <-done; _ = k.sharedStore().Close() })
	}
	resumesFrom := func(from, to *tls.Config, version uint16) bool {
		here := resumer(version)
		resumes(t, from, here)
		return resumes(t, to, here)
	}
	for _, pair := range [][2]*tls.Config{{nodes[0], nodes[1]}, {nodes[2], nodes[3]}} {
		eventually(t, "the nodes share their keys", func() bool { return resumesFrom(pair[0], pair[1], tls.VersionTLS13) })
		for _, version := range versions {
			if !resumesFrom(pair[1], pair[0], version) || !resumesFrom(pair[0], pair[1], version) {
				t.Errorf("%s: no resumption on the other node", tls.VersionName(version))
			}
		}
	}
	for _, version := range versions {
		if resumesFrom(nodes[0], nodes[2], version) || resumesFrom(nodes[2], nodes[0], version) {
			t.Errorf("%s: resumed across a policy on clients' certificates", tls.VersionName(version))
		}
	}
	for i, before := range early {
		if !resumes(t, nodes[i], before) {
			t.Errorf("node %d: what was sealed before the keys were shared is lost", i)
		}
	}
}

// TestTicketsSharedWithoutACME: a storage alone is enough, for certificates from files. Two gateways run as they do in earnest.
func TestTicketsSharedWithoutACME(t *testing.T) {
	c := withFiles(issueFiles(t, t.TempDir(), "mail", "mail.example.org"))
	server := servers.NewRedis(t)
	c.ACME.Storage = onServer(t, server)
	quick := func(r *rig) { r.k.every = 50 * time.Millisecond }
	a, va := startRig(t, t.TempDir(), c, quick)
	_, vb := startRig(t, t.TempDir(), c, quick)
	eventually(t, "the nodes share their keys", func() bool {
		here := resumer(tls.VersionTLS13)
		resumes(t, va.TLS("pop3s"), here)
		return resumes(t, vb.TLS("pop3s"), here)
	})
	if err := a.k.Trouble(); err != nil {
		t.Error(err)
	}
	depot := va.depot
	if again := a.use(c, Listener{Name: "pop3s"}); again.depot != depot {
		t.Error("a reload opened the storage anew")
	}
	server.Down(t)
	eventuallyWithin(t, time.Minute, "the trouble is known", func() bool {
		err := a.k.Trouble()
		return err != nil && strings.Contains(err.Error(), "session ticket keys are shared with no other gateway: down since")
	})
	here := resumer(tls.VersionTLS13)
	resumes(t, va.TLS("pop3s"), here)
	if !resumes(t, va.TLS("pop3s"), here) {
		t.Error("with the storage away nothing is resumed")
	}
	without := c
	without.ACME.Storage = DefaultConfig().ACME.Storage
	if v := a.use(without, Listener{Name: "pop3s"}); v.depot != nil || a.k.Trouble() != nil {
		t.Errorf("without a storage: %v", a.k.Trouble())
	}
}

func TestStaleSharedTickets(t *testing.T) {
	mine, other := newTickets(), newTickets()
	config := func(x *tickets) *tls.Config {
		k := New(t.TempDir(), nil, nil)
		c := prepare(t, k, withFiles(issueFiles(t, t.TempDir(), "mail", "mail.example.org"))).TLS("pop3s").Clone()
		c.WrapSession, c.UnwrapSession = x.seal, x.open
		return c
	}
	a, b := config(mine), config(other)
	mine.share(other.keys, false)
	here, there := resumer(tls.VersionTLS13), resumer(tls.VersionTLS13)
	resumes(t, a, here)
	if !resumes(t, b, here) {
		t.Error("not sealed with the shared key")
	}
	resumes(t, b, there)
	mine.share(other.keys, true)
	if !resumes(t, a, there) {
		t.Error("a stale key opens nothing")
	}
	fresh := resumer(tls.VersionTLS13)
	resumes(t, a, fresh)
	if resumes(t, b, fresh) {
		t.Error("a stale key still seals")
	}
	mine.rotate()
	if !resumes(t, a, fresh) {
		t.Error("the rotation of own keys lost them")
	}
}
