//go:build unix

package dns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// script is the provider for a shell script with this body.
func script(t *testing.T, body string, change ...func(*Config)) *program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	writeProgram(t, path, []byte("#!/bin/sh\n"+body))
	c := DefaultConfig()
	c.Provider = ProviderExec
	c.Exec = Exec{Command: []string{path, "first arg"}, Env: []string{"ZONE=example.org"}}
	for _, f := range change {
		f(&c)
	}
	c.Validate(func(key, problem string) { t.Errorf("%s %s", key, problem) })
	p, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*program)
}

func TestExec(t *testing.T) {
	t.Setenv("POPGATE_SECRET", "password")
	out := filepath.Join(t.TempDir(), "out")
	p := script(t, fmt.Sprintf(`printf '%%s|' "$@" >>%q; env | grep -e POPGATE -e ZONE | sort | tr '\n' '|' >>%q; pwd >>%q`, out, out, out))
	// The value is no option and no shell text, whatever it looks like.
	const value = "-rf $(id);'x"
	if _, err := p.AppendRecords(t.Context(), "example.org", txt("_acme-challenge", value)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.DeleteRecords(t.Context(), "example.org", txt("_acme-challenge", value)); err != nil {
		t.Fatal(err)
	}
	line := func(action string) string {
		const fqdn = "_acme-challenge.example.org."
		return "first arg|" + action + "|" + fqdn + "|" + value + "|POPGATE_ACTION=" + action + "|POPGATE_FQDN=" + fqdn + "|POPGATE_VALUE=" + value + "|ZONE=example.org|/\n"
	}
	got, err := os.ReadFile(out)
	if want := line("present") + line("cleanup"); err != nil || string(got) != want {
		t.Errorf("the program saw, %v\n%swant\n%s", err, got, want)
	}
}

func TestExecFails(t *testing.T) {
	p := script(t, `i=0; while [ $i -lt 2000 ]; do echo noise $i; i=$((i+1)); done; printf 'zone is\033 locked\n' >&2; exit 3`)
	_, err := p.AppendRecords(t.Context(), "example.org", txt("_acme-challenge", "value"))
	wantError(t, err, "run "+p.config.Command[0]+" present _acme-challenge.example.org", "exit status 3", `zone is\x1b locked"`)
	if len(err.Error()) > 2000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	c := DefaultConfig()
	c.Provider, c.Exec.Command = ProviderExec, []string{t.TempDir() + "/none"}
	_, err = New(c, nil)
	wantError(t, err, "exec.command", "no such file")
}

// The end comes to what the script started as well: a sleep that goes on would hold the output and thus us.
func TestExecKilled(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "begun")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(fifo) // until the script has written to it
		opened <- err
		cancel()
	}()
	start := time.Now()
	p := script(t, fmt.Sprintf("echo begun; echo >%q; sleep 60; echo done", fifo))
	_, err := p.AppendRecords(ctx, "example.org", txt("a", "value"))
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	wantError(t, err, "killed", `"begun"`)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not the caller's end", err)
	}

	p = script(t, "sleep 60", func(c *Config) { c.Timeout = 50 * time.Millisecond })
	_, err = p.AppendRecords(t.Context(), "example.org", txt("a", "value"))
	wantError(t, err, "killed", "may run for 50ms")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v is no deadline", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %s", took)
	}
}

// One run at a time; who waits for his turn can be called off.
func TestExecTurns(t *testing.T) {
	dir := t.TempDir()
	// A second run while the folder is there would fail.
	p := script(t, fmt.Sprintf("mkdir %s/lock && rmdir %s/lock", dir, dir))
	errs := make(chan error)
	const runs = 8
	for range runs {
		go func() {
			_, err := p.AppendRecords(t.Context(), "example.org", txt("a", "value"))
			errs <- err
		}()
	}
	for range runs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	<-p.turn
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.AppendRecords(ctx, "example.org", txt("a", "value"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the caller's end", err)
	}
	p.turn <- struct{}{}
}

// A record is removed though others were before it for longer than one run may take.
func TestExecCleanUpWaitsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := script(t, "true")
		at := record{fqdn: "_acme-challenge.example.org.", value: "value"}
		c := DefaultConfig()
		s := &Solver{config: c, provider: p, places: map[record]place{at: {write: at.fqdn, zone: at.fqdn}}}
		turn := <-p.turn
		time.AfterFunc(3*c.Timeout, func() { p.turn <- turn })
		if err := s.CleanUp(t.Context(), at.fqdn, at.value); err != nil {
			t.Error(err)
		}
	})
}

// A script that leaves a daemon behind has done its work.
func TestExecLeavesSomething(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	p := script(t, fmt.Sprintf("sleep 30 & echo $! >%q", pid))
	if _, err := p.AppendRecords(t.Context(), "example.org", txt("a", "value")); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(strings.TrimSpace(string(data)), &n); err != nil {
		t.Fatal(err)
	}
	if left, err := os.FindProcess(n); err == nil {
		_ = left.Kill()
	}
}
