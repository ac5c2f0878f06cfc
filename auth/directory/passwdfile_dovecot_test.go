//go:build linux

package directory

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/passwd"
	"github.com/popgate/popgate/auth/peers"
)

const dovecotConf = `
base_dir = %[1]s/run
state_dir = %[1]s/run
log_path = /dev/stderr
protocols =
ssl = no
default_internal_user = %[2]s
default_internal_group = %[3]s
default_login_user = %[2]s
first_valid_uid = 1
auth_failure_delay = 0
passdb {
  driver = passwd-file
  args = %[4]s %[1]s/passwd
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
`

// startDovecot starts a Dovecot that only answers questions about the users in text, and gives its configuration file.
func startDovecot(t *testing.T, args, text string) (conf string) {
	t.Helper()
	path, doveadm := peers.Program(t, "dovecot", "dovecot-core"), peers.Program(t, "doveadm", "dovecot-core")
	me, err := user.Current()
	if err == nil && me.Uid == "0" {
		me, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	conf = dir + "/dovecot.conf"
	writeFile(t, conf, fmt.Sprintf(dovecotConf, dir, me.Username, group.Name, args))
	writeFile(t, dir+"/passwd", text)
	var log bytes.Buffer
	cmd := exec.Command(path, "-F", "-c", conf)
	cmd.Stdout, cmd.Stderr = &log, &log
	if os.Geteuid() == 0 {
		uid, _ := strconv.Atoi(me.Uid)
		gid, _ := strconv.Atoi(me.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("dovecot:\n%s", &log)
		}
	})
	deadline := time.After(30 * time.Second)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		out, err := exec.CommandContext(t.Context(), doveadm, "-c", conf, "auth", "test", "-x", "service=pop3", "ready@example.org", "secret").CombinedOutput()
		if err == nil {
			return conf
		}
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("dovecot does not answer: %v: %s", err, out)
		}
	}
}

// A verdict is what comes of a user with a password: nothing, or where he is taken.
type verdict struct {
	ok, disabled         bool
	server, tls          string
	user, secret, master string
}

// dovecotVerdict asks Dovecot.
func dovecotVerdict(t *testing.T, conf, name, password, addr string) verdict {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), peers.Program(t, "doveadm", "dovecot-core"),
		"-c", conf, "auth", "test", "-x", "service=pop3", "-x", "rip="+addr, name, password).CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); failed && bytes.Contains(out, []byte("auth failed")) {
		return verdict{}
	}
	if err != nil || !bytes.Contains(out, []byte("auth succeeded")) {
		t.Fatalf("doveadm: %v: %s", err, out)
	}
	_, text, _ := strings.Cut(string(out), "extra fields:\n")
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		fields[key] = value
	}
	v := verdict{ok: true}
	_, v.disabled = fields["nologin"]
	_, proxy := fields["proxy"]
	_, maybe := fields["proxy_maybe"]
	if !proxy && !maybe {
		if fields["user"] != name {
			v.user = fields["user"]
		}
		return v
	}
	port := fields["port"]
	if _, ok := fields["ssl"]; ok {
		v.tls = "implicit"
		if port == "" {
			port = "995" // pop3-login's default_ssl_port
		}
	}
	if _, ok := fields["starttls"]; ok {
		v.tls = "starttls"
	}
	v.server = join(fields["host"], port)
	v.secret, v.master, v.user = fields["pass"], fields["master"], fields["destuser"]
	if v.user == "" && fields["user"] != name {
		v.user = fields["user"]
	}
	return v
}

// ourVerdict is what popgate makes of the same file.
func ourVerdict(t *testing.T, o Opened, checker *passwd.Checker, name, password, addr string) verdict {
	t.Helper()
	q := query(t, name)
	a, err := o.Lookup(t.Context(), &q)
	if errors.Is(err, auth.ErrUnknownUser) || errors.Is(err, auth.ErrWrongPassword) {
		return verdict{}
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if a.Hash != "" {
		if err := checker.Check(t.Context(), netip.Prefix{}, a.Hash, []byte(password)); errors.Is(err, passwd.ErrWrong) {
			return verdict{}
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if len(a.AllowNets) > 0 && !within(a.AllowNets, netip.MustParseAddr(addr)) {
		return verdict{}
	}
	return verdict{true, a.Disabled, a.Server, a.TLS, a.User, a.Secret, a.Master}
}

// dovecotUsers all have the password "secret", where they have one.
const dovecotUsers = `# a comment
:no name
ready@example.org:{PLAIN}secret

plain@example.org:{PLAIN}secret
sha@example.org:{SSHA}KxeAUiPn2RTSOaAYeY57OYcCxDEbE6t0:1000:1000:A Name:/home/x:/bin/false:
md5@example.org:$1$saltsalt$9xy1btjgzLYfb7hivXtC//
pam34@example.org:5ebe2294ecd0e0f08eab7690d2a6ee69[34]
none@example.org
empty@example.org:
star@example.org:*
nopass@example.org:::::::nopassword
both@example.org:{PLAIN}secret::::::nopassword
proxy@example.org:{PLAIN}secret::::::proxy host=127.0.0.2 port=1110
full@example.org:{PLAIN}secret:1:2:g:/h:/s:userdb_mail=maildir:/x proxy=y host=mail.example.net port=110 destuser=%n-x@%d master=boss pass=topsecret
ssl@example.org:{PLAIN}secret::::::proxy host=::1 ssl=yes
sslport@example.org:{PLAIN}secret::::::proxy port=1995 host=2001:db8::5 ssl=any-cert
starttls@example.org:{PLAIN}secret::::::proxy_maybe host=10.0.0.1 starttls=yes
old@example.org:{PLAIN}secret:::::::proxy host=127.0.0.2
closed@example.org:{PLAIN}secret::::::nologin reason=Gone
closedproxy@example.org:{PLAIN}secret::::::proxy host=127.0.0.2 nologin=n
nets@example.org:{PLAIN}secret::::::allow_nets=10.0.0.0/8,127.0.0.1,2001:db8::/32
local@example.org:{PLAIN}secret::::::allow_nets=local
renamed@example.org:{PLAIN}secret::::::user=other@example.org
proxied@example.org:{PLAIN}secret::::::proxy host=127.0.0.2 user=other@example.org
percent@example.org:{PLAIN}secret::::::proxy host=127.0.0.2 pass=100%% destuser=%Ln/%u
open@example.org:::::::proxy host=127.0.0.2 nopassword
failed@example.org:{PLAIN}secret::::::proxy host=127.0.0.2 fail
nohost@example.org:{PLAIN}secret::::::host=127.0.0.3
`

func TestPasswdFileAsDovecotDoes(t *testing.T) {
	conf := startDovecot(t, "", dovecotUsers)
	path := t.TempDir() + "/passwd"
	writeFile(t, path, dovecotUsers)
	c := Config{Type: "passwd_file", PasswdFile: defaultPasswdFile()}
	c.PasswdFile.Path = path
	o := openFile(t, c)
	checker := passwd.New(1)
	var let atomic.Int32
	check := func(t *testing.T, name, password, addr string) {
		want := dovecotVerdict(t, conf, name, password, addr)
		if got := ourVerdict(t, o, checker, name, password, addr); got != want {
			t.Errorf("got %+v\nwant %+v, as Dovecot", got, want)
		}
		if want.ok {
			let.Add(1)
		}
	}
	var all sync.WaitGroup
	turn := make(chan struct{}, 16) // doveadm waits before it says no
	for line := range strings.Lines(dovecotUsers + "nobody@example.org:\n") {
		name, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "" || name[0] == '#' {
			continue
		}
		addrs := []string{"127.0.0.1"}
		if strings.HasPrefix(name, "nets@") {
			addrs = append(addrs, "11.0.0.1", "10.255.0.1", "2001:db8::1", "2001:db9::1")
		}
		for _, password := range []string{"secret", "wrong"} {
			for _, addr := range addrs {
				all.Go(func() {
					turn <- struct{}{}
					defer func() { <-turn }()
					t.Run(name+" with "+password+" from "+addr, func(t *testing.T) { check(t, name, password, addr) })
				})
			}
		}
	}
	all.Wait()
	if n := let.Load(); n < 20 {
		t.Errorf("Dovecot let %d users in: the test shows too little", n)
	}
}

func TestPasswdFileByLocalPart(t *testing.T) {
	const text = "ready:{PLAIN}secret\nalice:{PLAIN}secret::::::proxy host=127.0.0.2 destuser=%u\nBob:{PLAIN}secret\n"
	conf := startDovecot(t, "username_format=%n", text)
	path := t.TempDir() + "/passwd"
	writeFile(t, path, text)
	c := Config{Type: "passwd_file", PasswdFile: defaultPasswdFile()}
	c.PasswdFile.Path, c.PasswdFile.UsernameFormat = path, "%n"
	o := openFile(t, c)
	for _, name := range []string{"alice", "alice@example.org", "Alice@example.org", "eve@example.org"} {
		want := dovecotVerdict(t, conf, name, "secret", "127.0.0.1")
		if got := ourVerdict(t, o, passwd.New(1), name, "secret", "127.0.0.1"); got != want {
			t.Errorf("%s: got %+v, want %+v, as Dovecot", name, got, want)
		}
	}
}
