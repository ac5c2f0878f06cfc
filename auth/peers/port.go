//go:build unix

package peers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// lastPort makes the ports of tests that run at once differ.
var lastPort atomic.Int32

// FreePort finds a port below those that the kernel hands out by itself: nothing else takes it before the program it is meant for.
func FreePort() (int, error) {
	const low, high = 10_000, 32_000
	lastPort.CompareAndSwap(0, int32(low+rand.IntN(high-low)))
	var tried []string
	for range 100 {
		port := low + (int(lastPort.Add(1))-low)%(high-low)
		err := bindable(port)
		if err == nil {
			return port, nil
		}
		tried = append(tried, err.Error())
	}
	return 0, fmt.Errorf("no free port: %s", strings.Join(tried, "; "))
}

// Port is FreePort for a test.
func Port(t testing.TB) string {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// bindable says whether a port is free on all of the loopback addresses that tests use.
func bindable(port int) error {
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}
