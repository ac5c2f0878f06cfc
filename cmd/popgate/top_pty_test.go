//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/term"
)

// A pty is a terminal whose keys the test presses, and whose screen it reads.
type pty struct {
	t             *testing.T
	master, slave *os.File
	before        *term.State
	mu            sync.Mutex
	shown         bytes.Buffer // all that was ever written; guarded by mu
	reading       chan struct{}
}

func newPTY(t *testing.T) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo terminals here: %v", err)
	}
	var unlock, number int32
	ioctl(t, master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlock))
	ioctl(t, master, syscall.TIOCGPTN, unsafe.Pointer(&number))
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{t: t, master: master, slave: slave, reading: make(chan struct{})}
	p.resize(80, 24)
	if p.before, err = term.GetState(int(slave.Fd())); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.reading)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			p.mu.Lock()
			p.shown.Write(b[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_, _ = master.WriteString("\n") // for who may still wait for a key, and keeps it open
		_ = slave.Close()
		_ = master.Close()
		<-p.reading
	})
	return p
}

func ioctl(t *testing.T, f *os.File, request uintptr, arg unsafe.Pointer) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		t.Fatalf("ioctl %#x: %v", request, errno)
	}
}

func (p *pty) resize(width, height uint16) {
	p.t.Helper()
	ioctl(p.t, p.slave, syscall.TIOCSWINSZ, unsafe.Pointer(&[4]uint16{height, width}))
}

func (p *pty) press(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pty) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown.String()
}

// screen is the lines of the last picture that is whole, as far as escape sequences of SGR can be left out for it.
func (p *pty) screen() []string {
	pictures := strings.Split(p.text(), screenHome)
	if last := pictures[len(pictures)-1]; !strings.Contains(last, screenRest) {
		pictures = pictures[:len(pictures)-1]
	}
	if len(pictures) < 2 {
		return nil
	}
	picture, _, _ := strings.Cut(pictures[len(pictures)-1], screenRest)
	var lines []string
	for l := range strings.SplitSeq(picture, "\r\n") {
		lines = append(lines, strings.ReplaceAll(l, lineRest, ""))
	}
	return lines
}

// until waits for a picture.
func (p *pty) until(what string, ok func(lines []string) bool) {
	p.t.Helper()
	for late := time.Now().Add(patience); !ok(p.screen()); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			p.t.Fatalf("%s did not come:\n%q", what, p.screen())
		}
	}
}

func (p *pty) shows(text string) {
	p.t.Helper()
	p.until(text, func(lines []string) bool { return strings.Contains(strings.Join(lines, "\n"), text) })
}

// restored holds that the terminal is as it was before.
func (p *pty) restored() {
	p.t.Helper()
	if now, err := term.GetState(int(p.slave.Fd())); err != nil || !reflect.DeepEqual(now, p.before) {
		p.t.Errorf("the terminal's modes are not what they were (%v)", err)
	}
	for late := time.Now().Add(patience); !strings.HasSuffix(p.text(), screenClose); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			text := p.text()
			p.t.Fatalf("the last that the terminal heard is %q", text[max(0, len(text)-100):])
		}
	}
	if n := strings.Count(p.text(), screenOpen); n != 1 {
		p.t.Errorf("the screen was taken %d times", n)
	}
}

// run starts popgate there.
func (p *pty) run(env []string, args ...string) *exec.Cmd {
	p.t.Helper()
	cmd := exec.Command("popgate", args...) // TestMain has put it there
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.slave, p.slave, p.slave
	cmd.Env = append(os.Environ(), append([]string{"TERM=xterm", "NO_COLOR=1", "LC_ALL=C.UTF-8"}, env...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	start(p.t, cmd)
	return cmd
}

// start starts a program that ends with the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
}

// topGateway writes a config for a gateway with a socket, and returns its path.
func topGateway(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "top") // a test's own may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "popgate.yaml")
	config := `
node: gw1
state_dir: ` + dir + `
listeners: [{name: pop3s, address: "127.0.0.1:0"}]
backends: [{name: old, servers: [{address: "127.0.0.1:9"}]}]
audit: {path: ""}
metrics: {address: ""}
admin: {socket: ` + filepath.Join(dir, "s") + `}
`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// serveTop starts a gateway and waits until its socket is there.
func serveTop(t *testing.T, file string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("popgate", "serve", "-c", file)
	start(t, cmd)
	socket := filepath.Join(filepath.Dir(file), "s")
	for late := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return cmd
		}
		if time.Now().After(late) {
			t.Fatal("the gateway made no socket")
		}
	}
}

func TestTopOnTerminal(t *testing.T) {
	file := topGateway(t)
	serveTop(t, file)
	for name, end := range map[string]func(p *pty, cmd *exec.Cmd){
		"q":       func(p *pty, _ *exec.Cmd) { p.press("q") },
		"Ctrl-C":  func(p *pty, _ *exec.Cmd) { p.press("\x03") },
		"SIGTERM": func(_ *pty, cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGTERM) },
		"SIGINT":  func(_ *pty, cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGINT) },
		"SIGHUP":  func(_ *pty, cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPTY(t)
			cmd := p.run(nil, "top", "-c", file, "--interval", "500ms")
			p.shows("accepted/s")
			end(p, cmd)
			if err := cmd.Wait(); err != nil {
				t.Errorf("got %v, want a good end", err)
			}
			p.restored()
		})
	}
}

func TestTopKeys(t *testing.T) {
	file := topGateway(t)
	serveTop(t, file)
	p := newPTY(t)
	cmd := p.run(nil, "top", "-c", file, "--interval", "500ms")
	p.shows("sort: slowest")
	p.shows("accepted/s         0.0") // the second answer
	p.press("\x1b[A")                 // no key of ours
	p.press("s")
	p.shows("sort: sessions")
	p.press("p")
	p.shows("paused")
	p.press("p")
	p.shows("p pause")
	p.press("?")
	p.shows("Rates are of the last interval")
	p.press("q") // ends the help
	p.shows("sort: sessions")
	p.resize(40, 12)
	p.until("a picture of 40x12", func(lines []string) bool {
		for _, l := range lines {
			if cells(l) > 40 {
				return false
			}
		}
		return len(lines) == 12
	})
	if strings.Contains(p.text(), "\x1b[1m") {
		t.Error("there are colours in spite of NO_COLOR")
	}
	p.press("q")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	p.restored()
}

// TestTopOutlivesGateway holds that it waits for a gateway that is restarted.
func TestTopOutlivesGateway(t *testing.T) {
	file := topGateway(t)
	serving := serveTop(t, file)
	p := newPTY(t)
	cmd := p.run([]string{"NO_COLOR="}, "top", "-c", file, "--interval", "500ms")
	p.shows("accepted/s")
	_ = serving.Process.Signal(syscall.SIGTERM)
	if err := serving.Wait(); err != nil {
		t.Error(err)
	}
	p.shows("no answer for")
	p.shows("trying again")
	serveTop(t, file)
	p.until("another answer", func(lines []string) bool { return !strings.Contains(strings.Join(lines, "\n"), "no answer for") })
	if !strings.Contains(p.text(), "\x1b[1m") {
		t.Error("there are no colours")
	}
	p.press("q")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	p.restored()
}

// TestTopPanic holds that a slip of ours does not cost the terminal.
func TestTopPanic(t *testing.T) {
	p := newPTY(t)
	s := newScreen(p.slave, p.slave, func(string) string { return "" })
	loop := &topLoop{screen: s, view: &topView{interval: time.Hour}} // without any answer it cannot be drawn
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it did not panic: the test holds nothing")
			}
		}()
		_ = loop.run(t.Context())
	}()
	p.restored()
}
