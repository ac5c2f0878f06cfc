package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// startFlooder floods from a process of its own. It is nice to all others: in life its work is done on other machines.
func startFlooder(t *testing.T, to string, rate int, d time.Duration) (wait func() string) {
	cmd := exec.Command("nice", "-n", "19", os.Args[0], "-test.run=^TestFlooder$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("POPGATE_FLOODER=%s %d %s", to, rate, d))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // where the test ended before it
	return func() string {
		if err := <-done; err != nil {
			t.Errorf("flooder: %v\n%s", err, &out)
		}
		for line := range strings.Lines(out.String()) {
			if _, said, ok := strings.Cut(line, "flooded: "); ok {
				return strings.TrimSpace(said)
			}
		}
		return out.String()
	}
}

// TestFlooder is the process that TestFlood starts.
func TestFlooder(t *testing.T) {
	var (
		to   string
		rate int
		text string
	)
	if _, err := fmt.Sscan(os.Getenv("POPGATE_FLOODER"), &to, &rate, &text); err != nil {
		t.Skip("it is started by TestFlood")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	f := newFlood(t, to, 1000, 2*time.Second)
	began := time.Now()
	used := cpuOf(t, os.Getpid())
	f.run(rate, d)
	made := float64(f.made.Load()) / time.Since(began).Seconds()
	f.all.Wait()
	t.Logf("flooded: %.0f bad connections a second were made with %.2f of a core, %d failed (%v)",
		made, (cpuOf(t, os.Getpid())-used).Seconds()/time.Since(began).Seconds(), f.unmade.Load(), f.first.Load())
}

// flooded is where a gateway of its own process listens.
type flooded struct{ to, ca string }

// startFlooded starts one, and says besides how much CPU it has used.
func startFlooded(t *testing.T, backend, limits string) (f flooded, metrics string, cpu func() time.Duration) {
	dir := t.TempDir()
	if _, err := writeCertificates(filepath.Join(dir, "tls")); err != nil {
		t.Fatal(err)
	}
	var ports [2]int
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			t.Fatal(err)
		}
	}
	f = flooded{to: fmt.Sprintf("127.0.0.1:%d", ports[0]), ca: filepath.Join(dir, "tls", "ca.pem")}
	metrics = fmt.Sprintf("127.0.0.1:%d", ports[1])
	text := strings.NewReplacer("DIR", dir, "ADDRESS", f.to, `metrics: {address: ""}`, "metrics: {address: \""+metrics+"\"}").Replace(servedBase) +
		fmt.Sprintf("bounds: {accept_ramp: 0s}\nbackends: [{name: old, servers: [{address: %q}]}]\nlimits: %s\n", backend, limits)
	file := filepath.Join(dir, "popgate.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("popgate", "serve", "-c", file) // TestMain has put it there
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+os.Getenv("POPGATE_FLOOD_PROCS"))
	p, err := launch(cmd, filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Log(tail(p.log, 4<<10))
		}
	})
	for deadline := time.Now().Add(patience); ; {
		if ok, err := ready("http://" + metrics + "/readyz"); ok {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	return f, metrics, func() time.Duration { return cpuOf(t, cmd.Process.Pid) }
}

// cpuOf is the CPU time of a process.
func cpuOf(t *testing.T, pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * (time.Second / 100)
}
