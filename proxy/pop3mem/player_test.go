package pop3mem

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// start serves s on a free port of the loopback and returns the address. The server ends with the test.
func start(t testing.TB, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// A player is the client of a transcript.
type player struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func dial(t testing.TB, addr string) *player {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &player{t: t}
	p.use(conn)
	return p
}

func (p *player) use(conn net.Conn) {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	p.conn, p.r = conn, bufio.NewReader(conn)
}

// play sends the lines behind "> ", those that follow one another in one write, and wants those behind "< ", word for
// word; "<EOF" is the end of the connection.
func (p *player) play(script string) {
	p.t.Helper()
	var out []byte
	flush := func() {
		if _, err := p.conn.Write(out); err != nil {
			p.t.Fatal(err)
		}
		out = out[:0]
	}
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "> "):
			out = append(append(out, line[2:]...), '\r', '\n')
			continue
		case len(out) > 0:
			flush()
		}
		if line == "<EOF" {
			if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
				p.t.Fatalf("want the end, got %q, %v", rest, err)
			}
			continue
		}
		got, err := p.r.ReadString('\n')
		if want := strings.TrimPrefix(line, "< ") + "\r\n"; err != nil || got != want {
			p.t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	if len(out) > 0 {
		flush()
	}
}

// selfSigned makes a certificate for mail.example.org that is believed by the pool.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"mail.example.org"}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
