package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/popgate/popgate/proxy/pop3mem"
)

// cmdDovecotAs starts one Dovecot of several, each with all the mail and with passwords of its own:
//
//	dovecotas VAR PASSWORD                every account has that password; $VAR is its address, $VAR_PORT its port, $VAR_LOG its log
//	dovecotas VAR PASSWORD MASTER SECRET  and the master user may log in as anybody
//
// With $DOVECOT_SETTINGS it has the settings in that file besides.
func cmdDovecotAs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 && len(args) != 4 {
		ts.Fatalf("usage: dovecotas VAR PASSWORD [MASTER SECRET]")
	}
	s, name := stageOf(ts), "dovecot "+args[0]
	if s.programs[name] != nil {
		ts.Fatalf("%s was started already", name)
	}
	dir, err := os.MkdirTemp("", "dovecot")
	ts.Check(err)
	s.folders = append(s.folders, dir)
	d, err := newDovecotServer(dir, "plain")
	ts.Check(err)
	users := filepath.Join(dir, "users")
	if len(args) == 4 {
		d.Settings += "auth_master_user_separator = *\npassdb {\n  driver = passwd-file\n  args = " + filepath.Join(dir, "masters") + "\n  master = yes\n}\n"
	}
	if file := ts.Getenv("DOVECOT_SETTINGS"); file != "" {
		d.Settings += ts.ReadFile(file)
	}
	ts.Check(d.layOut(s.work))
	text, err := os.ReadFile(users)
	ts.Check(err)
	ts.Check(os.WriteFile(users, []byte(strings.ReplaceAll(string(text), "{PLAIN}"+password, "{PLAIN}"+args[1])), 0o600))
	if len(args) == 4 {
		masters := filepath.Join(dir, "masters")
		ts.Check(os.WriteFile(masters, []byte(args[2]+":{PLAIN}"+args[3]+"\n"), 0o600))
		ts.Check(os.Chown(masters, d.uid, d.gid))
	}
	path, err := lookPath(ts.Getenv("PATH"), "dovecot")
	ts.Check(err)
	cmd := exec.Command(path, "-F", "-c", filepath.Join(dir, "dovecot.conf"))
	cmd.Dir = dir
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(d.uid), Gid: uint32(d.gid)}}
	}
	log := filepath.Join(dir, "dovecot.log")
	s.programs[name], err = launch(cmd, log)
	ts.Check(err)
	address := net.JoinHostPort("127.0.0.2", strconv.Itoa(d.Port))
	ts.Setenv(args[0], address)
	ts.Setenv(args[0]+"_PORT", strconv.Itoa(d.Port))
	ts.Setenv(args[0]+"_LOG", log)
	eventually(ts, name, func() (bool, error) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})
}

// cmdMailserver starts a quick server for the accounts u0@example.org to uN-1@example.org, at $VAR.
func cmdMailserver(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mailserver VAR ACCOUNTS")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	server := pop3mem.New(pop3mem.Options{})
	for i := range n {
		account := fmt.Sprintf("u%d@example.org", i)
		server.Add(account, password, pop3mem.Welcome(account)...)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	s := stageOf(ts)
	s.servers = append(s.servers, func() error {
		err := server.Close()
		if e := <-served; !errors.Is(e, pop3mem.ErrServerClosed) {
			return e
		}
		return err
	})
	ts.Setenv(args[0], l.Addr().String())
}

// cmdPostgres starts a PostgreSQL below $PGDIR, for user popgate and without a password. The first time it is filled by the
// statements in a file, one a line; after that it is the same one again.
func cmdPostgres(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: postgres [STATEMENTS]")
	}
	postgres, err := postgresProgram("postgres")
	if err != nil {
		skipOrFail(ts, err.Error())
	}
	attr, err := unprivileged()
	ts.Check(err)
	s, dir := stageOf(ts), ts.Getenv("PGDIR")
	if len(args) == 1 {
		dir, err = os.MkdirTemp("", "pg") // a socket needs a short path
		ts.Check(err)
		s.folders = append(s.folders, dir)
		ts.Setenv("PGDIR", dir)
		ts.Check(fillPostgres(dir, attr, ts.ReadFile(args[0])))
	} else if old := s.programs["postgres"]; old == nil || !old.done {
		ts.Fatalf("postgres without statements is for one that was ended")
	}
	cmd := exec.Command(postgres, "-D", filepath.Join(dir, "data"), "-k", dir, "-h", "", "-F")
	cmd.Dir, cmd.SysProcAttr = dir, attr
	logs, err := filepath.Glob(filepath.Join(dir, "*.log"))
	ts.Check(err)
	log := filepath.Join(dir, fmt.Sprintf("%d.log", len(logs)))
	s.programs["postgres"], err = launch(cmd, log)
	ts.Check(err)
	eventually(ts, "postgres", func() (bool, error) {
		text, err := os.ReadFile(log)
		return strings.Contains(string(text), "ready to accept connections"), err
	})
}

// fillPostgres makes the database of a server that does not run.
func fillPostgres(dir string, attr *syscall.SysProcAttr, statements string) error {
	if attr != nil {
		if err := os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid)); err != nil {
			return err
		}
	}
	data := filepath.Join(dir, "data")
	for _, args := range [][]string{
		{"initdb", "-D", data, "-U", "popgate", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8"},
		{"postgres", "--single", "-F", "-D", data, "postgres"},
	} {
		path, err := postgresProgram(args[0])
		if err != nil {
			return err
		}
		cmd := exec.Command(path, args[1:]...)
		cmd.Dir, cmd.SysProcAttr, cmd.Stdin = dir, attr, strings.NewReader(statements)
		// The single-user server says ERROR and ends well.
		if out, err := cmd.CombinedOutput(); err != nil || regexp.MustCompile(`ERROR|FATAL`).Match(out) {
			return fmt.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
	return nil
}

// postgresProgram finds one of Debian's, which are outside every path.
func postgresProgram(name string) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("%s is missing: apt-get install --no-install-recommends postgresql", name)
	}
	return found[len(found)-1], nil
}

// unprivileged is who a server runs as that refuses to be root's; nil where the test is not root.
func unprivileged() (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}
