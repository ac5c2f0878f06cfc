package storage

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

type helper struct {
	Config   Config
	StateDir string
}

// holdForever is the other process: it takes a lock, says so, and waits to be killed.
func holdForever(text string) error {
	var h helper
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		return err
	}
	s, err := open(h.Config, h.StateDir, nil, testLease)
	if err != nil {
		return err
	}
	if err := s.Lock(context.Background(), "killed"); err != nil {
		return err
	}
	fmt.Println("locked")
	select {}
}

// testKilled takes over the lock of a process that was killed, but not before its lease has run out.
func testKilled(t *testing.T, c Config, dir string, s *Store) {
	text, err := json.Marshal(helper{c, dir})
	must(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the other process says %q", line)
	}
	if ok, err := s.TryLock(t.Context(), "killed"); ok || err != nil {
		t.Fatalf("TryLock while the other lives: %v, %v", ok, err)
	}
	must(t, cmd.Process.Kill())
	killed := time.Now()
	limit := 3 * testLease
	if !s.shared {
		limit = 15 * time.Second // FileStorage's own lease is 10 s
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := s.Lock(ctx, "killed"); err != nil {
		t.Fatalf("%v after the holder was killed: %v", time.Since(killed), err)
	}
	t.Logf("taken over after %v", time.Since(killed).Round(time.Millisecond))
	must(t, s.Unlock(t.Context(), "killed"))
}
