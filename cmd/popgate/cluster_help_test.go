//go:build unix

package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/peers"
)

// A farm is several gateways of one cluster, each a process of its own, before one POP3 server.
type farm struct {
	t       testing.TB
	dir     string
	roots   string // the CA's file
	backend string
	text    string // what the nodes have in common beside
	nodes   []*member
}

// A member is one of the gateways.
type member struct {
	*peers.Daemon
	file, address, metrics string
}

// newFarm makes a farm whose nodes share what the section cluster.redis says. cluster is the rest of the section cluster, in braces' insides.
func newFarm(t testing.TB, redis, cluster, text string) *farm {
	t.Helper()
	f := &farm{t: t, dir: peers.Dir(t), backend: openHouse(t)}
	if _, err := writeCertificates(filepath.Join(f.dir, "tls")); err != nil {
		t.Fatal(err)
	}
	f.roots = filepath.Join(f.dir, "tls", "ca.pem")
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	f.write("cluster.key", base64.StdEncoding.EncodeToString(secret[:])+"\n")
	f.text = fmt.Sprintf("cluster: {redis: %s, key_file: %s/cluster.key, %s}\n%s", redis, f.dir, cluster, strings.TrimLeft(text, "\n"))
	return f
}

func (f *farm) write(name, text string) (path string) {
	f.t.Helper()
	path = filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

const memberText = `
node: n%[1]d
state_dir: "%[2]s/state%[1]d"
listeners:
  - {name: pop3s, address: "%[3]s"}
tls: {certificates: [{cert: "%[2]s/tls/cert.pem", key: "%[2]s/tls/key.pem"}]}
backends: [{name: mail, servers: [{address: "%[5]s"}]}]
audit: {path: "%[2]s/audit%[1]d.jsonl"}
metrics: {address: "%[4]s"}
admin: {socket: "%[2]s/n%[1]d.sock"}
bounds: {failed_logins: 10000}
timeouts: {client_login: 10m}
log: {level: debug}
`

// grow starts n nodes more and waits until all know each other and count together.
func (f *farm) grow(n int) []*member {
	f.t.Helper()
	for range n {
		i := len(f.nodes) + 1
		m := &member{address: "127.0.0.1:" + peers.Port(f.t), metrics: "127.0.0.1:" + peers.Port(f.t)}
		m.file = f.write(fmt.Sprintf("n%d.yaml", i), fmt.Sprintf(memberText, i, f.dir, m.address, m.metrics, f.backend)+f.text)
		m.Daemon = &peers.Daemon{
			Start: func() *exec.Cmd { return exec.Command("popgate", "serve", "-c", m.file) }, // TestMain has put it there
			Ready: func() error { _, err := ready("http://" + m.metrics + "/readyz"); return err },
		}
		m.Run(f.t)
		f.nodes = append(f.nodes, m)
	}
	f.together(len(f.nodes))
	return f.nodes
}

// together waits until the nodes that run, n of them, count together.
func (f *farm) together(n int) {
	f.t.Helper()
	for i, m := range f.nodes {
		peers.Eventually(f.t, fmt.Sprintf("node %d of %d", i+1, n), func() error {
			if alive, state := m.metric(f.t, "popgate_cluster_nodes"), m.metric(f.t, `popgate_cluster_state{state="together"}`); int(alive) != n || state != 1 {
				return fmt.Errorf("it counts %v alive, together %v", alive, state)
			}
			return nil
		})
	}
}

// kill ends a node as a loss of power does.
func (m *member) kill(t testing.TB) {
	m.End = syscall.SIGKILL
	m.Down(t)
	m.End = nil
}

// metric is the value of one series, and 0 where there is none.
func (m *member) metric(t testing.TB, series string) float64 {
	t.Helper()
	body, err := fetch("http://" + m.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(body) {
		if rest, ok := bytes.CutPrefix(line, []byte(series+" ")); ok {
			v, err := strconv.ParseFloat(string(bytes.TrimSpace(rest)), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// alone is how many decisions the nodes have made without Redis.
func (f *farm) alone() (n int) {
	f.t.Helper()
	for _, m := range f.nodes {
		n += int(m.metric(f.t, `popgate_cluster_decisions_total{by="alone"}`))
	}
	return n
}

// A caller is a mail client from one address at one node.
type caller struct {
	*popClient
}

// call connects, by TLS, and reads the greeting. A client that is not let in finds the connection closed.
func (f *farm) call(m *member, from string) (*caller, error) {
	c, err := dialPOP3([]string{m.address, from})
	if err != nil {
		return nil, err
	}
	raw := c.conn
	_ = raw.SetDeadline(time.Now().Add(patience))
	err = c.startTLS(f.roots, "mail.example.org")
	if err == nil {
		_, err = c.lines.ReadString('\n')
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return &caller{c}, nil
}

// say sends a line and reads the answer's.
func (c *caller) say(line string) (reply string, err error) {
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		return "", err
	}
	return c.lines.ReadString('\n')
}

// login tries a password. The answer is one line.
func (c *caller) login(user, secret string) (reply string, err error) {
	if reply, err = c.say("USER " + user); err != nil || !strings.HasPrefix(reply, "+OK") {
		return reply, err
	}
	return c.say("PASS " + secret)
}

// quit ends the session, and waits for the server to end it too: then its places are free.
func (c *caller) quit() error {
	defer c.conn.Close()
	if _, err := c.say("QUIT"); err != nil {
		return err
	}
	_, err := c.lines.ReadString('\n')
	if err == io.EOF { //nolint:errorlint // as it comes from the connection
		return nil
	}
	return fmt.Errorf("after QUIT: %w", err)
}

// openHouse is a POP3 server where everybody with the right password has a mailbox, any number of sessions at once.
func openHouse(t testing.TB) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { welcome(c) })
		}
	})
	return l.Addr().String()
}

func welcome(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * patience))
	r := bufio.NewReader(c)
	for reply := "+OK ready\r\n"; ; {
		if _, err := io.WriteString(c, reply); err != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		reply = "+OK\r\n"
		switch verb, arg, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case verb == "PASS" && arg != password:
			reply = "-ERR [AUTH] no\r\n"
		case verb == "CAPA":
			reply = "+OK\r\nUSER\r\nUIDL\r\nTOP\r\n.\r\n"
		case verb == "QUIT":
			_, _ = io.WriteString(c, reply)
			return
		}
	}
}

// A redisServer is one that a test stops, holds up and starts again, empty.
type redisServer struct {
	*peers.Daemon
	address string
	cmd     *exec.Cmd
}

func startRedis(t testing.TB, settings ...string) *redisServer {
	t.Helper()
	path, port := peers.Program(t, "redis-server", "redis-server"), peers.Port(t)
	r := &redisServer{address: "127.0.0.1:" + port}
	dir := t.TempDir()
	r.Daemon = &peers.Daemon{
		Start: func() *exec.Cmd {
			r.cmd = exec.Command(path, append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir}, settings...)...)
			return r.cmd
		},
		Ready: func() error {
			c, err := net.Dial("tcp", r.address)
			if err != nil {
				return err
			}
			return c.Close()
		},
	}
	r.Run(t)
	t.Cleanup(func() { r.signal(t, syscall.SIGCONT) }) // it could not be ended else
	return r
}

func (r *redisServer) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil && s != syscall.SIGCONT {
		t.Fatal(err)
	}
}

func (r *redisServer) section() string { return fmt.Sprintf("{addresses: [%q]}", r.address) }
