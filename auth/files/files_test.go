package files_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/popgate/popgate/auth/files"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecret(t *testing.T) {
	for _, tt := range []struct{ text, want, problem string }{
		{"pass word \n", "pass word ", ""},
		{"grüße\r\n\n", "grüße", ""},
		{"", "", "is empty"},
		{"\n", "", "is empty"},
		{"hush\nhush", "", "has more than one line"},
		{"hush\x00hush", "", "has more than one line"},
	} {
		path := write(t, "secret", tt.text)
		got, err := files.Secret(path)
		switch {
		case tt.problem == "" && (got != tt.want || err != nil):
			t.Errorf("%q: got %q, %v; want %q", tt.text, got, err, tt.want)
		case tt.problem != "" && (err == nil || err.Error() != path+" "+tt.problem):
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.problem)
		}
	}
	if _, err := files.Secret(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("got %v, want that there is no such file", err)
	}
}

func TestTLS(t *testing.T) {
	cert, key := pair(t)
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if err := files.TLS(c, "", "", ""); err != nil || c.RootCAs != nil || c.Certificates != nil {
		t.Errorf("got %v, %v, %v; want nothing filled in", c.RootCAs, c.Certificates, err)
	}
	if err := files.TLS(c, cert, cert, key); err != nil || c.RootCAs == nil || len(c.Certificates) != 1 {
		t.Errorf("got %v, %d certificates, %v; want both filled in", c.RootCAs, len(c.Certificates), err)
	}
	none := filepath.Join(t.TempDir(), "none")
	for want, in := range map[string][3]string{
		"tls_ca: open " + none:                               {none, "", ""},
		"tls_ca: " + key + " has no certificate in PEM form": {key, "", ""},
		"tls_cert: open " + none:                             {"", none, key},
		"tls_cert: tls: failed to find any PEM data in key":  {"", cert, write(t, "empty", "")},
	} {
		if err := files.TLS(&tls.Config{MinVersion: tls.VersionTLS12}, in[0], in[1], in[2]); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// pair makes a certificate and its key.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
}
