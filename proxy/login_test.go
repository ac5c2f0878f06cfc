package proxy

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"

	"github.com/popgate/popgate/policy/audit"
)

// A client that is gone before its login is answered leaves no session behind at the backend, and the login is on
// record as what it was.
func TestClientGoneDuringLogin(t *testing.T) {
	server := listen(t)
	r := start(t, server.address)
	for range 5 {
		c := r.dial()
		c.expect("+OK POP3 ready")
		c.send("USER alice@example.org\r\nPASS secret\r\n")
		b := server.next(t)
		b.say("+OK ready\r\n")
		b.reads("USER alice@example.org\r\n")
		c.reset()
		b.say("+OK\r\n")
		b.reads("PASS secret\r\n")
		b.say("+OK\r\n")
		b.ends()
		b.conn.Close()
		if e := r.next(); e.Name != audit.LoginAccepted {
			t.Errorf("record %s %s", e.Name, e.Reason)
		}
		r.closed(audit.ClientGone)
	}
}

// A relay is the same over either version of TLS.
func TestLoginTLS12(t *testing.T) {
	message := bigMessage(1 << 20)
	address, _ := mail(t, false, message)
	r := start(t, address)
	c := r.plain()
	config := clientTLS()
	config.MaxVersion = tls.VersionTLS12
	c.startTLS(config)
	c.login("alice@example.org", "secret")
	c.send("RETR 1\r\nQUIT\r\n")
	c.line()
	want := stuffed(message)
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
		t.Errorf("%d of %d octets came, %v", n, len(want), err)
	}
	c.line()
	c.ends(true)
}

// Behind a load balancer that ends TLS, the end of the stream is the client's, and what the backend still has for it comes.
func TestOffloadedHalfClose(t *testing.T) {
	server := listen(t)
	r := start(t, server.address, behindProxy(TLSOffloaded))
	c := r.plain()
	c.send(string(headerV2(0x21, 0x11, client4, nil)) + "USER alice@example.org\r\nPASS secret\r\nRETR 1\r\n")
	_ = c.tcp().CloseWrite()
	b := server.welcome(t)
	b.reads("RETR 1\r\n")
	b.ends()
	b.say("+OK\r\n.\r\n")
	b.conn.Close()
	c.expect("+OK POP3 ready", "+OK", "+OK Logged in", "+OK", ".")
	c.ends(true)
	c.conn.Close()
	if e := r.next(); e.Client.Addr().String() != "192.0.2.1" {
		t.Errorf("client on record %v", e.Client)
	}
	r.closed(audit.ClientGone)
}

// A password is in no log line and no record, not even one that the backend has repeated.
func TestPasswordStaysOnThePath(t *testing.T) {
	const secret = "hunter2-and-more"
	server := listen(t)
	r := start(t, server.address)
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.send("USER alice@example.org\r\nPASS " + secret + "\r\n")
	b := server.next(t)
	b.say("+OK ready\r\n")
	b.reads("USER alice@example.org\r\n")
	b.say("+OK\r\n")
	b.reads("PASS " + secret + "\r\n")
	b.say("-ERR [SYS/TEMP] what is " + secret + " for a password\r\n")
	c.expect("+OK", "-ERR [SYS/TEMP] The mail server cannot be reached now, try again later")
	e := r.next()
	c.conn.Close()
	b.conn.Close()
	end := r.next()
	r.gw.Close()
	r.log.has(t, "the password is in it")
	var all bytes.Buffer
	for _, line := range r.log.lines {
		all.WriteString(line + "\n")
	}
	all.WriteString(recordText(&e) + recordText(&end))
	if bytes.Contains(all.Bytes(), []byte(secret)) {
		t.Errorf("the password is in\n%s", all.String())
	}
}

// A handshake on a connection of somebody else's is a slip of whoever made the listener's TLS settings.
func TestHelloOfAStranger(t *testing.T) {
	r := newRig(t, defaults("127.0.0.1:1"))
	if err := r.gw.Hello(&tls.ClientHelloInfo{Conn: &fakeConn{}}); err == nil {
		t.Error("no error")
	}
}
