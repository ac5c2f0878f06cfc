package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdSample copies files and folders of other programs' packages, such as /etc/nginx/nginx.conf, to $OLD: a folder that their
// proxies can read, whom they run as being $USERNAME and $GROUP. The files stay as the package has them, but for what the script changes.
func cmdSample(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: sample FILE|DIR...")
	}
	s := stageOf(ts)
	dir, err := os.MkdirTemp("", "old") // the script's own folder is closed to others
	ts.Check(err)
	s.folders = append(s.folders, dir)
	for _, path := range args {
		info, err := os.Stat(path)
		if err != nil {
			skipOrFail(ts, err.Error()+": install the package (.ci/install-test-deps.sh)")
		}
		to := filepath.Join(dir, filepath.Base(path))
		if info.IsDir() {
			ts.Check(os.CopyFS(to, os.DirFS(path)))
			continue
		}
		text, err := os.ReadFile(path)
		ts.Check(err)
		ts.Check(os.WriteFile(to, text, 0o600))
	}
	me, group, err := oldUser()
	ts.Check(err)
	ts.Setenv("OLD", dir)
	ts.Setenv("USERNAME", me.Username)
	ts.Setenv("GROUP", group.Name)
}

// cmdOldproxy starts the proxy that popgate takes the place of, without the rights of root, and waits until it listens at ADDRESS.
// Its output is in old.log.
func cmdOldproxy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || ts.Getenv("OLD") == "" {
		ts.Fatalf("usage: oldproxy ADDRESS PROGRAM ARG..., after sample")
	}
	path, err := lookPath(ts.Getenv("PATH"), args[1])
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.Getenv("OLD")
	ts.Check(handOver(cmd))
	p, err := launch(cmd, ts.MkAbs("old.log"))
	ts.Check(err)
	stageOf(ts).programs["old"] = p
	eventually(ts, args[1]+" at "+args[0], func() (bool, error) {
		select {
		case <-p.exited:
			ts.Fatalf("%s ended: %v", args[1], p.cmd.ProcessState)
		default:
		}
		conn, err := net.Dial("tcp", args[0])
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})
}

// oldUser is who runs the test, but never root.
func oldUser() (*user.User, *user.Group, error) {
	me, err := user.Current()
	if err == nil && me.Uid == "0" {
		me, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, nil, err
	}
	group, err := user.LookupGroupId(me.Gid)
	return me, group, err
}

// handOver has cmd run as the one who is not root, and gives him its folder.
func handOver(cmd *exec.Cmd) error {
	if os.Geteuid() != 0 {
		return nil
	}
	me, _, err := oldUser()
	if err != nil {
		return err
	}
	uid, uidErr := strconv.Atoi(me.Uid)
	gid, gidErr := strconv.Atoi(me.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return filepath.WalkDir(cmd.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, uid, gid)
	})
}
