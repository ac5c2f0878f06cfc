package dns

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
)

// The secrets of the keys that the named of the tests knows; made up here and worth nothing.
const (
	testSecret256 = "c2VjcmV0LW9mLXRoZS10ZXN0cy0yNTYtYml0cy1sb25nISE="
	testSecret512 = "YW5vdGhlci1zZWNyZXQtb2YtdGhlLXRlc3RzLWZvci1obWFjLXNoYTUxMi1rZXlz"
)

func keyFileText(name, algorithm, secret string) string {
	return fmt.Sprintf("key %q {\n\talgorithm %s;\n\tsecret %q;\n};\n", name, algorithm, secret)
}

// startNamed runs BIND on loopback, as whoever runs the tests, with the zones example.org, sub.example.org and acme.example.net.
func startNamed(t *testing.T) string {
	t.Helper()
	program := namedProgram(t)
	for range 3 {
		port := freePort(t)
		if runNamed(t, program, port) {
			return "127.0.0.1:" + port
		}
	}
	t.Fatal("named does not come up")
	return ""
}

func namedProgram(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("named")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/named")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("named is missing: install bind9")
		}
		t.Skip("named is missing: install bind9")
	}
	// AppArmor's profile, where there is one, goes by the program's path and keeps it out of the test's folder.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "named")
	writeProgram(t, own, data)
	return own
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func runNamed(t *testing.T, program, port string) bool {
	t.Helper()
	dir := t.TempDir()
	zones := ""
	for zone, grant := range map[string]string{
		"example.org":      "grant popgate subdomain _acme-challenge.mail.example.org TXT; grant strong subdomain example.org TXT;",
		"sub.example.org":  "grant popgate subdomain sub.example.org TXT;",
		"acme.example.net": "grant popgate subdomain acme.example.net TXT;",
	} {
		text := "$TTL 60\n@ SOA ns1.example.org. hostmaster 1 3600 600 86400 60\n@ NS ns1.example.org.\n"
		if zone == "example.org" {
			text += "ns1 A 127.0.0.1\nsub NS ns1\n_acme-challenge.pop CNAME pop.acme.example.net.\n"
		}
		if err := os.WriteFile(filepath.Join(dir, zone), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		zones += fmt.Sprintf("zone %q { type primary; file %q; update-policy { %s }; };\n", zone, zone, grant)
	}
	conf := fmt.Sprintf(`options {
	directory %q; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
	pid-file none; session-keyfile none; recursion no; notify no; dnssec-validation no;
};
controls { };
%s%s%s`, dir, port, keyFileText("popgate", "hmac-sha256", testSecret256), keyFileText("strong", "hmac-sha512", testSecret512), zones)
	path := filepath.Join(dir, "named.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-g", "-4", "-n", "1", "-c", path)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
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
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-drained
		_ = cmd.Wait()
	})
	if !up {
		t.Logf("named on port %s: %s", port, said.String())
	}
	return up
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
