package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/pires/go-proxyproto"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/sasl"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/pop3"
)

// A visitor is what a backend saw of one connection.
type visitor struct {
	user, pass string
	in         bool   // the password was "secret"
	rest       []byte // what came behind it
}

// visitors serves a backend that takes the password "secret" of everybody, and tells of each connection at its end.
func visitors(t testing.TB) (address string, seen <-chan visitor) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan visitor, 100)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				all <- visit(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		serving.Wait()
	})
	return ln.Addr().String(), all
}

func visit(c net.Conn) (v visitor) {
	r := bufio.NewReader(c)
	_, _ = io.WriteString(c, "+OK\r\n")
	v.user, _ = r.ReadString('\n')
	_, _ = io.WriteString(c, "+OK\r\n")
	v.pass, _ = r.ReadString('\n')
	if v.in = v.pass == "PASS secret\r\n"; !v.in {
		_, _ = io.WriteString(c, "-ERR no\r\n")
		return v
	}
	_, _ = io.WriteString(c, "+OK\r\n* the backend's words\r\n")
	v.rest, _ = io.ReadAll(r)
	return v
}

// spoken is all that popgate itself ever says to a client before login: fixed lines, none of the client's own words.
var spoken = func() []string {
	lines := []string{
		"+OK POP3 ready", "+OK", "+OK Bye", "+OK Begin TLS", "+OK Logged in", "+OK Mechanisms follow", "+OK Capability list follows",
		"PLAIN", "LOGIN", ".", "USER", "SASL PLAIN LOGIN", "RESP-CODES", "AUTH-RESP-CODE", "TOP", "UIDL", "STLS",
		"+ ", "+ VXNlcm5hbWU6", "+ UGFzc3dvcmQ6",
		"-ERR [AUTH] " + textWrong, "-ERR [SYS/TEMP] " + textLater, "-ERR " + textTooMany, "-ERR " + textTooLong, "-ERR " + textTooSlow,
	}
	for _, e := range []*replyError{
		errUnknown, errNeedTLS, errNeedUser, errNeedLogin, errTLSAlready, errNoSTLS, errBadName, errMechanism,
		errNotOffered, errCancelled, errBadSASL, errAuthzid, errBadSecret,
	} {
		lines = append(lines, "-ERR "+e.text)
	}
	return lines
}()

// FuzzSession plays what a client may send through whole sessions, with TLS offloaded or not yet started, in pieces of
// any size, with a backend behind. However it goes: the session ends once the client does, with one record of its end;
// popgate says nothing but its own lines; a backend sees a login and then the client's own octets, unchanged and all
// of them; and without TLS it sees nothing.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"QUIT\r\n", "CAPA\nquit\n", "USER alice@example.org\r\nPASS secret\r\nSTAT\r\nRETR 1\r\nQUIT\r\n",
		"USER alice@example.org\r\nPASS wrong\r\nUSER alice@example.org\r\nPASS secret\r\nDELE 1\r\nhalf a li",
		"AUTH PLAIN AGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\nNOOP\r\n", "AUTH PLAIN\r\nAGFsaWNlQGV4YW1wbGUub3JnAHNlY3JldA==\r\n\x00\xff\r\n",
		"AUTH LOGIN\r\nYWxpY2VAZXhhbXBsZS5vcmc=\r\nc2VjcmV0\r\n\n\n\n", "AUTH LOGIN =\r\nAUTH\r\nAUTH PLAIN\r\n*\r\nUSER nobody@example.net\r\nPASS secret\r\n",
		"STLS\r\nUSER alice@example.org\r\nPASS secret\r\n", "STLS\r\n", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01", "PROXY UNKNOWN\r\n",
		"USER  \r\nPASS \r\nUTF8\r\nAPOP a b\r\nTOP 1 1\r\n", "USER alice@example.edu\r\nPASS secret\r\nUSER alice@example.com\r\nPASS secret\r\n",
		strings.Repeat("x", 2000), "AUTH " + strings.Repeat("x", 20000), strings.Repeat("NOOP\r\n", 400),
	} {
		f.Add(true, uint16(len(seed)), []byte(seed))
		f.Add(false, uint16(3), []byte(seed))
	}
	address, seen := visitors(f)
	f.Fuzz(func(t *testing.T, secure bool, piece uint16, sent []byte) {
		s := defaults(address)
		s.listener.TLS = TLSStartTLS
		if secure {
			s.listener.TLS = TLSOffloaded
			s.listener.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		r := newRig(t, s)
		c := r.pipe()
		var talking sync.WaitGroup
		talking.Go(func() {
			if secure {
				c.drip([]byte("PROXY TCP4 198.51.100.1 198.51.100.2 4711 995\r\n"), 0)
			}
			for p := range slices.Chunk(sent, int(piece)+1) {
				c.drip(p, 0)
			}
			_ = c.raw.Conn.(*duplex).CloseWrite()
		})
		c.arm()
		said, err := io.ReadAll(c.conn)
		if isTimeout(err) {
			t.Fatal("the session goes on without its client")
		}
		logins, asked, accepted := 0, 0, 0
		for e := r.next(); e.Name != audit.SessionClosed; e = r.next() {
			logins++
			if e.Server != "" {
				asked++
			}
			if e.Name == audit.LoginAccepted {
				accepted++
			}
		}
		r.gw.Close()
		c.conn.Close()
		talking.Wait()
		if n := len(r.audit.events); n > 0 {
			t.Errorf("%d records behind the session's end", n)
		}
		if !secure && (asked > 0 || logins > 0) {
			t.Errorf("%d logins without TLS", logins)
		}
		checkSaid(t, said)
		in := 0
		for range asked {
			v := receive(t, seen, "what the backend saw")
			checkVisitor(t, v)
			if !v.in {
				continue
			}
			in++
			if want := behindLogin(t, sent, logins); !bytes.Equal(v.rest, want) {
				t.Errorf("behind the login the backend got %q, want %q of %q", v.rest, want, sent)
			}
		}
		if in != accepted {
			t.Errorf("%d logins on record, the backend has seen %d", accepted, in)
		}
		select {
		case v := <-seen:
			t.Errorf("the backend saw what is on no record: %+v", v)
		default:
		}
	})
}

// checkSaid checks that popgate said only its own lines, up to where the backend speaks, or TLS.
func checkSaid(t *testing.T, said []byte) {
	t.Helper()
	own, _, _ := strings.Cut(string(said), "* the backend's words\r\n")
	if clear, records, started := strings.Cut(own, "+OK Begin TLS\r\n"); started {
		if own = clear; records != "" && !strings.HasPrefix(records, "\x15\x03") {
			t.Errorf("behind STLS popgate said %q, which is no TLS alert", records)
		}
	}
	for line := range strings.Lines(own) {
		text, whole := strings.CutSuffix(line, "\r\n")
		if !whole || !slices.Contains(spoken, text) {
			t.Errorf("popgate said %q", line)
		}
	}
}

// checkVisitor checks the login that a backend saw.
func checkVisitor(t *testing.T, v visitor) {
	t.Helper()
	for verb, line := range map[string]string{"USER ": v.user, "PASS ": v.pass} {
		arg, whole := strings.CutSuffix(line, "\r\n")
		if !whole || !strings.HasPrefix(arg, verb) || strings.ContainsAny(arg, "\r\n\x00") {
			t.Errorf("the backend got %q for its %s", line, verb)
		}
	}
}

// behindLogin is what a client sent behind its nth credentials. It goes through the commands by itself: what a PASS or
// an AUTH makes complete credentials of, and where it ends, does not depend on what became of those before.
func behindLogin(t *testing.T, sent []byte, n int) []byte {
	t.Helper()
	line := func() []byte {
		l, rest, _ := bytes.Cut(sent, []byte("\n"))
		sent = rest
		return bytes.TrimSuffix(l, []byte("\r"))
	}
	named := false
	for len(sent) > 0 {
		complete := false
		switch verb, arg := pop3.ParseCommand(line()); verb {
		case pop3.USER:
			_, err := DefaultListener().NameRules().Parse(arg)
			named = named || err == nil
		case pop3.PASS:
			if complete = named && !bytes.ContainsAny(arg, "\x00\r"); complete {
				named = false
			}
		case pop3.AUTH:
			complete = answered(bytes.TrimSpace(arg), line)
		}
		if complete {
			n--
		}
		if n == 0 {
			return sent
		}
	}
	t.Errorf("%d logins more than the client has sent credentials for", n)
	return nil
}

// answered goes through an AUTH exchange, whose responses come from line, and says whether it gave credentials.
func answered(arg []byte, line func() []byte) bool {
	mechanism, response, _ := bytes.Cut(arg, []byte{' '})
	x, err := sasl.Start(mechanism)
	if err != nil {
		return false
	}
	for {
		_, done, err := x.Next(response)
		if done || err != nil {
			return err == nil
		}
		response = line()
	}
}

// FuzzHeader reads PROXY headers from octets of any kind. What is taken for one does not depend on the pieces it comes
// in, is no longer than may be, and leaves a client that can be counted.
func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		"PROXY TCP4 192.0.2.1 192.0.2.2 4711 995\r\nQUIT\r\n", "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 4711 995\r\n", "PROXY UNKNOWN\r\n",
		"PROXY UNKNOWN x y z\r\n", "PROXY TCP4 192.0.2.1", "QUIT\r\n", "\r\n\r\n",
		string(headerV2(0x20, 0, nil, nil)), string(headerV2(0x21, 0x11, client4, sslTLV(true))), string(headerV2(0x21, 0x21, mapped, sslTLV(false))),
		string(withChecksum(headerV2(0x21, 0x21, client6, tlv(proxyproto.PP2_TYPE_AUTHORITY, []byte("mail.example.org")...)), 0)),
		string(withChecksum(headerV2(0x21, 0x11, client4, nil), 1)), string(headerV2(0x21, 0x31, make([]byte, 216), nil)),
		string(headerV2(0x21, 0x11, client4, []byte{0x20, 0, 5, 1, 0, 0, 0, 0, 3, 0, 4})),
	} {
		f.Add([]byte(seed))
	}
	listener := Listener{ListenerConfig: ListenerConfig{Name: "pop3s", TLS: TLSOffloaded}}
	f.Fuzz(func(t *testing.T, sent []byte) {
		header, rest, err := takeHeader(bytes.NewReader(sent))
		again, _, err2 := takeHeader(iotest.OneByteReader(bytes.NewReader(sent)))
		if (err == nil) != (err2 == nil) || !bytes.Equal(header, again) {
			t.Fatalf("whole %q, %v; octet by octet %q, %v", header, err, again, err2)
		}
		if err != nil {
			return
		}
		if len(header) == 0 || len(header) > maxHeaderV2 || !bytes.HasPrefix(sent, slices.Concat(header, rest)) {
			t.Fatalf("took %q and %q of %q", header, rest, sent)
		}
		socket := netip.MustParseAddrPort("192.0.2.9:9")
		s := &session{listener: &listener, client: auth.Client{Addr: socket}}
		if err := s.believe(header); err != nil {
			if s.client.TLS != nil {
				t.Errorf("%q is refused, %v, and believed to be over TLS", header, err)
			}
			return
		}
		if a := s.client.Addr.Addr(); !a.IsValid() || a.Is4In6() || !s.client.Network().IsValid() {
			t.Errorf("%q gives the client %v", header, s.client.Addr)
		}
		local := header[0] == '\r' && header[12]&0xf == 0
		if local && s.client.Addr != socket {
			t.Errorf("%q gives the client %v, though it is the proxy's own", header, s.client.Addr)
		}
		if v1 := header[0] == 'P'; v1 && !bytes.HasSuffix(header, []byte("\r\n")) {
			t.Errorf("%q is taken for a header", header)
		}
	})
}

// The harness sees what it is there to see: a login, and what follows it, in the same octets.
func TestFuzzHarness(t *testing.T) {
	address, seen := visitors(t)
	r := start(t, address)
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.send("USER alice@example.org\r\nPASS secret\r\n\x00NOOP")
	c.expect("+OK", "+OK Logged in", "* the backend's words")
	c.conn.Close()
	v := receive(t, seen, "what the backend saw")
	if v.user != "USER alice@example.org\r\n" || !v.in || string(v.rest) != "\x00NOOP" {
		t.Errorf("the backend saw %+v", v)
	}
}
