//go:build !unix

package proxy

import (
	"errors"
	"net"
)

const canWait = false

func readDescriptor(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

func isAgain(error) bool { return false }

func brokenOff(net.Conn) bool { return false }
