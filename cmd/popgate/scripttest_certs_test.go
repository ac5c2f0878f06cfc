package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// An authority is a CA for one script alone.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// writeCertificates makes a CA and one certificate of it.
func writeCertificates(dir string) (*authority, error) {
	ca, err := newAuthority(dir, "ca")
	if err != nil {
		return nil, err
	}
	return ca, ca.issue(dir, "", "mail.example.org", "pop.example.net", "localhost")
}

// newAuthority makes a CA and writes its certificate to NAME.pem.
func newAuthority(dir, name string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &authority{key: key, cert: &x509.Certificate{
		Subject:               pkix.Name{CommonName: "test " + name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}}
	der, err := ca.sign(ca.cert, key)
	if err != nil {
		return nil, err
	}
	return ca, writePEM(filepath.Join(dir, name+".pem"), "CERTIFICATE", der)
}

// issue writes a certificate for names and loopback, for servers and clients, with its key into PREFIXcert.pem and PREFIXkey.pem.
// It has what a public CA's has, so that a scanner finds nothing wrong with it.
func (ca *authority) issue(dir, prefix string, names ...string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return ca.issueFor(key, dir, prefix, names...)
}

func (ca *authority) issueFor(key crypto.Signer, dir, prefix string, names ...string) error {
	der, err := ca.sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: names[0]},
		DNSNames:              names,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2), net.IPv6loopback},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		CRLDistributionPoints: []string{"http://crl.example.org/ca.crl"},
	}, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The key first: between the two, they do not fit each other, and nothing may be taken.
	if err := writePEM(filepath.Join(dir, prefix+"key.pem"), "PRIVATE KEY", keyDER); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, prefix+"cert.pem"), "CERTIFICATE", der)
}

func (ca *authority) sign(template *x509.Certificate, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(89 * 24 * time.Hour)
	return x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// cmdCertificate makes one more certificate of the script's CA, or of a new one, whose certificate goes to tls/CA.pem. Its key is an ECDSA
// one unless -rsa is there.
func cmdCertificate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: certificate [-rsa | -ca CA] PREFIX NAME...")
	}
	s, dir := stageOf(ts), ts.MkAbs("tls")
	if args[0] == "-rsa" && len(args) > 2 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		ts.Check(err)
		ts.Check(s.ca.issueFor(key, dir, args[1], args[2:]...))
		return
	}
	ca := s.ca
	if args[0] == "-ca" && len(args) > 3 {
		var err error
		ca, err = newAuthority(dir, args[1])
		ts.Check(err)
		args = args[2:]
	}
	ts.Check(ca.issue(dir, args[0], args[1:]...))
}
