package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/popgate/popgate/configs"
)

// A served is the whole gateway in this process, on loopback.
type served struct {
	*gateway
	address string
	roots   string // the CA's file
}

// serveConfig runs the gateway by a configuration, whose text may name DIR and ADDRESS, until the test ends.
func serveConfig(t testing.TB, text string) *served {
	t.Helper()
	dir := t.TempDir()
	if _, err := writeCertificates(filepath.Join(dir, "tls")); err != nil {
		t.Fatal(err)
	}
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &served{address: fmt.Sprintf("127.0.0.1:%d", port), roots: filepath.Join(dir, "tls", "ca.pem")}
	file := filepath.Join(dir, "popgate.yaml")
	text = servedBase + strings.TrimLeft(text, "\n")
	if err := os.WriteFile(file, []byte(strings.NewReplacer("DIR", dir, "ADDRESS", s.address).Replace(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.gateway, err = newGateway(func() (*configs.Config, error) { return configs.Load(file, nil) }, testWriter{t}); err != nil {
		t.Fatal(err)
	}
	up, signals, done := make(chan struct{}), make(chan os.Signal, 2), make(chan error, 1)
	s.up = func() { close(up) }
	go func() { done <- s.run(context.Background(), signals) }()
	t.Cleanup(func() {
		signals <- syscall.SIGTERM
		signals <- syscall.SIGTERM
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-up:
	case err := <-done:
		done <- nil
		t.Fatalf("the gateway ended: %v", err)
	}
	return s
}

const servedBase = `
node: gw1
state_dir: "DIR/state"
listeners: [{name: pop3s, address: "ADDRESS"}]
tls: {certificates: [{cert: "DIR/tls/cert.pem", key: "DIR/tls/key.pem"}]}
audit: {path: "DIR/audit.jsonl"}
metrics: {address: ""}
admin: {socket: "DIR/popgate.sock"}
`

// testWriter is the test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(bytes.TrimSpace(b)))
	return len(b), nil
}
