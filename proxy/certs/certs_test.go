package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// testCA is the CA of the tests' certificate files; roots trusts it.
type testCA struct {
	cert  *x509.Certificate
	key   crypto.Signer
	roots *x509.CertPool
}

var testIssuer = sync.OnceValue(func() *testCA {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key))))
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &testCA{cert: ca, key: key, roots: roots}
})

var testRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// pemPair makes a certificate for names and its key; edit may change the template, a nil key makes an ECDSA one.
func pemPair(key crypto.Signer, edit func(*x509.Certificate), names ...string) (certPEM, keyPEM []byte) {
	if key == nil {
		key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
	leaf := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if edit != nil {
		edit(leaf)
	}
	ca := testIssuer()
	der := must(x509.CreateCertificate(rand.Reader, leaf, ca.cert, key.Public(), ca.key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
}

// put writes a pair as dir/base.crt and dir/base.key.
func put(t testing.TB, dir, base string, certPEM, keyPEM []byte) Files {
	t.Helper()
	f := Files{Cert: filepath.Join(dir, base+".crt"), Key: filepath.Join(dir, base+".key")}
	write(t, f.Cert, certPEM)
	write(t, f.Key, keyPEM)
	return f
}

// write gives the file the test's time: in a bubble the file system's own clock would stand still between two writes.
func write(t testing.TB, path string, data []byte) {
	t.Helper()
	now := time.Now()
	if err := errors.Join(os.WriteFile(path, data, 0o600), os.Chtimes(path, now, now)); err != nil {
		t.Fatal(err)
	}
}

// issueFiles writes a fresh pair for names.
func issueFiles(t testing.TB, dir, base string, names ...string) Files {
	t.Helper()
	certPEM, keyPEM := pemPair(nil, nil, names...)
	return put(t, dir, base, certPEM, keyPEM)
}

func withFiles(files ...Files) Config {
	c := DefaultConfig()
	c.Certificates = files
	return c
}

// prepare makes a view of c for one listener and puts it in force.
func prepare(t testing.TB, k *Keeper, c Config, ls ...Listener) *View {
	t.Helper()
	if len(ls) == 0 {
		ls = []Listener{{Name: "pop3s"}}
	}
	v, err := k.Prepare(c, nil, ls, Deps{})
	if err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	k.Use(v)
	return v
}

// client is a config that trusts the test CA and asks for name ("" for none at all).
func client(name string) *tls.Config {
	c := &tls.Config{ServerName: name, RootCAs: testIssuer().roots}
	if name == "" {
		c.InsecureSkipVerify = true
	}
	return c
}

// shake makes one whole handshake and a greeting, which is when a TLS 1.3 client has its ticket.
func shake(server, client *tls.Config) (tls.ConnectionState, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	// A pipe holds nothing: an end that gives up in the middle of the other's flight would leave both writing for ever.
	late := time.Now().Add(20 * time.Second)
	if err := errors.Join(a.SetDeadline(late), b.SetDeadline(late)); err != nil {
		return tls.ConnectionState{}, err
	}
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		_, err := s.Write([]byte("+OK\r\n"))
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	c := tls.Client(b, client)
	_, err := io.ReadFull(c, make([]byte, 5))
	if err != nil {
		b.Close()
	}
	return c.ConnectionState(), errors.Join(err, <-done)
}

// served gives the serial of the certificate that a client gets, as text.
func served(t testing.TB, server, client *tls.Config) string {
	t.Helper()
	cs, err := shake(server, client)
	if err != nil {
		t.Fatalf("handshake for %q: %v", client.ServerName, err)
	}
	return cs.PeerCertificates[0].SerialNumber.String()
}

func serial(t testing.TB, f Files) string {
	t.Helper()
	cert, err := f.load("test")
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf.SerialNumber.String()
}

// records is a log whose records a test can wait for.
type records chan slog.Record

func (r records) Enabled(context.Context, slog.Level) bool        { return true }
func (r records) Handle(_ context.Context, rec slog.Record) error { r <- rec.Clone(); return nil }
func (r records) WithAttrs([]slog.Attr) slog.Handler              { return r }
func (r records) WithGroup(string) slog.Handler                   { return r }
func newLog() (records, *slog.Logger)                             { r := make(records, 1000); return r, slog.New(r) }
func (r records) take() (all []slog.Record) {
	for len(r) > 0 {
		all = append(all, <-r)
	}
	return all
}

// wait gives the first record whose message starts so, and those before it.
func (r records) wait(t *testing.T, message string) (slog.Record, []slog.Record) {
	t.Helper()
	var before []slog.Record
	late := time.After(20 * time.Second)
	for {
		select {
		case rec := <-r:
			if strings.HasPrefix(rec.Message, message) {
				return rec, before
			}
			before = append(before, rec)
		case <-late:
			t.Fatalf("no log line %q, only %v", message, before)
		}
	}
}

// text is the record as one line.
func text(rec slog.Record) string {
	line := rec.Message
	rec.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	return line
}

func texts(recs []slog.Record) (lines []string) {
	for _, rec := range recs {
		lines = append(lines, text(rec))
	}
	return lines
}

// run runs the keeper until the test ends.
func run(t *testing.T, k *Keeper) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// testCAPEM is the test CA's certificate.
func testCAPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: testIssuer().cert.Raw})
}
