package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"text/template"

	"github.com/rogpeppe/go-internal/testscript"
)

const password = "open sesame" // the blank is part of it

// dovecotVariants are the settings by which the backends of the scripts differ.
var dovecotVariants = map[string]string{
	"plain": "ssl = no\ndisable_plaintext_auth = no\n",
	// As Debian and Dovecot ship it: plaintext for the same host alone, which 127.0.0.1 to 127.0.0.2 is not.
	"default": "ssl = yes\n",
	"tls":     "ssl = required\n",
	"xclient": "ssl = no\nlogin_trusted_networks = 127.0.0.0/8\n",
	"proxy":   "ssl = no\ndisable_plaintext_auth = no\nhaproxy_trusted_networks = 127.0.0.0/8\n",
}

// Nothing here needs root: every process is the user who starts it, and chroots to nothing.
var dovecotConf = template.Must(template.New("dovecot.conf").Parse(`
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/state
log_path = /dev/stderr
protocols = pop3
listen = 127.0.0.2
default_internal_user = {{.User}}
default_internal_group = {{.Group}}
default_login_user = {{.User}}
first_valid_uid = 1
auth_verbose = yes
auth_mechanisms = plain login
mail_location = maildir:~/Maildir
mail_max_userip_connections = 0
ssl_cert = <{{.Dir}}/cert.pem
ssl_key = <{{.Dir}}/key.pem
{{.Settings}}
passdb {
  driver = passwd-file
  args = username_format=%u {{.Dir}}/users
}
userdb {
  driver = passwd-file
  args = username_format=%u {{.Dir}}/users
}
# A wrong password is answered at once: how long to make a client wait is for popgate to show.
auth_failure_delay = 0
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
service pop3-login {
  chroot =
  service_count = 0
  inet_listener pop3 {
    port = {{.Port}}
    haproxy = {{.Proxy}}
  }
  inet_listener pop3s {
    port = {{.TLSPort}}
  }
}
`))

// A dovecotServer is one private Dovecot, below one folder.
type dovecotServer struct {
	Dir, User, Group string
	Settings, Proxy  string
	Port, TLSPort    int
	uid, gid         int
}

func cmdDovecot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || dovecotVariants[args[0]] == "" {
		ts.Fatalf("usage: dovecot plain|default|tls|xclient|proxy")
	}
	s := stageOf(ts)
	if s.programs["dovecot"] != nil {
		ts.Fatalf("dovecot was started already")
	}
	// Not in the script's folder: that is closed to the user Dovecot runs as, and sockets need a short path.
	dir, err := os.MkdirTemp("", "dovecot")
	ts.Check(err)
	s.folders = append(s.folders, dir)
	d, err := newDovecotServer(dir, args[0])
	ts.Check(err)
	ts.Check(d.layOut(s.work))
	path, err := lookPath(ts.Getenv("PATH"), "dovecot")
	ts.Check(err)
	cmd := exec.Command(path, "-F", "-c", filepath.Join(dir, "dovecot.conf"))
	cmd.Dir = dir
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(d.uid), Gid: uint32(d.gid)}}
	}
	s.programs["dovecot"], err = launch(cmd, filepath.Join(dir, "dovecot.log"))
	ts.Check(err)
	ts.Setenv("BACKEND", net.JoinHostPort("127.0.0.2", strconv.Itoa(d.Port)))
	ts.Setenv("BACKEND_PORT", strconv.Itoa(d.Port))
	ts.Setenv("BACKEND_TLS", net.JoinHostPort("127.0.0.2", strconv.Itoa(d.TLSPort)))
	ts.Setenv("DOVECOT_LOG", filepath.Join(dir, "dovecot.log"))
	eventually(ts, "dovecot", func() (bool, error) {
		conn, err := net.Dial("tcp", ts.Getenv("BACKEND"))
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})
}

// newDovecotServer runs as whoever runs the test, but never as root: Dovecot lets root read no mail.
func newDovecotServer(dir, variant string) (*dovecotServer, error) {
	me, err := user.Current()
	if err == nil && me.Uid == "0" {
		me, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, err
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		return nil, err
	}
	d := &dovecotServer{Dir: dir, User: me.Username, Group: group.Name, Settings: dovecotVariants[variant], Proxy: "no"}
	if variant == "proxy" {
		d.Proxy = "yes"
	}
	if d.uid, err = strconv.Atoi(me.Uid); err != nil {
		return nil, err
	}
	if d.gid, err = strconv.Atoi(me.Gid); err != nil {
		return nil, err
	}
	for _, port := range []*int{&d.Port, &d.TLSPort} {
		if *port, err = freePort(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// layOut writes the configuration and delivers the mail below work/mail.
func (d *dovecotServer) layOut(work string) error {
	if err := os.CopyFS(d.Dir, os.DirFS(filepath.Join(work, "tls"))); err != nil {
		return err
	}
	accounts, err := os.ReadDir(filepath.Join(work, "mail"))
	if err != nil {
		return err
	}
	var users strings.Builder
	for _, a := range accounts {
		home := filepath.Join(d.Dir, "home", a.Name())
		fmt.Fprintf(&users, "%s:{PLAIN}%s:%d:%d::%s::\n", a.Name(), password, d.uid, d.gid, home)
		if err := deliver(filepath.Join(work, "mail", a.Name()), filepath.Join(home, "Maildir")); err != nil {
			return err
		}
	}
	var conf strings.Builder
	if err := dovecotConf.Execute(&conf, d); err != nil {
		return err
	}
	for name, text := range map[string]string{"users": users.String(), "dovecot.conf": conf.String()} {
		if err := os.WriteFile(filepath.Join(d.Dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return filepath.WalkDir(d.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, d.uid, d.gid)
	})
}

// deliver puts the messages of a folder into a Maildir, in the order of their names.
func deliver(from, maildir string) error {
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(maildir, sub), 0o700); err != nil {
			return err
		}
	}
	messages, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for i, m := range messages {
		text, err := os.ReadFile(filepath.Join(from, m.Name()))
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d.M%dP1.example.org:2,", 1700000000+i, i)
		if err := os.WriteFile(filepath.Join(maildir, "cur", name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
