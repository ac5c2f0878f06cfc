//go:build !linux

package backend

import "syscall"

// bindLate does nothing where the system cannot leave the port of a bound socket to connect(2).
func bindLate(_, _ string, _ syscall.RawConn) error { return nil }
