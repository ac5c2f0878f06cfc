//go:build unix

package peers

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a busy machine may take for what is waited for; stubborn how long a server may take to end.
const (
	patience = 60 * time.Second
	stubborn = 30 * time.Second
)

// A Daemon is a server of a test's own. One goroutine may call its methods, but for Said.
type Daemon struct {
	Start func() *exec.Cmd // makes the command, each time anew
	Ready func() error     // whether it answers; nil: the caller finds out
	End   os.Signal        // what ends it in order; nil is SIGTERM

	cmd   *exec.Cmd
	ended chan struct{}
	said  Output
}

// Run starts the server for the test, with which it ends.
func (d *Daemon) Run(t testing.TB) {
	t.Helper()
	t.Cleanup(func() { d.Down(t) })
	d.Up(t)
}

// Up starts the server, after Down again, and waits until it answers.
func (d *Daemon) Up(t testing.TB) {
	t.Helper()
	if err := d.up(); err != nil {
		t.Fatal(err)
	}
}

func (d *Daemon) up() error {
	d.said.reset()
	d.cmd = d.Start()
	d.cmd.Stdout, d.cmd.Stderr = &d.said, &d.said
	if err := d.cmd.Start(); err != nil {
		return err
	}
	cmd, ended := d.cmd, make(chan struct{})
	d.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	if d.Ready == nil {
		return nil
	}
	if err := await(patience, ended, d.Ready); err != nil {
		return fmt.Errorf("%s is not up: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}

// Down ends the server, if it is up; its data stay.
func (d *Daemon) Down(t testing.TB) {
	t.Helper()
	if d.ended == nil {
		return
	}
	end := d.End
	if end == nil {
		end = syscall.SIGTERM
	}
	_ = d.cmd.Process.Signal(end) // it may have ended by itself
	kill := time.AfterFunc(stubborn, func() { _ = d.cmd.Process.Kill() })
	<-d.ended
	kill.Stop()
	d.ended = nil
	if t.Failed() {
		t.Logf("%s:\n%s", filepath.Base(d.cmd.Path), &d.said)
	}
}

// Said is what the server has printed since it was started last.
func (d *Daemon) Said() string { return d.said.String() }

// An Output is what a program prints, for the test to read while it runs.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *Output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Reset()
}

// Eventually waits until try succeeds, looking often: what is waited for shows outside of this process alone.
func Eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	if err := await(patience, nil, try); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

var errEnded = errors.New("it ended by itself")

// await is nil once try has succeeded; it gives up after limit, or when ended is closed.
func await(limit time.Duration, ended <-chan struct{}, try func() error) error {
	deadline := time.After(limit)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-look.C:
		case <-ended:
			return errors.Join(errEnded, err)
		case <-deadline:
			return err
		}
	}
}
