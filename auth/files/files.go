// Package files reads the files that sections of a configuration name beside their values: secrets, and what TLS needs.
package files

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Secret reads a file that holds one line, such as a password. What it holds is in no error.
func Secret(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	text = bytes.TrimRight(text, "\r\n")
	switch {
	case len(text) == 0:
		return "", fmt.Errorf("%s is empty", name)
	case bytes.ContainsAny(text, "\r\n\x00"):
		return "", fmt.Errorf("%s has more than one line", name)
	}
	return string(text), nil
}

// Roots reads a PEM file with the certificates of CAs.
func Roots(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM form", name)
	}
	return roots, nil
}

// TLS fills in whom t believes and what it shows, from the files of a section's keys tls_ca, tls_cert and tls_key, with which its
// errors begin. None are named by "".
func TLS(t *tls.Config, ca, cert, key string) error {
	if ca != "" {
		var err error
		if t.RootCAs, err = Roots(ca); err != nil {
			return fmt.Errorf("tls_ca: %w", err)
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("tls_cert: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return nil
}
