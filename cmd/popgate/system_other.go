//go:build !unix

package main

import (
	"os"
	"syscall"
)

// keepAlive leaves it to the idle limit to find clients that vanished.
func keepAlive(_, _ string, _ syscall.RawConn) error { return nil }

// noCoreDumps has nothing to do where there are none.
func noCoreDumps() error { return nil }

// notifyResize has nobody to tell c anything: who draws looks at the size by itself.
func notifyResize(chan<- os.Signal) {}
