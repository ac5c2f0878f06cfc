package backend

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/popgate/popgate/auth/files"
)

// A testCA issues one server certificate.
type testCA struct {
	file   string // the CA's certificate in PEM form
	config *tls.Config
	pin    [32]byte // of the server's key
}

func newCA(t *testing.T, key crypto.Signer, names ...string) *testCA {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &testCA{
		file:   file,
		config: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		pin:    sha256.Sum256(parsed.RawSubjectPublicKeyInfo),
	}
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

const (
	implicitScript = "TLS" + loginScript
	stlsScript     = `S: +OK ready
		C: STLS
		S: +OK begin
		TLS
		C: USER alice@example.org
		S: +OK
		C: PASS secret
		S: +OK logged in`
)

// secured is a server that speaks TLS where its script says so.
func (ca *testCA) secured(t *testing.T, lines string) string {
	t.Helper()
	s := script(lines)
	s.secure = func(c net.Conn) net.Conn { return tls.Server(c, ca.config) }
	return s.listen(t)
}

func TestTLSLogin(t *testing.T) {
	ca := newCA(t, ecKey(t), "127.0.0.1", "mail.example.org")
	other := newCA(t, ecKey(t), "127.0.0.1")
	right, wrong := hex.EncodeToString(ca.pin[:]), hex.EncodeToString(other.pin[:])
	tests := []struct {
		name   string
		change func(*Config)
		want   string // the error's text, "" for none
		fix    string // what the log says to change
	}{
		{"own CA", func(c *Config) { c.TLSCA = ca.file }, "", ""},
		{"own CA, name given", func(c *Config) { c.TLSCA, c.TLSServerName = ca.file, "mail.example.org" }, "", ""},
		{"own CA, another name", func(c *Config) { c.TLSCA, c.TLSServerName = ca.file, "pop.example.org" },
			"not pop.example.org", "tls_server_name"},
		{"another CA", func(c *Config) { c.TLSCA = other.file }, "unknown authority", "tls_ca"},
		{"the system's CAs", func(*Config) {}, "unknown authority", "tls_ca"},
		{"expired", func(c *Config) { c.TLSCA = ca.file }, "expired", "renew"},
		{"pin", func(c *Config) { c.TLSPinSHA256 = []string{wrong, right} }, "", ""},
		{"pin of an expired one", func(c *Config) { c.TLSPinSHA256 = []string{right} }, "", ""},
		{"pin in base64", func(c *Config) { c.TLSPinSHA256 = []string{base64.StdEncoding.EncodeToString(ca.pin[:])} }, "", ""},
		{"pin, another name", func(c *Config) { c.TLSPinSHA256, c.TLSServerName = []string{right}, "x.example.org" }, "", ""},
		{"wrong pin", func(c *Config) { c.TLSPinSHA256 = []string{wrong} }, "it is " + right, "tls_pin_sha256"},
		{"CA and pin", func(c *Config) { c.TLSCA, c.TLSPinSHA256 = ca.file, []string{right} }, "", ""},
		{"CA and wrong pin", func(c *Config) { c.TLSCA, c.TLSPinSHA256 = ca.file, []string{wrong} }, "tls_pin_sha256",
			"tls_pin_sha256"},
		{"pin and another CA", func(c *Config) { c.TLSCA, c.TLSPinSHA256 = other.file, []string{right} },
			"unknown authority", "tls_ca"},
	}
	for _, mode := range []string{TLSImplicit, TLSStart} {
		lines := map[string]string{TLSImplicit: implicitScript, TLSStart: stlsScript}[mode]
		for _, tt := range tests {
			t.Run(mode+"/"+tt.name, func(t *testing.T) {
				c := config(ca.secured(t, lines))
				c.TLS = mode
				tt.change(&c)
				p, said := advised(t, c)
				if strings.Contains(tt.name, "expired") {
					p.members[0].tls.Time = func() time.Time { return time.Now().Add(2 * time.Hour) }
				}
				conn, err := login(t, p)
				if tt.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					if _, ok := conn.Conn.(*tls.Conn); !ok {
						t.Errorf("got a %T, want TLS", conn.Conn)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("got %v, want %q in it", err, tt.want)
				}
				refused(t, err, Down)
				_, _ = login(t, p)
				saidOnce(t, said, tt.fix)
				// Before the greeting it is the server that is of no use, behind it the server lives.
				if up := p.members[0].server.up(); up != (mode == TLSStart) {
					t.Errorf("the server is up: %v", up)
				}
			})
		}
	}
}

// TestSTLSInjection holds that what an attacker puts behind the +OK to STLS, in clear, is never taken for a reply
// (CVE-2011-0411).
func TestSTLSInjection(t *testing.T) {
	ca := newCA(t, ecKey(t), "127.0.0.1")
	for lines, want := range map[string]Kind{
		"S: +OK\nC: STLS\nS* \"+OK\\r\\n+OK\\r\\n+OK\\r\\n\"\nhang": Protocol,
		"S* \"+OK\\r\\n+OK\\r\\n\"\nhang":                           Protocol,
		"S: +OK\nC: STLS\nS: -ERR no":                               Temporary,
		"S: +OK\nC: STLS\nS: +OK\nclose":                            Temporary,
	} {
		c := config(ca.secured(t, lines))
		c.TLS, c.TLSCA = TLSStart, ca.file
		_, err := login(t, pool(t, c))
		if step := refused(t, err, want); step != "STLS" {
			t.Errorf("%q: got %v, want a failure of STLS", lines, err)
		}
	}
}

func TestOldTLS(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ca := newCA(t, key, "127.0.0.1")
	ca.config.MinVersion, ca.config.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	ca.config.CipherSuites = []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA} // RSA key exchange and nothing newer
	for version, good := range map[string]bool{"1.0": true, "1.1": false, "1.2": false, "1.3": false} {
		c := config(ca.secured(t, implicitScript))
		c.TLS, c.TLSCA, c.TLSMinVersion = TLSImplicit, ca.file, version
		conn, err := login(t, pool(t, c))
		if (err == nil) != good {
			t.Errorf("tls_min_version %s: got %v", version, err)
		}
		if err == nil && conn.Conn.(*tls.Conn).ConnectionState().Version != tls.VersionTLS10 {
			t.Error("it is not TLS 1.0")
		}
	}
}

// TestResumption holds that logins share a TLS session, and that a pin is looked at all the same.
func TestResumption(t *testing.T) {
	ca := newCA(t, ecKey(t), "127.0.0.1")
	c := config(ca.secured(t, implicitScript+"\nC: NOOP\nS: +OK"))
	c.TLS, c.TLSPinSHA256 = TLSImplicit, []string{hex.EncodeToString(ca.pin[:])}
	p := pool(t, c)
	for i := range 2 {
		conn, err := login(t, p)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.Conn.(*tls.Conn).ConnectionState().DidResume; got != (i == 1) {
			t.Errorf("login %d resumed: %v", i, got)
		}
	}
	p.members[0].tls.VerifyConnection = func(cs tls.ConnectionState) error { return checkPin([]pin{{}}, &cs) }
	if _, err := login(t, p); !errors.Is(err, errPin) {
		t.Errorf("got %v, want the pin to be looked at in a resumed session", err)
	}
}

// TestTruncated holds that an end of TCP in the middle of a message is told from an end by the server's own word, and
// that plaintext has no such difference.
func TestTruncated(t *testing.T) {
	const retr = "\nC: RETR 1\nS: +OK\nS: From: bob@example.org\n"
	ca := newCA(t, ecKey(t), "127.0.0.1")
	old := newCA(t, ecKey(t), "127.0.0.1")
	old.config.MaxVersion = tls.VersionTLS12
	tests := []struct {
		name, tls, script string
		ca                *testCA
		notify            bool
		want              bool
	}{
		{"implicit, close_notify", TLSImplicit, implicitScript, ca, true, false},
		{"implicit, FIN alone", TLSImplicit, implicitScript, ca, false, true},
		{"STLS, close_notify", TLSStart, stlsScript, ca, true, false},
		{"STLS, FIN alone", TLSStart, stlsScript, ca, false, true},
		{"TLS 1.2, close_notify", TLSImplicit, implicitScript, old, true, false},
		{"TLS 1.2, FIN alone", TLSImplicit, implicitScript, old, false, true},
		{"plaintext", TLSNone, loginScript, ca, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := script(tt.script + retr + "close")
			s.secure = func(c net.Conn) net.Conn {
				over := tls.Server(c, tt.ca.config)
				if tt.notify {
					return over
				}
				return finOnly{over}
			}
			c := config(s.listen(t))
			if c.TLS = tt.tls; tt.tls != TLSNone {
				c.TLSCA = tt.ca.file
			}
			conn, err := login(t, pool(t, c))
			if err != nil {
				t.Fatal(err)
			}
			if conn.Truncated() {
				t.Error("truncated while it lives")
			}
			if _, err := io.WriteString(conn, "RETR 1\r\n"); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(conn) // nil for io.EOF
			if err != nil || string(got) != "+OK\r\nFrom: bob@example.org\r\n" {
				t.Errorf("got %q, %v, want all that was sent and an end", got, err)
			}
			if conn.Truncated() != tt.want {
				t.Errorf("truncated: %v, want %v", conn.Truncated(), tt.want)
			}
		})
	}
}

// finOnly is TLS whose Close sends no close_notify.
type finOnly struct{ *tls.Conn }

func (f finOnly) Close() error { return f.NetConn().Close() }

func TestReadRoots(t *testing.T) {
	file := filepath.Join(t.TempDir(), "not.pem")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Roots(file); err == nil || !strings.Contains(err.Error(), "no certificate in PEM form") {
		t.Errorf("got %v", err)
	}
	if err := checkPin(nil, &tls.ConnectionState{}); !errors.Is(err, errPin) {
		t.Errorf("got %v for a server without certificate", err)
	}
}
