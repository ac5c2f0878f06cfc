//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// keepAlive has the system find out about clients that vanished, for configurations without an idle limit.
func keepAlive(_, _ string, c syscall.RawConn) error {
	var err error
	if failed := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1)
	}); failed != nil {
		return failed
	}
	return err
}

func noCoreDumps() error {
	return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}

// notifyResize has c told when the terminal has another size.
func notifyResize(c chan<- os.Signal) { signal.Notify(c, syscall.SIGWINCH) }
