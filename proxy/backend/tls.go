package backend

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/auth/files"
	"github.com/popgate/popgate/proxy/pop3"
)

var tlsVersions = map[string]uint16{
	"1.0": tls.VersionTLS10,
	"1.1": tls.VersionTLS11,
	"1.2": tls.VersionTLS12,
	"1.3": tls.VersionTLS13,
}

// errPin means that the server showed another key than the configured ones.
var errPin = errors.New("the server's key is not one of tls_pin_sha256")

type pin [sha256.Size]byte

// parsePin reads a SHA-256 in hex, with or without colons, or base64; curl's "sha256//" may stand in front.
func parsePin(s string) (pin, error) {
	s = strings.TrimPrefix(s, "sha256//")
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) != sha256.Size {
		b, err = base64.StdEncoding.DecodeString(s)
	}
	if err != nil || len(b) != sha256.Size {
		return pin{}, errors.New("is no SHA-256; write the 32 bytes in hex (64 digits) or base64 (44 characters)")
	}
	return pin(b), nil
}

// newTLS makes what all servers of a backend have in common of their TLS configuration. It reports what it cannot use by
// the key it stands at.
func newTLS(c *Config, fault func(key string, err error)) *tls.Config {
	t := &tls.Config{MinVersion: tlsVersions[c.TLSMinVersion]}
	if t.MinVersion < tls.VersionTLS12 {
		allowOld(t)
	}
	if c.TLSCA != "" {
		roots, err := files.Roots(c.TLSCA)
		if err != nil {
			fault("tls_ca", err)
		}
		t.RootCAs = roots
	}
	var pins []pin
	for i, s := range c.TLSPinSHA256 {
		p, err := parsePin(s)
		if err != nil {
			fault(fmt.Sprintf("tls_pin_sha256[%d]", i), err)
		}
		pins = append(pins, p)
	}
	if len(pins) > 0 {
		// VerifyConnection, unlike VerifyPeerCertificate, is called for resumed sessions too.
		t.VerifyConnection = func(cs tls.ConnectionState) error { return checkPin(pins, &cs) }
		t.InsecureSkipVerify = c.TLSCA == "" // the key is known: who vouches for it does not matter
	}
	return t
}

// allowOld lets t talk to servers of twenty years ago. RSA key exchange and CBC or RC4 suites are weak, but the
// alternative on such a server is no encryption at all. The post-quantum key share goes, for it makes the first
// message longer than such servers expect.
func allowOld(t *tls.Config) {
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		t.CipherSuites = append(t.CipherSuites, s.ID)
	}
	t.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
}

// checkPin looks at the server's own certificate alone: where the chain is not verified, anybody can send the rest.
func checkPin(pins []pin, cs *tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errPin
	}
	seen := pin(sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo))
	if !slices.Contains(pins, seen) {
		return fmt.Errorf("%w: it is %s", errPin, hex.EncodeToString(seen[:]))
	}
	return nil
}

// serverTLS is common for one server. It is made once and never cloned for a connection, so that sessions resume.
func serverTLS(common *tls.Config, c *Config, host string) *tls.Config {
	t := common.Clone()
	t.ServerName = c.TLSServerName
	if t.ServerName == "" {
		t.ServerName = host
	}
	t.ClientSessionCache = tls.NewLRUClientSessionCache(1) // one server, one name, one session
	return t
}

func (a *attempt) implicitTLS(ctx context.Context) error {
	if err := a.armBy(ctx, a.connectBy()); err != nil {
		return err
	}
	err := a.handshake()
	a.connected = time.Now()
	return err
}

// handshake puts TLS on the connection, within the deadline that is set. Not by HandshakeContext, which would start a
// goroutine to do what a.stop does.
func (a *attempt) handshake() error {
	below := &underTLS{Conn: a.raw}
	t := tls.Client(below, a.member.tls)
	if err := t.Handshake(); err != nil {
		return err
	}
	a.conn, a.below = t, below
	return nil
}

// underTLS is a TCP connection below TLS. crypto/tls returns io.EOF for a close_notify and for the bare end of the TCP
// stream alike, since many servers never send the former; but it asks for no more octets once it has the former.
type underTLS struct {
	net.Conn
	ended atomic.Bool // the TCP stream has ended, and TLS was waiting for more
}

func (u *underTLS) Read(p []byte) (int, error) {
	n, err := u.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		u.ended.Store(true)
	}
	return n, err
}

func (a *attempt) stls(ctx context.Context) error {
	r, err := a.command(ctx, append(a.line[:0], "STLS\r\n"...))
	if err != nil {
		return err
	}
	if a.mistaken(r) {
		return &Error{Kind: Protocol, Reply: r, Err: fmt.Errorf("%w, or knows no STLS", errHeader)}
	}
	if !r.OK {
		return &Error{Kind: Temporary, Reply: r, Err: errNoSTLS}
	}
	if len(a.lines.Buffered()) > 0 {
		return errInjected
	}
	a.lines.Release()
	if err := a.arm(ctx, a.pool.config.ConnectTimeout); err != nil {
		return err
	}
	if err := a.handshake(); err != nil {
		return err
	}
	a.lines = pop3.NewReader(a.conn)
	return nil
}
