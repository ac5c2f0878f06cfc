package backend

import (
	"net"
	"sync"
	"testing"
)

// answering is a server that takes what comes for the right command and answers it, with no allocation that would
// be counted to the login.
func answering(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		ok, buf := []byte("+OK\r\n"), make([]byte, 512)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			for range 3 {
				if _, err := c.Write(ok); err != nil {
					break
				}
				if _, err := c.Read(buf); err != nil {
					break
				}
			}
			c.Close()
		}
	})
	b.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// reset closes a connection and leaves nothing of it behind: in TIME_WAIT, ports would run out.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// BenchmarkLogin is a whole login over loopback: three round trips. About ten of its allocations are the accepting
// side's, which runs in the same process.
func BenchmarkLogin(b *testing.B) {
	p := pool(b, config(answering(b)))
	req := request()
	b.ReportAllocs()
	for b.Loop() {
		c, err := p.Login(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		reset(c.Conn.(*net.TCPConn))
	}
}

// BenchmarkDial is what of BenchmarkLogin is not this package's: the connection and the same octets on it.
func BenchmarkDial(b *testing.B) {
	addr := answering(b)
	buf := make([]byte, 512)
	user, pass := []byte("USER alice@example.org\r\n"), []byte("PASS secret\r\n")
	b.ReportAllocs()
	for b.Loop() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Read(buf)
		_, _ = c.Write(user)
		_, _ = c.Read(buf)
		_, _ = c.Write(pass)
		_, _ = c.Read(buf)
		reset(c.(*net.TCPConn))
	}
}

func BenchmarkOrder(b *testing.B) {
	p := pool(b, config("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"))
	b.ReportAllocs()
	for b.Loop() {
		var few [8]candidate
		if len(p.order(few[:0], "alice@example.org")) != 4 {
			b.Fatal("servers are missing")
		}
	}
}
