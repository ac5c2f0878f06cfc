package certs

import (
	"crypto/rsa"
	"crypto/tls"
	"slices"
)

// legacySuites are all cipher suites for TLS 1.2 and before that crypto/tls has, those with RSA key exchange and 3DES too, but not those with
// RC4, whose plaintext can be recovered (RFC 7465). Of Diffie-Hellman without elliptic curves crypto/tls has none.
func legacySuites() []uint16 {
	var ids []uint16
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		switch s.ID {
		case tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA:
			continue
		}
		ids = append(ids, s.ID)
	}
	return ids
}

// openSet names the ticket keys of a listener's clients that are asked for no certificate. Those of the legacy lane have their own: what
// was begun there is not to be taken up on a listener of the same name that is no legacy one any more.
func (l Listener) openSet() string {
	if l.Legacy {
		return l.Name + " legacy"
	}
	return l.Name
}

// hasRSA says that some certificate is an RSA one, or that popgate obtains such.
func (v *View) hasRSA() bool {
	if v.acme != nil && slices.ContainsFunc(v.acme.issuers, func(i *issuer) bool { return i.conf.RSAToo || i.conf.Key == keyRSA2048 }) {
		return true
	}
	return slices.ContainsFunc(v.table.Load().sources, func(s source) bool {
		_, ok := s.cert.Leaf.PublicKey.(*rsa.PublicKey)
		return ok
	})
}
