//go:build unix

package peers

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDaemon: a server comes up, goes down and comes again, and none outlives its test.
func TestDaemon(t *testing.T) {
	d := new(Daemon)
	d.Start = func() *exec.Cmd { return exec.Command("sh", "-c", "echo here; exec sleep 600") }
	d.Ready = func() error {
		if d.Said() != "here\n" {
			return errors.New("not yet")
		}
		return nil
	}
	gone := func(process *os.Process) bool { return errors.Is(process.Signal(syscall.Signal(0)), os.ErrProcessDone) }
	t.Run("life", func(t *testing.T) {
		d.Run(t)
		first := d.cmd.Process
		d.Down(t)
		if !gone(first) {
			t.Error("it is there after Down")
		}
		d.Down(t) // again, which does nothing
		d.Up(t)
		if d.cmd.Process == first || gone(d.cmd.Process) {
			t.Error("it is not back")
		}
	})
	if !gone(d.cmd.Process) {
		t.Error("it outlived its test")
	}
}

// TestDaemonEnds: nobody waits for a server that has ended by itself.
func TestDaemonEnds(t *testing.T) {
	d := &Daemon{
		Start: func() *exec.Cmd { return exec.Command("sh", "-c", "echo wrong option; exit 1") },
		Ready: func() error { return errors.New("no answer") },
	}
	began := time.Now()
	if err := d.up(); !errors.Is(err, errEnded) || time.Since(began) >= patience || !strings.Contains(d.Said(), "wrong option") {
		t.Errorf("up = %v, said %q", err, d.Said())
	}
	d.Down(t)
}
