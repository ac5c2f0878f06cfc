package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fail2banSettings are those of a fail2ban that touches nothing outside its folder: who is banned is written to a file.
var fail2banSettings = map[string]string{
	"fail2ban.local": "[Definition]\ndbfile = None\nlogtarget = %[1]s/log\nsocket = %[1]s/socket\npidfile = %[1]s/pid\n",
	"jail.local": "[DEFAULT]\nbackend = polling\n[dovecot]\nenabled = true\nlogpath = %[1]s/mail.log\n" +
		"maxretry = 3\nfindtime = 1h\nbantime = 1h\nusedns = no\naction = note\n",
	"action.d/note.conf": "[Definition]\nactionban = echo '<ip>' >>%[1]s/banned\nactionunban =\n",
}

// fail2banServer starts fail2ban in a folder of its own, which it returns. It ends with the test.
func fail2banServer(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("fail2ban-server")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("fail2ban is missing: install Debian's package fail2ban")
		}
		t.Skip("fail2ban is missing: install Debian's package fail2ban")
	}
	dir, err := os.MkdirTemp("", "f2b") // a socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	conf := filepath.Join(dir, "conf")
	err = errors.Join(os.CopyFS(conf, os.DirFS("/etc/fail2ban")), os.RemoveAll(filepath.Join(conf, "jail.d")))
	for name, text := range fail2banSettings {
		err = errors.Join(err, os.WriteFile(filepath.Join(conf, name), fmt.Appendf(nil, text, dir), 0o600))
	}
	if err := errors.Join(err, os.WriteFile(filepath.Join(dir, "mail.log"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "-c", conf, "-f", "start")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("fail2ban says:\n%s%s", &out, log)
		}
	})
	eventually(t, "fail2ban watches the log", func() bool {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return bytes.Contains(log, []byte("Jail 'dovecot' started"))
	})
	return dir
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// TestFail2banBans has a running fail2ban ban who guesses, and nobody whom he names.
func TestFail2banBans(t *testing.T) {
	dir := fail2banServer(t)
	var lines []byte
	for _, user := range hostile {
		lines = appendDovecotLine(lines, "mx1", refusedLogin(user, "192.0.2.7"))
		fine := refusedLogin(user, "192.0.2.8")
		fine.Reason = BackendDown
		lines = appendDovecotLine(lines, "mx1", fine)
	}
	for range 3 { // who comes last is banned last
		lines = appendDovecotLine(lines, "mx1", refusedLogin("anna", "2001:db8::7"))
	}
	f, err := os.OpenFile(filepath.Join(dir, "mail.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(lines)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	var banned []byte
	eventually(t, "two addresses are banned", func() bool {
		banned, _ = os.ReadFile(filepath.Join(dir, "banned"))
		return bytes.Count(banned, []byte("\n")) >= 2
	})
	got, want := strings.Fields(string(banned)), []string{"192.0.2.7", "2001:db8::7"}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("banned: got %q, want %q", got, want)
	}
}
