package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds every wait of a script: far more than anything takes here,
// far less than the test binary's own timeout.
const patience = 60 * time.Second

type stageKey struct{}

// A stage is what one script has running; it dies with the script.
type stage struct {
	t        testscript.T
	work     string
	programs map[string]*program
	clients  map[string]*popClient
	streams  map[string]*stream
	fickle   map[string]*fickle
	folders  []string // outside work, to be removed
	servers  []func() error
	ca       *authority
	sessions *sessions
	wforced  *wforced
}

func stageOf(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// close ends everything and shows what the programs said if the script failed.
func (s *stage) close() {
	for _, c := range s.clients {
		c.conn.Close()
	}
	for _, stop := range s.servers {
		if err := stop(); err != nil {
			s.t.Log(err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.programs)) {
		p := s.programs[name]
		p.stop()
		if f, ok := s.t.(interface{ Failed() bool }); ok && f.Failed() {
			s.t.Log(name + " said:\n" + tail(p.log, 8<<10))
		}
	}
	for _, dir := range s.folders {
		if err := os.RemoveAll(dir); err != nil {
			s.t.Log(err)
		}
	}
}

// A program runs beside the script.
type program struct {
	cmd    *exec.Cmd
	log    string
	exited chan struct{} // closed once it has ended; cmd.ProcessState is set then
	done   bool          // the script has seen it end
}

// launch starts cmd with all that it prints in the file log.
func launch(cmd *exec.Cmd, log string) (*program, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &program{cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // the exit status is read from ProcessState
	}()
	return p, nil
}

// stop ends the program, gently first: Dovecot's master takes its children with it only then.
func (p *program) stop() {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL} {
		_ = p.cmd.Process.Signal(sig) // it may have ended by itself
		select {
		case <-p.exited:
			return
		case <-time.After(5 * time.Second):
		}
	}
}

func tail(file string, n int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-n):])
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME PROGRAM ARG...")
	}
	s := stageOf(ts)
	if old := s.programs[args[0]]; old != nil {
		select {
		case <-old.exited:
		default:
			ts.Fatalf("%s runs already", args[0])
		}
	}
	path, err := lookPath(ts.Getenv("PATH"), args[1])
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Args[0] = args[1]
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "POPGATE_METRICS_ADDRESS", "POPGATE_AUDIT_PATH", "GOCOVERDIR"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	p, err := launch(cmd, ts.MkAbs(args[0]+".log"))
	ts.Check(err)
	s.programs[args[0]] = p
}

// lookPath is exec.LookPath on the script's PATH instead of ours.
func lookPath(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// packages says where a program comes from; others are called as their package.
var packages = map[string]string{"dovecot": "dovecot-core dovecot-pop3d", "testssl": "testssl.sh"}

func cmdNeeds(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: needs PROGRAM...")
	}
	for _, name := range args {
		_, err := lookPath(ts.Getenv("PATH"), name)
		if name == "dovecot" && err == nil {
			_, err = os.Stat("/usr/lib/dovecot/pop3-login")
		}
		if err == nil {
			continue
		}
		from := packages[name]
		if from == "" {
			from = name
		}
		skipOrFail(ts, fmt.Sprintf("%s is missing: apt-get install --no-install-recommends %s", name, from))
	}
}

// skipOrFail ends a script that lacks something: in CI nothing may be lacking.
func skipOrFail(ts *testscript.TestScript, text string) {
	if os.Getenv("CI") == "true" {
		ts.Fatalf("%s", text)
	}
	stageOf(ts).t.Skip(text)
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT,
	}
	if neg || len(args) != 2 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal HUP|INT|TERM|KILL|STOP|CONT NAME")
	}
	ts.Check(programOf(ts, args[1]).cmd.Process.Signal(signals[args[0]]))
}

func programOf(ts *testscript.TestScript, name string) *program {
	p := stageOf(ts).programs[name]
	if p == nil {
		ts.Fatalf("no program %s was started", name)
	}
	return p
}

func cmdRunning(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] running NAME")
	}
	running := true
	select {
	case <-programOf(ts, args[0]).exited:
		running = false
	default:
	}
	if running == neg {
		ts.Fatalf("%s: running is %v", args[0], running)
	}
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await NAME STATUS")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	p := programOf(ts, args[0])
	select {
	case <-p.exited:
	case <-time.After(patience):
		ts.Fatalf("%s still runs after %v", args[0], patience)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("%s ended with %v, want exit status %d", args[0], p.cmd.ProcessState, want)
	}
	p.done = true
}

// eventually asks ok again and again until it says true, or for as long as patience lasts.
func eventually(ts *testscript.TestScript, what string, ok func() (bool, error)) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		done, err := ok()
		if done {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			ts.Fatalf("%s: not in %v (%v)", what, patience, err)
		}
	}
}

func cmdWaitfor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitfor FILE REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	eventually(ts, args[1]+" in "+args[0], func() (bool, error) {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return re.Match(text), err
	})
}

func cmdWaitready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitready HOST:PORT")
	}
	eventually(ts, "ready at "+args[0], func() (bool, error) {
		for name, p := range stageOf(ts).programs {
			select {
			case <-p.exited:
				if !p.done {
					ts.Fatalf("%s ended before %s was ready", name, args[0])
				}
			default:
			}
		}
		return ready("http://" + args[0] + "/readyz")
	})
}

// cmdWaitsays waits until what stands at a URL matches.
func cmdWaitsays(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: waitsays URL REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	eventually(ts, args[1]+" at "+args[0], func() (bool, error) {
		body, err := fetch(args[0])
		if err == nil && !re.Match(body) {
			err = fmt.Errorf("it says %s", body)
		}
		return err == nil, err
	})
}

func ready(url string) (bool, error) {
	_, err := fetch(url)
	return err == nil, err
}

func fetch(url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		err = errors.Join(fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body)), err)
	}
	return body, err
}

var variable = regexp.MustCompile(`\$\{[A-Z0-9_]+\}`)

func cmdExpand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: expand FILE...")
	}
	for _, name := range args {
		text := variable.ReplaceAllStringFunc(ts.ReadFile(name), func(v string) string {
			return ts.Getenv(v[2 : len(v)-1])
		})
		ts.Check(os.Chmod(ts.MkAbs(name), 0o600)) // fetchmail and mpop read no password from a file that others can
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

// lastPort makes the ports of scripts that run at once differ.
var lastPort atomic.Int32

func cmdFreeport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport VAR...")
	}
	for _, name := range args {
		port, err := freePort()
		ts.Check(err)
		ts.Setenv(name, strconv.Itoa(port))
	}
}

// freePort finds a port below those the kernel hands out by itself, so that
// nothing else takes it before the program it is meant for.
func freePort() (int, error) {
	const low, high = 20000, 32000
	lastPort.CompareAndSwap(0, int32(low+rand.IntN(high-low)))
	var tried []string
	for range 100 {
		port := low + (int(lastPort.Add(1))-low)%(high-low)
		err := bindable(port)
		if err == nil {
			return port, nil
		}
		tried = append(tried, err.Error())
	}
	return 0, fmt.Errorf("no free port: %s", strings.Join(tried, "; "))
}

func bindable(port int) error {
	for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}
