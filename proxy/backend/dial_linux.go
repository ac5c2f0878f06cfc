package backend

import "syscall"

// ipBindAddressNoPort is IP_BIND_ADDRESS_NO_PORT of <linux/in.h>, for IPv6 too.
const ipBindAddressNoPort = 24

// bindLate has bind(2) leave the port to connect(2), which then needs one that is free towards that server alone. A kernel
// that does not know it (before 4.2) loses nothing else.
func bindLate(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
	})
}
