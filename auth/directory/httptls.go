package directory

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// believeAndShow fills in whom t believes and what it shows, from the files of a section: tls_ca, tls_cert and tls_key.
func believeAndShow(t *tls.Config, ca, cert, key string) error {
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return fmt.Errorf("tls_ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("tls_ca: %s holds no certificate in PEM", ca)
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
