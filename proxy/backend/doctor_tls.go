package backend

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
)

// lenient takes every certificate and every version, to see what there is. No password goes over it.
func (x *exam) lenient() *tls.Config {
	t := &tls.Config{ServerName: x.tls.ServerName, MinVersion: tls.VersionTLS10}
	t.InsecureSkipVerify = true // certificate() verifies, and says what is wrong
	allowOld(t)
	return t
}

// shown notes what the server showed of TLS.
func (x *exam) shown(cs *tls.ConnectionState) {
	f := &x.Facts.TLS
	f.version, f.Version, f.Cipher = cs.Version, tls.VersionName(cs.Version), tls.CipherSuiteName(cs.CipherSuite)
	if len(cs.PeerCertificates) > 0 {
		f.Certificate = x.certificate(cs)
	}
}

// certificate looks at the server's certificate, and whether it would be trusted.
func (x *exam) certificate(cs *tls.ConnectionState) *CertificateFacts {
	f := &CertificateFacts{Chain: len(cs.PeerCertificates)}
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
