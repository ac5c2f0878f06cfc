package backend

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"github.com/popgate/popgate/auth"
)

// proxyTTL is the TTL of Dovecot's XCLIENT: a chain of proxies starts at 7, and each sends one less.
const proxyTTL = 6

const (
	maxXClientSession = 64  // Dovecot drops a longer one silently
	maxUniqueID       = 128 // HAProxy's proxy-protocol.txt, PP2_TYPE_UNIQUE_ID
)

// proxies says that connections begin with a PROXY header.
func (c *Config) proxies() bool {
	return c.ClientInfo == ClientProxyV1 || c.ClientInfo == ClientProxyV2
}

// proxy sends the PROXY header, which must come before all else, in one write.
func (a *attempt) proxy(ctx context.Context) error {
	version := byte(2)
	if a.pool.config.ClientInfo == ClientProxyV1 {
		version = 1
	}
	header, err := proxyHeader(version, a.req)
	if err != nil {
		return err
	}
	if err := a.armBy(ctx, a.connectBy()); err != nil {
		return err
	}
	a.named = a.req != nil
	_, err = a.conn.Write(header)
	return err
}

// proxyHeader is the header for a request. A nil request is a check: the header then says that the connection is
// popgate's own. That one has no TLVs, since Dovecot did not understand those (haproxy issue 511).
func proxyHeader(version byte, req *Request) ([]byte, error) {
	if req == nil {
		return proxyproto.HeaderProxyFromAddrs(version, nil, nil).Format()
	}
	c := req.Client
	h := proxyproto.HeaderProxyFromAddrs(version, tcpAddr(c.Addr), tcpAddr(c.Local))
	if version == 2 && h.Command == proxyproto.PROXY {
		tlvs, err := clientTLVs(c, req.Session)
		if err != nil {
			return nil, err
		}
		if err := h.SetTLVs(tlvs); err != nil {
			return nil, err
		}
	}
	return h.Format()
}

func tcpAddr(ap netip.AddrPort) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()))
}

// clientTLVs are what a version 2 header says besides addresses. All of them are bounded, and the whole header stays
// below the 1,500 octets that Dovecot takes. ALPN is left out: popgate speaks nothing but POP3.
func clientTLVs(c *auth.Client, session string) ([]proxyproto.TLV, error) {
	var tlvs []proxyproto.TLV
	if session != "" && len(session) <= maxUniqueID {
		tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: []byte(session)})
	}
	if c.TLS == nil {
		return tlvs, nil
	}
	if name := strings.ToLower(c.TLS.ServerName); hostName(name) {
		tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(name)})
	}
	// Verify is 0 only for a client certificate that was verified.
	ssl := tlvparse.PP2SSL{Client: tlvparse.PP2_BITFIELD_CLIENT_SSL, Verify: 1}
	// OpenSSL writes "TLSv1.3" where crypto/tls writes "TLS 1.3".
	version := strings.Replace(c.TLS.Version, "TLS ", "TLSv", 1)
	ssl.TLV = []proxyproto.TLV{{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte(clip(version, 32))}}
	if c.TLS.Cipher != "" {
		cipher := proxyproto.TLV{Type: proxyproto.PP2_SUBTYPE_SSL_CIPHER, Value: []byte(clip(c.TLS.Cipher, 64))}
		ssl.TLV = append(ssl.TLV, cipher)
	}
	tlv, err := ssl.Marshal()
	return append(tlvs, tlv), err
}

func clip(s string, limit int) string {
	return s[:min(len(s), limit)]
}

// xclient tells a Dovecot who the client is. One that does not offer it does not trust our address: it would answer
// +OK all the same and ignore the command. The login goes on, for users must get their mail.
func (a *attempt) xclient(ctx context.Context) error {
	if !a.offersXClient {
		a.uninformed()
		a.member.server.tally().noClient.Add(1)
		a.advise(warnXClient, "backend does not offer XCLIENT; its logs and limits see popgate in place of the clients",
			"put popgate's address into Dovecot's login_trusted_networks there")
		return nil
	}
	r, err := a.command(ctx, appendXClient(a.line[:0], a.req))
	if err != nil {
		return err
	}
	if r.OK {
		a.informed()
		return nil
	}
	a.uninformed()
	a.advise(warnXClientRefused, "backend refuses XCLIENT; nobody can log in there",
		"see the server's log, or write client_info: none for this backend here", slog.String("answer", replyText(r)))
	return &Error{Kind: Temporary, Reply: r}
}

// appendXClient appends the command as Dovecot's src/pop3-login/pop3-proxy.c writes it.
func appendXClient(b []byte, req *Request) []byte {
	c := req.Client
	addr := func(b []byte, prefix string, ap netip.AddrPort) []byte {
		b = append(b, " "+prefix+"ADDR="...)
		b = ap.Addr().Unmap().WithZone("").AppendTo(b)
		b = append(b, " "+prefix+"PORT="...)
		return strconv.AppendUint(b, uint64(ap.Port()), 10)
	}
	b = append(b, "XCLIENT"...)
	b = addr(b, "", c.Addr)
	b = addr(b, "DEST", c.Local)
	if token(req.Session) && len(req.Session) <= maxXClientSession {
		b = append(append(b, " SESSION="...), req.Session...)
	}
	b = append(b, " TTL="...)
	b = strconv.AppendInt(b, proxyTTL, 10)
	if c.TLS == nil {
		return append(b, " CLIENT-TRANSPORT=insecure\r\n"...)
	}
	b = append(b, " CLIENT-TRANSPORT=TLS"...)
	if name := strings.ToLower(c.TLS.ServerName); hostName(name) {
		b = append(append(b, " DESTNAME="...), name...)
	}
	return append(b, '\r', '\n')
}

// token says that s may stand as a value in a line whose parts are parted by blanks.
func token(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

// xoip tells a Zimbra who the client is. A server that does not know the command loses nothing else.
func (a *attempt) xoip(ctx context.Context) error {
	line := a.req.Client.Addr.Addr().Unmap().WithZone("").AppendTo(append(a.line[:0], "XOIP "...))
	r, err := a.command(ctx, append(line, '\r', '\n'))
	if err != nil || r.OK {
		return err
	}
	a.advise(warnXOIP, "backend refuses XOIP; its logs and limits see popgate in place of the clients",
		"write client_info: none for this backend here", slog.String("answer", replyText(r)))
	return nil
}
