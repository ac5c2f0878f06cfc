package proxy

import (
	"crypto/tls"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
)

// tlsFacts ends the session that is waiting for commands, and returns what its record says of TLS.
func (c *client) tlsFacts(r *rig) *audit.TLS {
	c.t.Helper()
	c.send("QUIT\r\n")
	c.expect("+OK POP3 ready", "+OK Bye")
	c.ends(true)
	c.conn.Close()
	return r.closed(audit.ClientQuit).TLS
}

func TestTLSResumes(t *testing.T) {
	for _, tt := range []struct {
		version uint16
		name    string
	}{{tls.VersionTLS12, "TLS 1.2"}, {tls.VersionTLS13, "TLS 1.3"}} {
		r := start(t, "127.0.0.1:1")
		config := clientTLS()
		config.MaxVersion = tt.version
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for _, resumed := range []bool{false, true, true} {
			c := r.plain()
			c.startTLS(config)
			facts := c.tlsFacts(r)
			if got := c.conn.(*tls.Conn).ConnectionState().DidResume; got != resumed {
				t.Errorf("%s: DidResume %v, want %v", tt.name, got, resumed)
			}
			if facts.Resumed != resumed || facts.Version != tt.name || facts.ServerName != "localhost" || facts.Cipher == "" {
				t.Errorf("%s: on record: %+v, want resumed %v", tt.name, facts, resumed)
			}
		}
	}
}

func TestALPN(t *testing.T) {
	r := start(t, "127.0.0.1:1")
	for _, offered := range [][]string{nil, {"pop3"}, {"imap", "pop3"}} {
		c := r.plain()
		config := clientTLS()
		config.NextProtos = offered
		c.startTLS(config)
		want := ""
		if offered != nil {
			want = "pop3"
		}
		if got := c.conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != want {
			t.Errorf("offered %q: negotiated %q, want %q", offered, got, want)
		}
		c.tlsFacts(r)
	}
	c := r.plain()
	config := clientTLS()
	config.NextProtos = []string{"http/1.1"}
	c.arm()
	// crypto/tls keeps the type of alerts to itself.
	if err := tls.Client(c.raw, config).Handshake(); err == nil || !strings.Contains(err.Error(), "remote error: tls: no application protocol") {
		t.Errorf("ALPN http/1.1: %v, want the alert no_application_protocol", err)
	}
	r.closed(audit.TLSFailed)
}

func TestNoServerName(t *testing.T) {
	r := start(t, "127.0.0.1:1")
	c := r.plain()
	c.startTLS(&tls.Config{InsecureSkipVerify: true})
	if facts := c.tlsFacts(r); facts.ServerName != "" {
		t.Errorf("server name %q on record", facts.ServerName)
	}
}

// clientHello is the first flight of a TLS client.
func clientHello(t *testing.T) []byte {
	t.Helper()
	var hello []byte
	conn := &fakeConn{read: func([]byte) (int, error) { return 0, io.EOF }}
	conn.write = func(p []byte) (int, error) {
		hello = append(hello, p...)
		return len(p), nil
	}
	if err := tls.Client(conn, clientTLS()).Handshake(); err == nil {
		t.Fatal("a handshake with nobody")
	}
	return hello
}

func TestHandshakeDeadline(t *testing.T) {
	hello := clientHello(t)
	for name, first := range map[string][]byte{
		"nothing": nil, "an octet": hello[:1], "half a hello": hello[:len(hello)/2], "a hello and no more": hello,
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, defaults("127.0.0.1:1"))
			c := r.pipe()
			began := time.Now()
			c.drip(first, 0)
			if e := r.closed(audit.TLSFailed); e.TLS != nil {
				t.Errorf("%s: TLS on record: %+v", name, e.TLS)
			}
			if took := time.Since(began); took != DefaultTimeouts().Handshake {
				t.Errorf("%s: ended after %v", name, took)
			}
			if n := r.gw.slots.size; len(r.gw.slots.networks) != 0 || n != DefaultBounds().Handshakes {
				t.Errorf("%s: slots are still held: %v", name, r.gw.slots.networks)
			}
			c.conn.Close()
			r.gw.Close()
		})
	}
}

// The deadline is for the handshake as a whole: octets that trickle in do not push it back.
func TestHandshakeDrip(t *testing.T) {
	hello := clientHello(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, defaults("127.0.0.1:1"))
		c := r.pipe()
		began := time.Now()
		var talking sync.WaitGroup
		defer talking.Wait()
		talking.Go(func() { c.drip(hello, time.Second) })
		r.closed(audit.TLSFailed)
		if took := time.Since(began); took != DefaultTimeouts().Handshake {
			t.Errorf("ended after %v", took)
		}
		c.conn.Close()
		r.gw.Close()
	})
}

// hold takes slots as handshakes of a network would, and returns what gives them back.
func hold(t *testing.T, s *slots, network string, n int) (release func()) {
	t.Helper()
	var held []*slot
	for range n {
		slot, err := s.take(netip.MustParsePrefix(network), time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, slot)
	}
	return func() {
		for _, slot := range held {
			slot.release()
		}
	}
}

func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slots
		s.resize(16)
		soon := func() time.Time { return time.Now().Add(time.Second) }
		releaseA := hold(t, &s, "192.0.2.1/32", 2)
		if _, err := s.take(netip.MustParsePrefix("192.0.2.1/32"), soon()); err == nil {
			t.Error("a network has more than an eighth of the slots")
		}
		releaseB := hold(t, &s, "192.0.2.2/32", 2) // another network has its own
		for i := range 6 {
			defer hold(t, &s, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32).String(), 2)()
		}
		began := time.Now()
		if _, err := s.take(netip.MustParsePrefix("203.0.113.1/32"), soon()); err == nil || time.Since(began) != time.Second {
			t.Errorf("a 17th of 16 slots: %v after %v", err, time.Since(began))
		}
		got := make(chan error)
		go func() {
			slot, err := s.take(netip.MustParsePrefix("203.0.113.1/32"), soon())
			slot.release()
			got <- err
		}()
		synctest.Wait()
		releaseA()
		if err := <-got; err != nil {
			t.Errorf("whoever waits gets the slot that is given back: %v", err)
		}
		s.resize(8) // those at work keep theirs
		releaseB()
	})
}

func TestSlotsForgetNetworks(t *testing.T) {
	var s slots
	s.resize(8)
	hold(t, &s, "192.0.2.1/32", 1)()
	if len(s.networks) != 0 {
		t.Errorf("%d networks are remembered that hold nothing", len(s.networks))
	}
	release := hold(t, &s, "192.0.2.1/32", 1) // an eighth, at least one
	s.resize(80)
	defer hold(t, &s, "192.0.2.1/32", 10)()
	release()
	if got := s.networks[netip.MustParsePrefix("192.0.2.1/32")]; got == nil || got.used != 10 {
		t.Errorf("the end of a handshake from before the resize took a share of after it: %+v", got)
	}
}

// Clients that connect and say nothing hold no slot; those with a complete hello wait their turn within the handshake's
// time.
func TestSlotsOfSessions(t *testing.T) {
	hello := clientHello(t)
	synctest.Test(t, func(t *testing.T) {
		s := defaults("127.0.0.1:1")
		s.bounds.Handshakes = 1
		r := newRig(t, s)
		var idle sync.WaitGroup
		for range 20 {
			c := r.pipe()
			idle.Go(func() { c.drip(hello[:len(hello)-1], 0) })
		}
		synctest.Wait()
		if n := len(r.gw.slots.networks); n != 0 {
			t.Errorf("incomplete hellos hold slots of %d networks", n)
		}
		// A client that is silent behind its hello has given its slot back, so the next one's turn comes at once.
		first := r.pipe()
		idle.Go(func() { first.drip(hello, 0) })
		idle.Go(func() { _, _ = io.Copy(io.Discard, first.conn) })
		synctest.Wait()
		if n := len(r.gw.slots.networks); n != 0 {
			t.Errorf("a client that lets us wait holds a slot of %d networks", n)
		}
		release := hold(t, &r.gw.slots, "192.0.2.9/32", 1)
		second := r.pipe()
		done := make(chan error)
		go func() { done <- tls.Client(second.conn, &tls.Config{InsecureSkipVerify: true}).Handshake() }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("a handshake beside the one that has the only slot: %v", err)
		default:
		}
		release()
		if err := <-done; err != nil {
			t.Errorf("the handshake whose turn has come: %v", err)
		}
		first.conn.Close()
		second.conn.Close()
		r.gw.Close()
		idle.Wait()
	})
}

// Waiting for a slot takes no longer than the handshake may.
func TestNoSlot(t *testing.T) {
	hello := clientHello(t)
	synctest.Test(t, func(t *testing.T) {
		s := defaults("127.0.0.1:1")
		s.bounds.Handshakes = 1
		r := newRig(t, s)
		release := hold(t, &r.gw.slots, "192.0.2.9/32", 1)
		defer release()
		c := r.pipe()
		began := time.Now()
		c.drip(hello, 0)
		r.closed(audit.Timeout)
		if took := time.Since(began); took != DefaultTimeouts().Handshake {
			t.Errorf("ended after %v", took)
		}
		c.conn.Close()
		r.gw.Close()
	})
}

// A limit reached before TLS just closes on an implicit listener, and is told on a starttls one.
func TestTurnedAway(t *testing.T) {
	for _, starts := range []string{TLSImplicit, TLSStartTLS} {
		r := start(t, "127.0.0.1:1", func(s *settings) {
			s.listener.TLS = starts
			s.limits = policy.Config{SessionsPerIP: 1, LoginsPerIP: limit.Rate{}}
		})
		first := r.plain()
		if starts == TLSImplicit {
			first.startTLS(clientTLS())
		}
		first.expect("+OK POP3 ready")
		second := r.plain()
		if starts == TLSStartTLS {
			second.expect("-ERR [SYS/TEMP] Too busy now, try again later")
		}
		second.ends(false)
		if got := receive(t, r.audit.refused, "the count of refusals"); got.Reason != audit.TooManySessions || got.Network.String() != "127.0.0.1/32" {
			t.Errorf("%s: refused %+v", starts, got)
		}
		first.send("QUIT\r\n")
		first.expect("+OK Bye")
		first.conn.Close()
		r.closed(audit.ClientQuit)
		third := r.plain() // the place is free again
		if starts == TLSImplicit {
			third.startTLS(clientTLS())
		}
		third.expect("+OK POP3 ready")
	}
}

// Somebody who speaks another protocol is closed at once, and the log says who spoke what to which port and what to do.
func TestForeign(t *testing.T) {
	hello := string(clientHello(t))
	const says = " to the POP3 listener pop3s on here and was closed; "
	v2 := string(headerV2(0x21, 0x11, append(addresses4, 0, 1, 0, 2), nil))
	for _, tt := range []struct{ starts, sent, log string }{
		{TLSImplicit, "GET / HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", "HTTP" + says + "a browser, a health check"},
		{TLSImplicit, "EHLO mail.example.org\r\n", "SMTP" + says + "its settings name the wrong port: POP3 over TLS"},
		{TLSImplicit, "CAPA\r\n", "POP3 in clear" + says + "this port expects TLS from the first byte"},
		{TLSImplicit, "pass secret\r\n", "POP3 in clear" + says},
		{TLSImplicit, "TOP 1 0\r\n", "POP3 in clear" + says},
		{TLSImplicit, "user alice@example.org\r\n", "POP3 in clear" + says + "this port expects TLS from the first byte"},
		{TLSImplicit, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY protocol" + says + "if a load balancer sends these headers, name its network"},
		{TLSImplicit, v2, "PROXY protocol" + says},
		{TLSStartTLS, hello, "TLS" + says + "its port is set to start with plain POP3 and STLS"},
		{TLSStartTLS, hello[:5], "TLS" + says},
		{TLSStartTLS, "GET / HTTP/1.1\r\n\r\n", "HTTP" + says + "a browser, a health check"},
		{TLSStartTLS, "EHLO mail.example.org\r\n", "SMTP" + says + "its settings name the wrong port: POP3 is spoken here"},
		{TLSStartTLS, "a1 CAPABILITY\r\n", "IMAP" + says + "its settings name the wrong port: POP3 is spoken here"},
		{TLSStartTLS, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY protocol" + says},
		{TLSStartTLS, v2, "PROXY protocol" + says},
	} {
		r := start(t, "127.0.0.1:1", func(s *settings) { s.listener.TLS = tt.starts })
		c := r.plain()
		reason := audit.TLSFailed
		if tt.starts == TLSStartTLS {
			c.expect("+OK POP3 ready")
			reason = audit.NotPOP3
		}
		c.send(tt.sent)
		e := r.closed(reason)
		r.log.has(t, "WARN "+e.Client.String()+" spoke "+tt.log)
		c.arm()
		if answer, _ := io.ReadAll(c.conn); len(answer) > 0 && answer[0] != 21 { // but for a TLS alert
			t.Errorf("%.20q to %s was answered with %q", tt.sent, tt.starts, answer)
		}
	}
}

// Once the client has spoken POP3, an odd word is a bad command and nothing else; and behind TLS it is looked at anew.
func TestForeignLater(t *testing.T) {
	r := start(t, "127.0.0.1:1", func(s *settings) { s.listener.TLS = TLSStartTLS })
	c := r.plain()
	c.send("CAPA\r\nGET / HTTP/1.1\r\nSTLS\r\n")
	for line := c.line(); line != "+OK Begin TLS"; line = c.line() {
		if strings.HasPrefix(line, "-ERR") && line != "-ERR Unknown command" {
			t.Errorf("got %q", line)
		}
	}
	c.startTLS(clientTLS())
	c.send("GET / HTTP/1.1\r\n")
	c.ends(false)
	r.closed(audit.NotPOP3)
	r.log.has(t, "spoke HTTP")
}
