//go:build unix

package proxy

import (
	"errors"
	"os"
	"syscall"
)

// canWait says that this system can wait for bytes without a buffer to put them in.
const canWait = true

func readDescriptor(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, err
		default:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

func isAgain(err error) bool { return errors.Is(err, syscall.EAGAIN) }
