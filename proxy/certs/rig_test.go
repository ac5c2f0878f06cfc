package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/audit"
)

// A rig is a running Keeper and what it tells.
type rig struct {
	t    *testing.T
	k    *Keeper
	log  records
	stop context.CancelFunc
	deps Deps

	mu     sync.Mutex
	events []audit.Event
}

// startRig puts c in force in a Keeper with a state directory of its own, and runs it until the test ends.
func startRig(t *testing.T, stateDir string, c Config, edit func(*rig), ls ...Listener) (*rig, *View) {
	t.Helper()
	log := make(records, 100_000)
	r := &rig{t: t, log: log, k: New(stateDir, slog.New(slog.NewMultiHandler(log, slog.NewTextHandler(t.Output(), nil))), nil)}
	r.k.acme.every = 50 * time.Millisecond
	r.deps.Post = r.post
	if edit != nil {
		edit(r)
	}
	if len(ls) == 0 {
		ls = []Listener{{Name: "pop3s"}}
	}
	v := r.use(c, ls...)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.k.Run(ctx) }()
	end := sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	r.stop = end
	t.Cleanup(end)
	return r, v
}

func (r *rig) use(c Config, ls ...Listener) *View {
	r.t.Helper()
	c.Validate(func(key, problem string) { r.t.Errorf("%s %s", key, problem) })
	v, err := r.k.Prepare(c, nil, ls, r.deps)
	if err != nil {
		r.t.Fatalf("Prepare: %v", err)
	}
	r.k.Use(v)
	return v
}

func (r *rig) post(e *audit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, *e)
}

// told counts the events of a kind about a name.
func (r *rig) told(kind audit.Name, name string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Name == kind && e.Certificate.Name == name {
			n++
		}
	}
	return n
}

// status gives the Status of a name.
func (r *rig) status(name string) (all []Status) {
	r.t.Helper()
	for _, st := range must(r.k.List(r.t.Context())) {
		if st.Name == name {
			all = append(all, st)
		}
	}
	return all
}

// shaken waits until a client is served with a good certificate, and gives that.
func shaken(t *testing.T, server, client *tls.Config) *x509.Certificate {
	t.Helper()
	var cert *x509.Certificate
	eventually(t, "a good certificate for "+client.ServerName, func() bool {
		cs, err := shakeOverTCP(t, server, client)
		if err != nil {
			return false
		}
		cert = cs.PeerCertificates[0]
		return true
	})
	return cert
}

// shakeOverTCP is shake with sockets: a pipe holds nothing, so that a client which refuses a certificate, or long tickets, leave both ends
// writing for ever.
func shakeOverTCP(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = io.WriteString(c, "+OK\r\n")
			c.Close()
		}
		done <- err
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err != nil {
		return tls.ConnectionState{}, errors.Join(err, <-done)
	}
	defer c.Close()
	_, err = io.ReadAll(c)
	return c.ConnectionState(), errors.Join(err, <-done)
}
