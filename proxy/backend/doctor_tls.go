package backend

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// TLSFacts are what a server showed of TLS.
type TLSFacts struct {
	Version string `json:"version"`
	Cipher  string `json:"cipher"`
	// Names are those that the certificate is for.
	Names    []string  `json:"names"`
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	// Chain is the number of certificates that the server sent.
	Chain      int  `json:"chain"`
	SelfSigned bool `json:"self_signed"`
	// KeySHA256 is what tls_pin_sha256 would have for the server's key.
	KeySHA256 string `json:"key_sha256"`
	// Problem is why it would not be trusted as the backend is configured, "" where it would.
	Problem string `json:"problem,omitempty"`
	// ServerName is a name that would make it trusted, "" for none.
	ServerName string `json:"server_name,omitempty"`
	old        uint16
}

// lenient takes every certificate and every version, to see what there is. No password goes over it.
func (x *exam) lenient() *tls.Config {
	t := &tls.Config{ServerName: x.tls.ServerName, MinVersion: tls.VersionTLS10}
	t.InsecureSkipVerify = true // certificate() verifies, and says what is wrong
	allowOld(t)
	return t
}

// certificate looks at what the server showed, and whether it would be trusted.
func (x *exam) certificate(cs *tls.ConnectionState) *TLSFacts {
	f := &TLSFacts{Version: tls.VersionName(cs.Version), Cipher: tls.CipherSuiteName(cs.CipherSuite), Chain: len(cs.PeerCertificates), old: cs.Version}
	if f.Chain == 0 {
		return f
	}
	leaf := cs.PeerCertificates[0]
	key := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	f.KeySHA256 = hex.EncodeToString(key[:])
	f.Subject, f.Issuer, f.NotAfter = leaf.Subject.String(), leaf.Issuer.String(), leaf.NotAfter
	f.Names = slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		f.Names = append(f.Names, ip.String())
	}
	f.SelfSigned = slices.Equal(leaf.RawSubject, leaf.RawIssuer) && leaf.CheckSignatureFrom(leaf) == nil ||
		slices.Equal(leaf.RawSubject, leaf.RawIssuer) && f.Chain == 1
	err := x.verify(cs, x.tls.ServerName)
	if err == nil {
		return f
	}
	f.Problem = problemText(err)
	for _, name := range leaf.DNSNames {
		name = strings.Replace(name, "*", "pop", 1)
		if x.verify(cs, name) == nil {
			f.ServerName = name
			break
		}
	}
	return f
}

// verify does what the configuration would.
func (x *exam) verify(cs *tls.ConnectionState, name string) error {
	if !x.tls.InsecureSkipVerify {
		opts := x509.VerifyOptions{Roots: x.tls.RootCAs, DNSName: name, Intermediates: x509.NewCertPool()}
		for _, c := range cs.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}
		if _, err := cs.PeerCertificates[0].Verify(opts); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
		}
	}
	if x.tls.VerifyConnection != nil {
		return x.tls.VerifyConnection(*cs)
	}
	return nil
}

func problemText(err error) string {
	text := strings.TrimPrefix(err.Error(), "tls: failed to verify certificate: ")
	return strings.TrimPrefix(text, "x509: ")
}
