package main

import (
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/popgate/popgate/configs"
)

// A reload that hangs, as one from a pipe or a file system that is gone does, keeps nobody from stopping the gateway.
func TestStopWhileReloadHangs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "popgate.yaml")
	text := `state_dir: "` + dir + `"
listeners: [{name: pop3s, address: "127.0.0.1:0"}]
backends: [{name: old, servers: [{address: "127.0.0.1:1"}]}]
audit: {path: ""}
metrics: {address: ""}
admin: {socket: "` + dir + `/admin.sock"}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	hung, release := make(chan struct{}), make(chan struct{})
	g, err := newGateway(func() (*configs.Config, error) {
		if calls.Add(1) > 1 {
			close(hung)
			<-release
		}
		return configs.Load(file, nil)
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan struct{})
	g.up = func() { close(up) }
	signals := make(chan os.Signal, 3)
	done := make(chan error, 1)
	go func() { done <- g.run(t.Context(), signals) }()
	wait := func(c <-chan struct{}, what string) {
		t.Helper()
		select {
		case <-c:
		case <-time.After(30 * time.Second):
			t.Fatal(what)
		}
	}
	wait(up, "the gateway did not start")
	signals <- syscall.SIGHUP
	wait(hung, "the reload did not begin")
	signals <- syscall.SIGHUP // it waits for the one at work
	signals <- syscall.SIGTERM
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the gateway did not stop")
	}
	close(release)
	if n := calls.Load(); n != 2 {
		t.Errorf("the configuration was read %d times, want 2", n)
	}
}
