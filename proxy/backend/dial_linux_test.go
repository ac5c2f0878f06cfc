package backend

import (
	"net"
	"syscall"
	"testing"
)

// TestBoundLate holds that the kernel is told to leave the port to connect(2).
func TestBoundLate(t *testing.T) {
	c := config(script(loginScript).listen(t))
	c.Source = []string{"127.0.0.2"}
	conn, err := login(t, pool(t, c))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var set int
	err = raw.Control(func(fd uintptr) {
		set, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort)
	})
	if err != nil || set != 1 {
		t.Errorf("IP_BIND_ADDRESS_NO_PORT is %d, %v, want 1", set, err)
	}
}
