package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// startFlooder floods from a process of its own. It is nice to all others: in life its work is done on other machines. Wait says how
// many bad connections a second it made, and what it has to say.
func startFlooder(t testing.TB, to string, rate int, d time.Duration) (wait func() (made float64, said string)) {
	cmd := exec.Command("nice", "-n", "19", "flooder", to, strconv.Itoa(rate), d.String()) // TestMain has put it there
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // where the test ended before it
	return func() (made float64, said string) {
		if err := <-done; err != nil {
			t.Fatalf("flooder: %v\n%s", err, &out)
		}
		if _, err := fmt.Sscan(out.String(), &made); err != nil {
			t.Fatalf("flooder: %v\n%s", err, &out)
		}
		return made, strings.TrimSpace(out.String())
	}
}

// flooder is the program that startFlooder runs: ADDRESS RATE DURATION.
func flooder() error {
	if len(os.Args) != 4 {
		return errors.New("usage: flooder ADDRESS RATE DURATION")
	}
	rate, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(os.Args[3])
	if err != nil {
		return err
	}
	f, err := newFlood(os.Args[1], 1000, 2*time.Second)
	if err != nil {
		return err
	}
	began := time.Now()
	f.run(rate, d)
	made := float64(f.made.Load()) / time.Since(began).Seconds()
	f.all.Wait()
	used, err := cpuOf(os.Getpid())
	if err != nil {
		return err
	}
	fmt.Printf("%.0f bad connections a second were made with %.2f of a core, %d failed (%v)\n",
		made, used.Seconds()/time.Since(began).Seconds(), f.unmade.Load(), f.first.Load())
	return nil
}

// flooded is where a gateway of its own process listens.
type flooded struct{ to, ca string }

// startFlooded starts one, and says besides how much CPU it has used.
func startFlooded(t testing.TB, backend, limits string) (f flooded, metrics string, cpu func() time.Duration) {
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
	return f, metrics, func() time.Duration {
		used, err := cpuOf(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return used
	}
}

// cpuOf is the CPU time of a process.
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * (time.Second / 100), nil
}
