package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

// The benchmarks have client, gateway and backend in one process, so that what they report is of all three; it is for
// comparing one popgate with the next. What a gateway costs by itself is measured from outside: docs/performance.md.

// BenchmarkLogin is a whole session: connect, TLS, login, QUIT.
func BenchmarkLogin(b *testing.B) {
	for name, cache := range map[string]tls.ClientSessionCache{
		"full": nil, "resumed": tls.NewLRUClientSessionCache(1),
	} {
		b.Run(name, func(b *testing.B) {
			address, _ := mail(b, false)
			r := start(b, address)
			drained := r.drain()
			config := clientTLS()
			config.ClientSessionCache = cache
			session := func() {
				raw, err := net.Dial("tcp", r.addr)
				if err != nil {
					b.Fatal(err)
				}
				c := &client{t: b, raw: &spy{Conn: raw}}
				c.startTLS(config)
				c.login("alice@example.org", "secret")
				c.send("QUIT\r\n")
				c.line()
				c.conn.Close()
			}
			session() // for the ticket
			b.ReportAllocs()
			for b.Loop() {
				session()
			}
			b.StopTimer()
			r.gw.Close()
			close(r.audit.events)
			<-drained
		})
	}
}

// drain throws the audit away, until its channel is closed.
func (r *rig) drain() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range r.audit.events {
		}
	}()
	return done
}

// BenchmarkRelay carries a megabyte from the backend to the client.
func BenchmarkRelay(b *testing.B) {
	for name, change := range map[string]func(*settings){"plain": func(*settings) {}, "tls": overTLS} {
		b.Run(name, func(b *testing.B) {
			server := listenAs(b, func(c net.Conn) net.Conn {
				if name == "tls" {
					return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate()}})
				}
				return c
			})
			r := start(b, server.address, change)
			c, backend := r.connected(server)
			megabyte, got := make([]byte, 1<<20), make([]byte, 1<<20)
			_ = backend.conn.SetDeadline(time.Time{})
			_ = c.raw.SetDeadline(time.Time{})
			want, sent := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(sent)
				for range want {
					if _, err := backend.conn.Write(megabyte); err != nil {
						b.Error(err)
						return
					}
				}
			}()
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			for b.Loop() {
				want <- struct{}{}
				if _, err := io.ReadFull(c.conn, got); err != nil {
					b.Fatal(err)
				}
			}
			close(want)
			<-sent
			backend.conn.Close()
		})
	}
}

// BenchmarkNoop is a command and its answer.
func BenchmarkNoop(b *testing.B) {
	server := listen(b)
	r := start(b, server.address)
	c, backend := r.connected(server)
	_ = backend.conn.SetDeadline(time.Time{})
	_ = c.raw.SetDeadline(time.Time{})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		var line [64]byte
		for {
			if _, err := backend.conn.Read(line[:]); err != nil {
				return
			}
			if _, err := io.WriteString(backend.conn, "+OK\r\n"); err != nil {
				return
			}
		}
	}()
	command, answer := []byte("NOOP\r\n"), make([]byte, len("+OK\r\n"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.conn.Write(command); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.conn, answer); err != nil {
			b.Fatal(err)
		}
	}
	c.conn.Close()
	<-answered
	backend.conn.Close()
}

// BenchmarkIdleSession reports what is in use for a session that has logged in and is quiet: heap and stacks, the two
// ends of its connections in this process included, but not their TLS.
func BenchmarkIdleSession(b *testing.B) {
	const sessions = 500
	server := listen(b)
	r := start(b, server.address)
	drained := r.drain()
	var before, after uint64
	for b.Loop() {
		r.hello(b, server) // what exists once, such as the pools, is there before the count
		before = heap()
		for range sessions {
			r.hello(b, server)
		}
		<-time.After(2 * quietTime) // a session moves to a small stack when it falls quiet
		after = heap()
	}
	b.ReportMetric(float64(after-before)/sessions, "B/session")
	r.gw.Close()
	close(r.audit.events)
	<-drained
}

// hello logs a client in and forgets all of it but its sockets.
func (r *rig) hello(b *testing.B, server *server) {
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.send("USER alice@example.org\r\nPASS secret\r\n")
	server.welcome(b)
	c.expect("+OK", "+OK Logged in")
	_ = c.raw.SetDeadline(time.Time{})
}
