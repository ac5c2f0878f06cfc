package proxy

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/pop3mem"
)

// mail starts a POP3 server with a mailbox for alice, over TLS when asked, and returns its address.
func mail(t testing.TB, over bool, messages ...[]byte) (string, *pop3mem.Server) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if over {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	}
	s := pop3mem.New(pop3mem.Options{})
	s.Add("alice@example.org", "secret", messages...)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Serve(ln); !errors.Is(err, pop3mem.ErrServerClosed) {
			t.Errorf("the backend: %v", err)
		}
	}()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the backend: %v", err)
		}
		<-served
	})
	return address, s
}

// bigMessage has lines of every length up to a bound, with octets of every kind and dots where they hurt.
func bigMessage(size int) []byte {
	b := []byte("Subject: big\r\n\r\n")
	for n := 0; len(b) < size; n++ {
		for i := range n % 1500 {
			c := byte(i*n + n)
			if i == 0 && n%3 == 0 {
				c = '.'
			}
			if c == '\r' || c == '\n' {
				c = 0
			}
			b = append(b, c)
		}
		b = append(b, '\r', '\n')
	}
	return b
}

// stuffed is a message as RETR sends it.
func stuffed(message []byte) string {
	return strings.ReplaceAll("\n"+string(message), "\n.", "\n..")[1:] + ".\r\n"
}

// overTLS makes the leg to the backend go over TLS, believing the test's certificate.
func overTLS(s *settings) {
	pin := sha256.Sum256(certificate().Leaf.RawSubjectPublicKeyInfo)
	s.backend.TLS, s.backend.TLSPinSHA256 = backend.TLSImplicit, []string{hex.EncodeToString(pin[:])}
}

func TestRelayBigMail(t *testing.T) {
	for name, change := range map[string]func(*settings){
		"plain": func(*settings) {}, "TLS to the backend": overTLS,
	} {
		message := bigMessage(30 << 20)
		address, _ := mail(t, name != "plain", message)
		r := start(t, address, change)
		c := r.loggedIn()
		c.send("RETR 1\r\nQUIT\r\n")
		first := c.line()
		want := stuffed(message)
		got := make([]byte, len(want))
		if n, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
			t.Fatalf("%s: the message differs (%d of %d octets, %v)", name, n, len(want), err)
		}
		last := c.line()
		c.ends(true)
		c.conn.Close()
		if e := r.next(); e.Name != audit.LoginAccepted {
			t.Errorf("%s: record %s", name, e.Name)
		}
		e := r.closed(audit.ClientQuit)
		if out := int64(len(first+last) + 4 + len(want)); e.BytesOut != out || e.BytesIn != 14 || e.Retr != 1 || !e.Quit {
			t.Errorf("%s: bytes out %d, in %d, retr %d, quit %v; want %d, 14, 1, true", name, e.BytesOut, e.BytesIn, e.Retr, e.Quit, out)
		}
	}
}

// Both directions at once, each more than all buffers on the way take.
func TestRelayBothWays(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	up, down := strings.Repeat("RETR 1\r\nTOP 2 0\r\nDELE 3\r\nNOOP\r\n", 1<<18), string(bigMessage(8<<20))
	var both sync.WaitGroup
	both.Go(func() { b.say(down) })
	both.Go(func() { b.reads(up) })
	both.Go(func() { c.send(up) })
	got := make([]byte, len(down))
	if n, err := io.ReadFull(c.r, got); err != nil || string(got) != down {
		t.Errorf("the client got %d of %d octets, %v", n, len(down), err)
	}
	both.Wait()
	b.conn.Close()
	c.ends(true)
	c.conn.Close()
	e := r.closed(audit.BackendClosed)
	if e.BytesIn != int64(len(up)) || e.BytesOut != int64(len(down)) || e.Retr != 1<<18 || e.Top != 1<<18 || e.Dele != 1<<18 || e.Quit {
		t.Errorf("on record: %+v", e.End)
	}
}

// connected is a client and its backend right after the login, whose record has been read.
func (r *rig) connected(server *server) (*client, *leg) {
	r.t.Helper()
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.send("USER alice@example.org\r\nPASS secret\r\n")
	b := server.welcome(r.t)
	c.expect("+OK", "+OK Logged in")
	if e := r.next(); e.Name != audit.LoginAccepted {
		r.t.Fatalf("record %s", e.Name)
	}
	return c, b
}

// The backend's end of the stream comes to the client only behind all that the backend has sent.
func TestRelayBackendEnds(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	down := string(bigMessage(4 << 20))
	go func() {
		b.say(down)
		b.conn.Close()
	}()
	c.arm()
	if got, err := io.ReadAll(c.r); string(got) != down || err != nil || c.raw.ended {
		t.Errorf("%d of %d octets, then %v, close_notify %v", len(got), len(down), err, !c.raw.ended)
	}
	c.conn.Close()
	r.closed(audit.BackendClosed)
}

// A client whose connection breaks leaves its backend a stream in good order, with the QUIT that was passed on in it.
func TestRelayClientResets(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	c.send("DELE 1\r\nQUIT\r\n")
	first, err := b.r.ReadString('\n')
	if err != nil || first != "DELE 1\r\n" {
		t.Fatalf("the backend got %q, %v", first, err)
	}
	c.reset()
	b.reads("QUIT\r\n")
	b.ends()
	b.say("+OK\r\n+OK bye\r\n")
	b.conn.Close()
	if e := r.closed(audit.ClientQuit); e.Dele != 1 || !e.Quit {
		t.Errorf("on record: %+v", e.End)
	}
}

func TestRelayClientGoes(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	for name, how := range map[string]func(c *client){
		"FIN":   func(c *client) { _ = c.tcp().Close() },
		"reset": func(c *client) { c.reset() },
		"half":  func(c *client) { _ = c.tcp().CloseWrite() },
	} {
		c, b := r.connected(server)
		c.send("STAT\r\n")
		b.reads("STAT\r\n")
		how(c)
		b.ends()
		b.conn.Close()
		if e := r.closed(audit.ClientGone); e.Quit || e.BytesIn != 6 {
			t.Errorf("%s: on record: %+v", name, e.End)
		}
	}
}

// The garbage of a client that breaks TLS is not passed on.
func TestRelayBrokenTLS(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	if _, err := c.raw.Write([]byte("\x17\x03\x03\x00\x20QUIT\r\nQUIT\r\nQUIT\r\nQUIT\r\nQUIT\r\n..")); err != nil {
		t.Fatal(err)
	}
	b.ends()
	b.conn.Close()
	r.closed(audit.ClientGone)
}

// A backend whose connection breaks leaves the client a stream that is visibly cut, however the break is first noticed:
// by a write, too, for the kernel tells of it only once.
func TestRelayBackendResets(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	for range 60 {
		c, b := r.connected(server)
		c.send("RETR 1\r\n")
		b.reads("RETR 1\r\n")
		b.say("+OK\r\nhalf a li")
		c.expect("+OK")
		stop := make(chan struct{})
		var talking sync.WaitGroup
		talking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := io.WriteString(c.conn, "NOOP\r\n"); err != nil {
						return
					}
				}
			}
		})
		b.reads("NOOP\r\n")
		b.reset()
		c.arm()
		if rest, err := io.ReadAll(c.r); err == nil && !c.raw.ended {
			t.Errorf("behind %q the client got a proper end", rest)
		}
		close(stop)
		c.conn.Close()
		talking.Wait()
		r.closed(audit.BackendGone)
	}
}

// What the backend has sent before its connection broke may come, and no close_notify.
func TestRelayHalfAMessage(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	c.send("RETR 1\r\n")
	b.reads("RETR 1\r\n")
	b.say("+OK\r\nhalf a li")
	c.expect("+OK")
	b.reset()
	rest := bufio.NewReader(c.r)
	c.arm()
	got, err := io.ReadAll(rest)
	if _, begins := strings.CutPrefix("half a li", string(got)); err == nil && !c.raw.ended || !begins {
		t.Errorf("got %q, %v, close_notify %v", got, err, !c.raw.ended)
	}
	r.closed(audit.BackendGone)
}

// A backend that goes on to a client who is gone is not reset for it.
func TestRelayIsNoReset(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	c.send("QUIT\r\n")
	b.reads("QUIT\r\n")
	_ = c.tcp().Close()
	for range 100 {
		b.say(strings.Repeat("+OK\r\n", 100))
	}
	b.ends()
	b.conn.Close()
	r.closed(audit.ClientQuit)
}

// A client that ends its stream with close_notify gets all that the backend still has for it, and a proper end.
func TestRelayClientEnds(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	c, b := r.connected(server)
	c.send("RETR 1\r\nQUIT\r\n")
	if err := c.conn.(*tls.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b.reads("RETR 1\r\nQUIT\r\n")
	b.ends()
	b.say("+OK\r\n.\r\n+OK bye\r\n")
	b.conn.Close()
	c.expect("+OK", ".", "+OK bye")
	c.ends(true)
	c.conn.Close()
	r.closed(audit.ClientQuit)
}
