package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// fail2banConf is what keeps a fail2ban within its folder, and its bans in a file.
var fail2banConf = map[string]string{
	"fail2ban.local":     "[Definition]\ndbfile = None\nlogtarget = %[1]s/log\nsocket = %[1]s/socket\npidfile = %[1]s/pid\n",
	"action.d/note.conf": "[Definition]\nactionban = echo '<ip>' >>%[1]s/banned\nactionunban =\n",
}

// cmdFail2ban starts Debian's fail2ban with its own filters, the jail of deploy/fail2ban, and LOCAL as its jail.local. The action
// `note` writes who is banned to $BANNED.
func cmdFail2ban(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fail2ban LOCAL")
	}
	path, err := lookPath(ts.Getenv("PATH"), "fail2ban-server")
	if err != nil {
		skipOrFail(ts, "fail2ban is missing: apt-get install --no-install-recommends fail2ban")
	}
	s := stageOf(ts)
	dir, err := os.MkdirTemp("", "f2b") // a socket needs a short path
	ts.Check(err)
	s.folders = append(s.folders, dir)
	conf := filepath.Join(dir, "conf")
	jail := filepath.Join(conf, "jail.d")
	ts.Check(errors.Join(os.CopyFS(conf, os.DirFS("/etc/fail2ban")), os.RemoveAll(jail), os.Mkdir(jail, 0o700)))
	ours, err := os.ReadFile("../../deploy/fail2ban/jail.d/popgate.conf")
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(jail, "popgate.conf"), ours, 0o600))
	ts.Check(os.WriteFile(filepath.Join(conf, "jail.local"), []byte(ts.ReadFile(args[0])), 0o600))
	for name, text := range fail2banConf {
		ts.Check(os.WriteFile(filepath.Join(conf, name), fmt.Appendf(nil, text, dir), 0o600))
	}
	banned := filepath.Join(dir, "banned")
	ts.Check(os.WriteFile(banned, nil, 0o600))
	ts.Setenv("BANNED", banned)
	s.programs["fail2ban"], err = launch(exec.Command(path, "-c", conf, "-f", "start"), filepath.Join(dir, "said"))
	ts.Check(err)
	eventually(ts, "fail2ban's jail", func() (bool, error) {
		log, err := os.ReadFile(filepath.Join(dir, "log"))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return strings.Contains(string(log), "Jail 'popgate' started"), err
	})
}
