//go:build unix

package peers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A Zone is one that a BIND is primary for.
type Zone struct {
	Records string // beside SOA and NS
	Policy  string // its update-policy
}

// BIND starts a named on loopback, as whoever runs the test, and returns its address. options and keys are statements of its configuration.
func BIND(t testing.TB, options, keys string, zones map[string]Zone) (address string) {
	t.Helper()
	data, err := os.ReadFile(Program(t, "named", "bind9"))
	if err != nil {
		t.Fatal(err)
	}
	// AppArmor's profile, where there is one, goes by the program's path and keeps it out of the test's folder.
	own := filepath.Join(t.TempDir(), "named")
	WriteProgram(t, own, data)
	for range 5 {
		port := Port(t)
		d := new(Daemon)
		conf := configureBIND(t, port, options, keys, zones)
		d.Start = func() *exec.Cmd { return exec.Command(own, "-g", "-4", "-n", "1", "-c", conf) }
		d.Ready = func() error {
			if !strings.Contains(d.Said(), " running\n") {
				return errors.New("it says nothing of running")
			}
			return nil
		}
		t.Cleanup(func() { d.Down(t) })
		err := d.up()
		if err == nil && !strings.Contains(d.Said(), "could not listen") && !strings.Contains(d.Said(), "address in use") {
			return net.JoinHostPort("127.0.0.1", port)
		}
		// Somebody may have the port of UDP.
		t.Logf("named on port %s: %v\n%s", port, err, d.Said())
		d.Down(t)
	}
	t.Fatal("named does not come up")
	return ""
}

// configureBIND writes the configuration and the zones, and returns the path of the former.
func configureBIND(t testing.TB, port, options, keys string, zones map[string]Zone) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	conf := fmt.Sprintf(`options {
	directory %q; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
	pid-file none; session-keyfile none; notify no; dnssec-validation no; %s
};
controls { };
%s
`, dir, port, options, keys)
	for name, z := range zones {
		put(name, "$TTL 60\n@ SOA ns1.example.org. hostmaster 1 3600 600 86400 1\n@ NS ns1.example.org.\n"+z.Records)
		conf += fmt.Sprintf("zone %q { type primary; file %q; update-policy { %s }; };\n", name, name, z.Policy)
	}
	return put("named.conf", conf)
}
