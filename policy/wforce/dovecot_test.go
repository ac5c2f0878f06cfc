package wforce

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/popgate/popgate/auth"
)

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// Nothing here needs root: every process is the user who starts it, and chroots to nothing.
var dovecotConf = template.Must(template.New("").Parse(`
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/state
log_path = {{.Dir}}/log
protocols =
ssl = no
default_internal_user = {{.User}}
default_internal_group = {{.Group}}
default_login_user = {{.User}}
auth_verbose = yes
auth_debug = yes
auth_failure_delay = 0
auth_username_chars = abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@\"<ÄÖÜäöü
auth_policy_hash_nonce = {{.Nonce}}
auth_policy_hash_truncate = {{.Bits}}
auth_policy_reject_on_fail = yes
{{.Settings}}
passdb {
  driver = passwd-file
  args = {{.Dir}}/users
}
userdb {
  driver = static
  args = uid=1 gid=1 home=/nowhere
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
`))

// A dovecot is one that asks, with one user, anna@example.org, whose password is "open sesame".
type dovecot struct{ Dir, User, Group, Nonce, Bits, Settings string }

// startDovecot starts Dovecot. It ends with the test.
func startDovecot(t *testing.T, d dovecot) *dovecot {
	t.Helper()
	path := program(t, "dovecot", "dovecot-core")
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
	if d.Dir, err = os.MkdirTemp("", "dove"); err != nil { // sockets need a short path
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d.Dir) })
	d.User, d.Group = me.Username, group.Name
	var conf bytes.Buffer
	if err := dovecotConf.Execute(&conf, d); err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(me.Uid)
	gid, _ := strconv.Atoi(me.Gid)
	err = os.Chown(d.Dir, uid, gid)
	for name, text := range map[string]string{"dovecot.conf": conf.String(), "users": "anna@example.org:{PLAIN}open sesame\n"} {
		file := filepath.Join(d.Dir, name)
		err = errors.Join(err, os.WriteFile(file, []byte(text), 0o600), os.Chown(file, uid, gid))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "-F", "-c", filepath.Join(d.Dir, "dovecot.conf"))
	cmd.Dir = d.Dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(d.Dir, "log"))
			t.Logf("dovecot's log:\n%s", log)
		}
	})
	return &d
}

// try is one login at Dovecot, and says whether it succeeded.
func (d *dovecot) try(t *testing.T, name, password string, facts ...string) bool {
	t.Helper()
	args := []string{"-c", filepath.Join(d.Dir, "dovecot.conf"), "auth", "test", "-x", "service=pop3"}
	for _, f := range facts {
		args = append(args, "-x", f)
	}
	args = append(args, name, password)
	doveadm := program(t, "doveadm", "dovecot-core")
	deadline := time.Now().Add(patience)
	for {
		out, err := exec.CommandContext(t.Context(), doveadm, args...).CombinedOutput()
		var exit *exec.ExitError
		switch {
		case strings.Contains(string(out), "auth succeeded"):
			return true
		case strings.Contains(string(out), "auth failed"):
			return false
		case !errors.As(err, &exit) || time.Now().After(deadline):
			t.Fatalf("doveadm auth test: %v: %s", err, out)
		}
		<-time.After(50 * time.Millisecond) // its master does not listen yet
	}
}

// program finds one that a test cannot do without.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	say := t.Skipf
	if os.Getenv("CI") == "true" {
		say = t.Fatalf
	}
	say("%s is missing: install Debian's package %s", name, pkg)
	return ""
}

// TestDovecot has a real Dovecot ask, and holds what it sends against what we would.
func TestDovecot(t *testing.T) {
	for _, tt := range []struct {
		name, settings, nonce, bits string
		lower                       bool
	}{
		{"password in the URL", "auth_policy_server_url = http://wforce:s3cret@%s/", "oak and ash", "12", true},
		{"header with a name, URL with a query", "auth_policy_server_url = http://%s/x?a=b&\nauth_policy_server_api_header = X-Api-Key:k3y", "ünö", "9", true},
		{"as typed", "auth_username_format =\nauth_policy_server_url = http://%s/\nauth_policy_server_api_header = k3y", "n", "24", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScribe()
			web := httptest.NewServer(newTestServer(t, s))
			t.Cleanup(web.Close)
			d := startDovecot(t, dovecot{
				Nonce: tt.nonce, Bits: tt.bits, Settings: strings.Replace(tt.settings, "%s", strings.TrimPrefix(web.URL, "http://"), 1),
			})
			bits, _ := strconv.Atoi(tt.bits)
			c := DefaultConfig()
			c.HashTruncate, c.LowerCase = bits, tt.lower
			v := &View{config: c, nonce: tt.nonce, http: http.DefaultClient}
			for _, login := range []struct {
				user, password string
				ok             bool
			}{
				{"anna@example.org", "open sesame", true},
				{"anna@example.org", "wrong", false},
				{"Anna@Example.ORG", "open sesame", tt.lower},
				{"NÖBODY\"<x", "pässwörd", false},
			} {
				if got := d.try(t, login.user, login.password, "rip=192.0.2.7", "session=abc"); got != login.ok {
					t.Fatalf("login of %s: got %v, want %v", login.user, got, login.ok)
				}
				ours := v.Login(&auth.Query{Name: auth.Name{Typed: login.user}, Secret: auth.NewSecret([]byte(login.password))}).facts
				want := Question{Login: ours.Login, Addr: netip.MustParseAddr("192.0.2.7"), PasswordHash: ours.PwHash, Protocol: "pop3", Session: "abc"}
				for q := range s.asked(t, login.ok) {
					if q != want {
						t.Errorf("asked: got %+v, want %+v", q, want)
					}
				}
				got := s.reported(t)
				if got.q != want || got.o.Success != login.ok || got.o.PolicyReject {
					t.Errorf("reported: got %+v, want %+v, success %v", got, want, login.ok)
				}
			}
			d.refuses(t, s)
		})
	}
}

// refuses: what the service says decides, not the password alone, and a name that Dovecot takes for none is reported.
func (d *dovecot) refuses(t *testing.T, s *scribe) {
	t.Helper()
	s.status.Store(-1)
	if d.try(t, "anna@example.org", "open sesame", "rip=2001:db8::7") {
		t.Error("refused by us: Dovecot let it in")
	}
	next(t, s.questions)
	if got := s.reported(t); got.o.Success || !got.o.PolicyReject || got.q.Addr != netip.MustParseAddr("2001:db8::7") {
		t.Errorf("refused by us: got the report %+v", got)
	}
	s.status.Store(0)
	broken := errors.New("out of order")
	s.fails.Store(&broken)
	if d.try(t, "anna@example.org", "open sesame", "rip=192.0.2.7") {
		t.Error("with reject_on_fail, and an answer that is none: Dovecot let it in")
	}
	next(t, s.questions)
	s.reported(t)
	s.fails.Store(nil)
	if d.try(t, "an*na", "open sesame", "rip=192.0.2.7") {
		t.Error("a user who is none is in")
	}
	if got := s.reported(t); got.q.Login != "" || got.o.Success {
		t.Errorf("a name that is none: got the report %+v", got)
	}
}
