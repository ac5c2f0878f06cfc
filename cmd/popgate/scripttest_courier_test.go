package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// courierDir is where .ci/install-test-deps.sh unpacks Courier: Debian lets it not stand beside Dovecot's.
const courierDir = "/usr/local/lib/popgate-tests/courier"

// courierRun starts Courier with the settings that Debian ships, save the address and MAXPERIP. /etc and /run are its own: authdaemond
// knows them only under these names. All of it ends with the standard input, for the shell is the first process of its namespace.
var courierRun = template.Must(template.New("run").Parse(`set -e
mount --bind {{.Dir}}/etc /etc
mount --bind {{.Dir}}/run /run
export LD_LIBRARY_PATH={{.Libraries}}
libexec={{.Root}}/usr/lib/courier
$libexec/courier-authlib/authdaemond &
export POP3_STARTTLS=YES POP3_TLS_REQUIRED={{.TLSRequired}} COURIERTLS={{.Root}}/usr/bin/couriertls
export TLS_CERTFILE={{.Dir}}/both.pem TLS_VERIFYPEER=NONE
{{.Root}}/usr/sbin/couriertcpd -address=127.0.0.2 -maxprocs=40 -maxperip=40 -nodnslookup -noidentlookup {{.Port}} \
	$libexec/courier/courierpop3login $libexec/courier/courierpop3d Maildir &
cat >/dev/null
`))

// A courierServer is one private Courier, below one folder.
type courierServer struct {
	Dir, Root, Libraries string
	TLSRequired          string
	Port                 int
	uid, gid             int
}

// cmdCourier starts Courier with the mail made up. An account that begins with "barred" may not use POP3, one with "sticky" has the
// sticky bit at its home, and one with "homeless" has no Maildir.
func cmdCourier(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 || len(args) == 1 && args[0] != "tls" {
		ts.Fatalf("usage: courier [tls]")
	}
	if _, err := os.Stat(filepath.Join(courierDir, "usr/lib/courier/courier/courierpop3login")); err != nil {
		skipOrFail(ts, "Courier is missing in "+courierDir+": run .ci/install-test-deps.sh as root")
	}
	command := []string{"unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh"}
	if os.Geteuid() != 0 {
		command = append([]string{"sudo", "-n"}, command...)
	}
	if out, err := exec.Command(command[0], append(command[1:], "-c", "true")...).CombinedOutput(); err != nil {
		skipOrFail(ts, fmt.Sprintf("Courier needs root, for a mount namespace of its own: %v: %s", err, out))
	}
	s := stageOf(ts)
	dir, err := os.MkdirTemp("", "courier")
	ts.Check(err)
	s.folders = append(s.folders, dir)
	c, err := newCourierServer(dir, len(args) == 1)
	ts.Check(err)
	ts.Check(c.layOut(s.work))
	cmd := exec.Command(command[0], append(command[1:], filepath.Join(dir, "run.sh"))...)
	running, err := cmd.StdinPipe()
	ts.Check(err)
	p, err := launch(cmd, filepath.Join(dir, "courier.log"))
	ts.Check(err)
	s.programs["courier"] = p
	s.servers = append(s.servers, func() error {
		running.Close()
		select {
		case <-p.exited:
			return nil
		case <-time.After(patience):
			return fmt.Errorf("courier still runs after %v", patience)
		}
	})
	ts.Setenv("COURIER", net.JoinHostPort("127.0.0.2", strconv.Itoa(c.Port)))
	ts.Setenv("COURIER_LOG", p.log)
	eventually(ts, "courier", func() (bool, error) {
		if _, err := os.Stat(filepath.Join(dir, "run/courier/authdaemon/socket")); err != nil {
			return false, err
		}
		conn, err := net.Dial("tcp", ts.Getenv("COURIER"))
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})
}

func newCourierServer(dir string, tlsRequired bool) (*courierServer, error) {
	// Mailboxes are never root's.
	owner, err := newDovecotServer(dir, "plain")
	if err != nil {
		return nil, err
	}
	c := &courierServer{Dir: dir, Root: courierDir, TLSRequired: "0", Port: owner.Port, uid: owner.uid, gid: owner.gid}
	if tlsRequired {
		c.TLSRequired = "1"
	}
	folders, err := filepath.Glob(filepath.Join(courierDir, "usr/lib/*-linux-gnu*"))
	if err != nil {
		return nil, err
	}
	folders = append(folders, filepath.Join(courierDir, "usr/lib"), filepath.Join(courierDir, "usr/lib/courier-authlib"))
	c.Libraries = strings.Join(folders, ":")
	return c, nil
}

// layOut writes the configuration and delivers the mail below work/mail.
func (c *courierServer) layOut(work string) error {
	for _, sub := range []string{"etc/courier", "run/courier/authdaemon", "home"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, sub), 0o755); err != nil {
			return err
		}
	}
	var run strings.Builder
	if err := courierRun.Execute(&run, c); err != nil {
		return err
	}
	var both []byte
	for _, name := range []string{"key.pem", "cert.pem"} {
		text, err := os.ReadFile(filepath.Join(work, "tls", name))
		if err != nil {
			return err
		}
		both = append(both, text...)
	}
	files := map[string][]byte{"run.sh": []byte(run.String()), "both.pem": both,
		"etc/courier/authdaemonrc": []byte("authmodulelist=\"authuserdb\"\ndaemons=2\nDEBUG_LOGIN=0\nDEFAULTOPTIONS=\"\"\n")}
	own := map[string]string{"nsswitch.conf": "", "ld.so.cache": "", // couriertls becomes the user courier
		"passwd": fmt.Sprintf("courier:x:%d:%d::/nonexistent:/bin/false\n", c.uid, c.gid), "group": fmt.Sprintf("courier:x:%d:\n", c.gid)}
	for name, line := range own {
		text, err := os.ReadFile(filepath.Join("/etc", name))
		if err != nil {
			return err
		}
		files["etc/"+name] = append(text, line...)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(c.Dir, name), text, 0o644); err != nil {
			return err
		}
	}
	if err := os.Chmod(c.Dir, 0o755); err != nil { // whose mail it is must get there
		return err
	}
	return c.makeUsers(work)
}

// makeUsers delivers the mail and writes userdb, as makeuserdb would.
func (c *courierServer) makeUsers(work string) error {
	accounts, err := os.ReadDir(filepath.Join(work, "mail"))
	if err != nil {
		return err
	}
	hash, err := c.program("usr/sbin/userdbpw", password+"\n", "-md5")
	if err != nil {
		return err
	}
	var users, secrets strings.Builder
	for _, a := range accounts {
		home := filepath.Join(c.Dir, "home", a.Name())
		if err := c.makeHome(filepath.Join(work, "mail", a.Name()), home); err != nil {
			return err
		}
		fmt.Fprintf(&users, "%s\tuid=%d|gid=%d|home=%s|mail=%s/Maildir", a.Name(), c.uid, c.gid, home, home)
		if strings.HasPrefix(a.Name(), "barred") {
			users.WriteString("|options=disablepop3=1")
		}
		users.WriteString("|_=\n")
		fmt.Fprintf(&secrets, "%s\tpop3pw=%s\n", a.Name(), strings.TrimSpace(hash))
	}
	for name, text := range map[string]string{"userdb.dat": users.String(), "userdbshadow.dat": secrets.String()} {
		file := filepath.Join(c.Dir, "etc/courier", name)
		if _, err := c.program("usr/lib/courier/courier-authlib/makedatprog", text+".\n", "-", file+".tmp", file); err != nil {
			return err
		}
	}
	return nil
}

func (c *courierServer) makeHome(mail, home string) error {
	if err := deliver(mail, filepath.Join(home, "Maildir")); err != nil {
		return err
	}
	if err := unixLines(filepath.Join(home, "Maildir", "cur")); err != nil {
		return err
	}
	name := filepath.Base(home)
	if strings.HasPrefix(name, "homeless") {
		if err := os.RemoveAll(filepath.Join(home, "Maildir")); err != nil {
			return err
		}
	}
	if err := chownAll(home, c.uid, c.gid); err != nil {
		return err
	}
	if strings.HasPrefix(name, "sticky") {
		return os.Chmod(home, 0o700|os.ModeSticky)
	}
	return nil
}

// program runs one of Courier's small programs.
func (c *courierServer) program(name, input string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(c.Root, name), args...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+c.Libraries)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", cmd, err)
	}
	return string(out), nil
}

// unixLines makes the lines of the files of a folder end as Courier's own mail does: it puts a CR before every LF when it sends.
func unixLines(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		file := filepath.Join(dir, f.Name())
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func chownAll(dir string, uid, gid int) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
}
