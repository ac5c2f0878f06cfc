package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// mailutilsDir is where .ci/install-test-deps.sh unpacks GNU Mailutils' POP3 server: Debian lets it not stand beside Dovecot's.
const mailutilsDir = "/usr/local/lib/popgate-tests/mailutils"

// cmdMailutils serves each connection by a pop3d of its own, as inetd would. Nobody can log in there: for that it asks PAM.
func cmdMailutils(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: mailutils")
	}
	server := filepath.Join(mailutilsDir, "usr/sbin/pop3d")
	if _, err := os.Stat(server); err != nil {
		skipOrFail(ts, server+" is missing: run .ci/install-test-deps.sh as root")
	}
	work := stageOf(ts).work
	conf := filepath.Join(work, "pop3d.conf")
	ts.Check(os.WriteFile(conf, fmt.Appendf(nil, "tls-mode ondemand;\ntls {\n  ssl-certificate-file %[1]s/tls/cert.pem;\n  ssl-key-file %[1]s/tls/key.pem;\n}\n", work), 0o600))
	folders, err := filepath.Glob(filepath.Join(mailutilsDir, "usr/lib/*-linux-gnu*"))
	ts.Check(err)
	more, err := filepath.Glob(filepath.Join(mailutilsDir, "lib/*-linux-gnu*"))
	ts.Check(err)
	folders = append(append(folders, more...), filepath.Join(mailutilsDir, "usr/lib"))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				serveByProgram(c.(*net.TCPConn), strings.Join(folders, ":"), server, "--no-site-config", "--config-file="+conf, "--inetd")
			})
		}
	})
	ts.Defer(func() {
		l.Close()
		serving.Wait()
	})
	ts.Setenv("MAILUTILS", l.Addr().String())
}

// serveByProgram gives a connection to a program, and waits for its end, which the client's brings about.
func serveByProgram(c *net.TCPConn, libraries, program string, args ...string) {
	f, err := c.File()
	c.Close()
	if err != nil {
		return // what the client sees is the script's business
	}
	defer f.Close()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries)
	cmd.Stdin, cmd.Stdout = f, f
	_ = cmd.Run() // its status says how the client left
}
