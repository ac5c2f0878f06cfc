package proxy

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/popgate/popgate/policy/audit"
)

// Addresses of a client and of what it connected to, as version 2 writes them; ports follow.
var (
	addresses4 = []byte{192, 0, 2, 1, 192, 0, 2, 2}
	client4    = append(append([]byte{}, addresses4...), 0x12, 0x67, 0x03, 0xe3) // 4711, 995
	client6    = append(append(netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("2001:db8::2").AsSlice()...), 0x12, 0x67, 0x03, 0xe3)
	mapped     = append(append(netip.MustParseAddr("::ffff:192.0.2.1").AsSlice(), netip.MustParseAddr("::ffff:192.0.2.2").AsSlice()...), 0x12, 0x67, 0x03, 0xe3)
)

// headerV2 makes a version 2 header by hand: the library is what is tested.
func headerV2(command, family byte, addresses, tlvs []byte) []byte {
	b := append([]byte(signatureV2), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)+len(tlvs)))
	return append(append(b, addresses...), tlvs...)
}

func tlv(kind proxyproto.PP2Type, value ...byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{byte(kind)}, uint16(len(value))), value...)
}

// withChecksum adds a CRC32C, wrong by the given number.
func withChecksum(b []byte, wrong uint32) []byte {
	binary.BigEndian.PutUint16(b[14:], binary.BigEndian.Uint16(b[14:])+7)
	b = append(b, tlv(proxyproto.PP2_TYPE_CRC32C, 0, 0, 0, 0)...)
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))+wrong)
	return b
}

// sslTLV says that the client came over TLS, or not.
func sslTLV(over bool) []byte {
	bits := byte(0)
	if over {
		bits = 1
	}
	sub := tlv(proxyproto.PP2_SUBTYPE_SSL_VERSION, []byte("TLSv1.3")...)
	return tlv(proxyproto.PP2_TYPE_SSL, append([]byte{bits, 0, 0, 0, 1}, append(sub, tlv(proxyproto.PP2_SUBTYPE_SSL_CIPHER, []byte("TLS_AES_128_GCM_SHA256")...)...)...)...)
}

// behindProxy makes a listener that believes loopback.
func behindProxy(starts string) func(*settings) {
	return func(s *settings) {
		s.listener.TLS = starts
		s.listener.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
}

func TestHeader(t *testing.T) {
	authority := tlv(proxyproto.PP2_TYPE_AUTHORITY, []byte("Mail.Example.ORG")...)
	for _, tt := range []struct {
		name, header, client string
	}{
		{"v1 TCP4", "PROXY TCP4 192.0.2.1 192.0.2.2 4711 995\r\n", "192.0.2.1:4711"},
		{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 4711 995\r\n", "[2001:db8::1]:4711"},
		{"v1 mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 4711 995\r\n", "192.0.2.1:4711"},
		{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", "127.0.0.1"},
		{"v1 UNKNOWN with more", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1"},
		{"v2 TCP4", string(headerV2(0x21, 0x11, client4, nil)), "192.0.2.1:4711"},
		{"v2 TCP6", string(headerV2(0x21, 0x21, client6, nil)), "[2001:db8::1]:4711"},
		{"v2 mapped", string(headerV2(0x21, 0x21, mapped, nil)), "192.0.2.1:4711"},
		{"v2 TLVs", string(headerV2(0x21, 0x11, client4, authority)), "192.0.2.1:4711"},
		{"v2 LOCAL", string(headerV2(0x20, 0x00, nil, nil)), "127.0.0.1"},
		{"v2 LOCAL with addresses", string(headerV2(0x20, 0x11, client4, authority)), "127.0.0.1"},
		{"v2 unix", string(headerV2(0x21, 0x31, make([]byte, 216), nil)), "127.0.0.1"},
		{"v2 checksum", string(withChecksum(headerV2(0x21, 0x11, client4, authority), 0)), "192.0.2.1:4711"},
		{"v2 long", string(headerV2(0x21, 0x11, client4, tlv(proxyproto.PP2_TYPE_NOOP, make([]byte, maxHeaderV2-28-3)...))), "192.0.2.1:4711"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := start(t, "127.0.0.1:1", behindProxy(TLSStartTLS))
			c := r.plain()
			c.send(tt.header + "QUIT\r\n")
			c.expect("+OK POP3 ready", "+OK Bye")
			c.conn.Close()
			if e := r.closed(audit.ClientQuit); !strings.HasPrefix(e.Client.String(), tt.client) {
				t.Errorf("client %v, want %s", e.Client, tt.client)
			}
		})
	}
}

// The header and the first flight of TLS may come in one segment; the octets behind the header belong to TLS.
func TestHeaderThenTLS(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		s := defaults("127.0.0.1:1")
		behindProxy(TLSImplicit)(s)
		r := newRig(t, s)
		r.listen(address)
		c := r.plain()
		socket := c.raw.Conn
		first := true
		c.raw.Conn = &fakeConn{Conn: socket, read: socket.Read, write: func(p []byte) (int, error) {
			if first {
				first = false
				n, err := socket.Write(append(headerV2(0x21, 0x21, client6, nil), p...))
				return max(0, n-52), err
			}
			return socket.Write(p)
		}}
		c.startTLS(clientTLS())
		facts := c.tlsFacts(r)
		if facts.ServerName != "localhost" {
			t.Errorf("%s: %+v", address, facts)
		}
		socket.Close()
	}
}

func TestHeaderOffloaded(t *testing.T) {
	const refused = "-ERR Use STLS first: this server takes no password in clear"
	authority := tlv(proxyproto.PP2_TYPE_AUTHORITY, []byte("Mail.Example.ORG")...)
	for _, tt := range []struct {
		name, header, user string
		version, server    string
	}{
		{"v1", "PROXY TCP4 192.0.2.1 192.0.2.2 4711 995\r\n", "+OK", "", ""},
		{"no TLV", string(headerV2(0x21, 0x11, client4, nil)), "+OK", "", ""},
		{"TLS", string(headerV2(0x21, 0x11, client4, append(sslTLV(true), authority...))), "+OK", "TLS 1.3", "mail.example.org"},
		{"in clear", string(headerV2(0x21, 0x11, client4, sslTLV(false))), refused, "", ""},
		{"LOCAL", string(headerV2(0x20, 0x00, nil, nil)), "+OK", "", ""},
	} {
		r := start(t, "127.0.0.1:1", behindProxy(TLSOffloaded))
		c := r.plain()
		c.send(tt.header + "STLS\r\nUSER alice@example.org\r\nQUIT\r\n")
		stls := "-ERR TLS is on already"
		if tt.user == refused {
			stls = "-ERR No STLS here"
		}
		c.expect("+OK POP3 ready", stls, tt.user, "+OK Bye")
		c.conn.Close()
		e := r.closed(audit.ClientQuit)
		if tt.version != "" && (e.TLS == nil || e.TLS.Version != tt.version || e.TLS.ServerName != tt.server) {
			t.Errorf("%s: TLS on record: %+v", tt.name, e.TLS)
		}
		if (e.TLS == nil) != (tt.user == refused) {
			t.Errorf("%s: TLS on record: %+v", tt.name, e.TLS)
		}
	}
}

func TestHeaderRefused(t *testing.T) {
	tooLong := headerV2(0x21, 0x11, client4, tlv(proxyproto.PP2_TYPE_NOOP, make([]byte, maxHeaderV2-27-3)...))
	badSize := headerV2(0x21, 0x11, client4, []byte{3, 0, 5, 1, 2, 3, 4, 5})
	for name, sent := range map[string]string{
		"no header":         "USER alice@example.org\r\n",
		"TLS":               string(clientHello(t)),
		"v1 too long":       "PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n",
		"v1 without an end": "PROXY TCP4 " + strings.Repeat("1", 200),
		"v1 LF alone":       "PROXY TCP4 192.0.2.1 192.0.2.2 4711 995\n",
		"v1 nonsense":       "PROXY TCP4 mail.example.org x y z\r\n",
		"v1 wrong family":   "PROXY TCP4 2001:db8::1 2001:db8::2 4711 995\r\n",
		"v2 too long":       string(tooLong),
		"v2 wrong version":  string(headerV2(0x31, 0x11, client4, nil)),
		"v2 wrong command":  string(headerV2(0x22, 0x11, client4, nil)),
		"v2 unspecified":    string(headerV2(0x21, 0x00, nil, nil)), // the specification leaves it to the receiver
		"v2 short":          string(headerV2(0x21, 0x11, client4[:8], nil)),
		"v2 bad checksum":   string(withChecksum(headerV2(0x21, 0x11, client4, nil), 1)),
		"v2 odd checksum":   string(badSize),
		"two headers":       "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nPROXY TCP4 192.0.2.3 192.0.2.2 1 2\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, "127.0.0.1:1", behindProxy(TLSStartTLS))
			c := r.plain()
			c.send(sent)
			if name == "two headers" { // the second is a foreign protocol
				c.expect("+OK POP3 ready")
				r.closed(audit.NotPOP3)
				return
			}
			if got := receive(t, r.audit.refused, "the count of refusals"); got.Reason != audit.ProxyHeader || got.Network.String() != "127.0.0.1/32" {
				t.Errorf("refused %+v", got)
			}
			c.ends(false)
			r.log.has(t, "connected to listener pop3s and sent no usable PROXY header (", "send-proxy-v2")
		})
	}
}

// Whoever may not send a header is closed at accept, whatever he sends.
func TestHeaderUntrusted(t *testing.T) {
	r := start(t, "127.0.0.1:1", func(s *settings) {
		s.listener.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	c := r.plain()
	if got := receive(t, r.audit.refused, "the count of refusals"); got.Reason != audit.ProxyHeader {
		t.Errorf("refused %+v", got)
	}
	c.ends(false)
	r.log.has(t, "is not in proxy_protocol_from")
	if n := r.gw.Sessions(); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestHeaderInPieces(t *testing.T) {
	v2 := headerV2(0x21, 0x11, client4, sslTLV(true))
	for name, header := range map[string][]byte{
		"v1": []byte("PROXY TCP4 192.0.2.1 192.0.2.2 4711 995\r\n"), "v2": v2, "v2 LOCAL": headerV2(0x20, 0, nil, nil),
	} {
		whole := append(append([]byte{}, header...), "QUIT\r\n"...)
		got, rest, err := takeHeader(iotest.OneByteReader(strings.NewReader(string(whole))))
		if err != nil || string(got) != string(header) || len(rest) != 0 {
			t.Errorf("%s, octet by octet: %q, %q, %v", name, got, rest, err)
		}
		for i := 1; i < len(header); i++ {
			a, b := string(whole[:i]), string(whole[i:])
			got, rest, err := takeHeader(&pieces{a, b})
			if err != nil || string(got)+string(rest) != string(whole) || len(got) != len(header) {
				t.Errorf("%s cut at %d: %q, %q, %v", name, i, got, rest, err)
			}
		}
	}
}

// pieces is a reader of one string a read.
type pieces []string

func (p *pieces) Read(b []byte) (int, error) {
	if len(*p) == 0 {
		return 0, nil
	}
	n := copy(b, (*p)[0])
	*p = (*p)[1:]
	return n, nil
}

// The header has a deadline for all of it.
func TestHeaderDeadline(t *testing.T) {
	header := headerV2(0x21, 0x11, client4, nil)
	for name, sent := range map[string][]byte{"silence": nil, "a drip": header} {
		synctest.Test(t, func(t *testing.T) {
			s := defaults("127.0.0.1:1")
			s.listener.TLS = TLSOffloaded
			s.listener.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			r := newRig(t, s)
			c := r.pipe()
			began := time.Now()
			var talking sync.WaitGroup
			talking.Go(func() { c.drip(sent, time.Second) })
			if got := <-r.audit.refused; got.Reason != audit.ProxyHeader {
				t.Errorf("refused %+v", got)
			}
			if took := time.Since(began); took != s.timeouts.ProxyHeader {
				t.Errorf("%s: ended after %v", name, took)
			}
			c.conn.Close()
			r.gw.Close()
			talking.Wait()
		})
	}
}

// A load balancer is not blamed for what the end of the gateway does to its header.
func TestHeaderShutdown(t *testing.T) {
	for name, awaited := range map[string]bool{"a read under way": true, "no read yet": false} {
		synctest.Test(t, func(t *testing.T) {
			s := defaults("127.0.0.1:1")
			s.listener.TLS = TLSOffloaded
			s.listener.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			r := newRig(t, s)
			if !awaited {
				r.gw.stop()
			}
			c := r.pipe()
			synctest.Wait()
			if err := r.gw.Shutdown(context.Background()); err != nil {
				t.Errorf("%s: Shutdown: %v", name, err)
			}
			if got := <-r.audit.refused; got.Reason != audit.Shutdown {
				t.Errorf("%s: refused %+v", name, got)
			}
			c.ends(false)
			if len(r.log.lines) > 0 {
				t.Errorf("%s: the log says %q", name, r.log.lines)
			}
		})
	}
}

// Nor is it where the connection is cut, right before the header is read or within.
func TestHeaderCut(t *testing.T) {
	for range 50 {
		r := start(t, "127.0.0.1:1", behindProxy(TLSStartTLS))
		c := r.plain()
		c.send("PROXY TCP4 192.0.2.1")
		waitFor(t, func() bool { return r.gw.Sessions() == 1 })
		r.gw.Close()
		if got := receive(t, r.audit.refused, "the count of refusals"); got.Reason != audit.Shutdown {
			t.Errorf("refused %+v", got)
		}
		if len(r.log.lines) > 0 {
			t.Errorf("the log says %q", r.log.lines)
		}
		c.conn.Close()
	}
}
