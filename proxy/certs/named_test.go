package certs

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	miekg "github.com/miekg/dns"
)

// A named is a BIND of the test's own, on loopback. It is the resolver too: by recursion, which never has to leave it, a CNAME from one of
// its zones into another is followed.
type named struct {
	t       *testing.T
	address string
}

// A namedZone is one that a named is primary for.
type namedZone struct {
	records string // beside SOA and NS
	policy  string // its update-policy
}

// startNamed runs Debian's BIND with the TSIG key "popgate" of tsigSecret, and ends it with the test.
func startNamed(t *testing.T, zones map[string]namedZone) *named {
	t.Helper()
	path, err := exec.LookPath("named")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/named")
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("named is missing: install bind9")
		}
		t.Skip("named is missing: install bind9")
	}
	// AppArmor's profile, where there is one, goes by the program's path and keeps it out of the test's folder.
	own := filepath.Join(t.TempDir(), "named")
	writeProgram(t, own, must(os.ReadFile(path)))
	for range 5 {
		n := &named{t: t, address: freeAddress(t)}
		// Somebody may have the port of UDP.
		if n.run(own, zones) {
			return n
		}
	}
	t.Fatal("named does not come up")
	return nil
}

func (n *named) configure(zones map[string]namedZone) string {
	dir := n.t.TempDir()
	_, port, _ := net.SplitHostPort(n.address)
	conf := fmt.Sprintf(`options {
	directory %q; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
	pid-file none; session-keyfile none; recursion yes; notify no; dnssec-validation no;
};
controls { };
key "popgate" { algorithm hmac-sha256; secret %q; };
`, dir, port, tsigSecret)
	for name, z := range zones {
		text := "$TTL 60\n@ SOA ns1.example.org. hostmaster 1 3600 600 86400 1\n@ NS ns1.example.org.\n" + z.records
		write(n.t, filepath.Join(dir, name), []byte(text))
		conf += fmt.Sprintf("zone %q { type primary; file %q; update-policy { %s }; };\n", name, name, z.policy)
	}
	path := filepath.Join(dir, "named.conf")
	write(n.t, path, []byte(conf))
	return path
}

func (n *named) run(program string, zones map[string]namedZone) bool {
	n.t.Helper()
	cmd := exec.Command(program, "-g", "-4", "-n", "1", "-c", n.configure(zones))
	log := must(cmd.StderrPipe())
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewScanner(log)
	up := false
	for !up && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "could not listen") || strings.Contains(lines.Text(), "address in use") {
			break
		}
		up = strings.HasSuffix(lines.Text(), " running")
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, log)
	}()
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-drained
		_ = cmd.Wait()
	})
	if !up {
		n.t.Logf("named at %s: %s", n.address, said.String())
	}
	return up
}

// texts are the TXT records at a name.
func (n *named) texts(name string) (all []string) {
	n.t.Helper()
	m := new(miekg.Msg)
	m.SetQuestion(name+".", miekg.TypeTXT)
	reply, _, err := (&miekg.Client{Net: "tcp"}).Exchange(m, n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, rr := range reply.Answer {
		if txt, ok := rr.(*miekg.TXT); ok {
			all = append(all, strings.Join(txt.Txt, ""))
		}
	}
	return all
}

// writeProgram writes a file to be run. While it is open for writing no other test may start a program: that would have it open too for a
// moment, and a file that is written to cannot be run (ETXTBSY).
func writeProgram(t *testing.T, path string, data []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, data, 0o700); err != nil {
		t.Fatal(err)
	}
}
