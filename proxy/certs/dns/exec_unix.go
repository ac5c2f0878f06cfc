//go:build unix

package dns

import (
	"os/exec"
	"syscall"
)

// withChildren lets the deadline end what the program started too: a script's curl would go on by itself.
func withChildren(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
