//go:build unix

package proxy

import (
	"errors"
	"net"
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

// brokenOff says that the connection below c, on which we have not ended our stream, was reset, though reading from it
// gave no more than the end of the other's: the kernel tells of a reset once, and a write may have been told.
func brokenOff(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	var noPeer error // that a connection has no peer any more is what is left of a reset
	if err := raw.Control(func(fd uintptr) { _, noPeer = syscall.Getpeername(int(fd)) }); err != nil {
		return true
	}
	return noPeer != nil
}
