// Package auth holds the values that one login is about: the client, what it presented, and where it goes.
//
// It imports nothing of popgate's, so that every other room can share these words.
package auth

import (
	"crypto/tls"
	"errors"
	"net/netip"
)

// ErrUnknownUser means that no route takes the user.
var ErrUnknownUser = errors.New("no route takes the user")

// A Client is the far end in front. It does not change once the session's TLS handshake is done.
type Client struct {
	// Addr is the client's address and port, after any PROXY header; IPv4 is never mapped into IPv6.
	Addr netip.AddrPort
	// Local is the address and port the client connected to, after any PROXY header.
	Local netip.AddrPort
	// Listener is the name of the listener that took the connection.
	Listener string
	// TLS holds the facts of the client's TLS connection, nil as long as there is none.
	TLS *TLS
}

// Network is the client's address as it is counted: the /32 of an IPv4 address, the /64 of an IPv6 one.
func (c *Client) Network() netip.Prefix {
	return Network(c.Addr.Addr())
}

// ServerName is the name the client asked for in its TLS handshake, in lower case, or "".
func (c *Client) ServerName() string {
	if c.TLS == nil {
		return ""
	}
	return c.TLS.ServerName
}

// Network is the prefix that addr is counted under: /32 for IPv4 (mapped IPv4 too), /64 for IPv6.
// The zero Addr gives the zero Prefix.
func Network(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// TLS is what is known of a client's TLS connection.
type TLS struct {
	// Version and Cipher are the names in use, such as "TLS 1.3" and "TLS_AES_128_GCM_SHA256".
	Version, Cipher string
	// Group is the key exchange group, such as "X25519MLKEM768"; "" where it is not known.
	Group string
	// ServerName is the name the client sent (SNI), in lower case.
	ServerName string
	// Resumed says that the handshake took up an earlier session.
	Resumed bool
	// Subject is who the client's certificate says it is, as RFC 2253 writes it; "" where it showed none.
	Subject string
	// Offloaded says that TLS ended before popgate and a PROXY header vouched for these facts.
	Offloaded bool
}

// TLSFrom takes the facts out of a connection state after its handshake.
func TLSFrom(cs *tls.ConnectionState) *TLS {
	t := &TLS{
		Version:    tls.VersionName(cs.Version),
		Cipher:     cipherName(cs.CipherSuite),
		ServerName: lower(cs.ServerName),
		Resumed:    cs.DidResume,
	}
	if len(cs.PeerCertificates) > 0 {
		t.Subject = cs.PeerCertificates[0].Subject.String()
	}
	if cs.CurveID != 0 {
		t.Group = cs.CurveID.String()
	}
	return t
}

// ciphers holds the names of all suites: tls.CipherSuiteName makes its list anew at each call.
var ciphers = func() map[uint16]string {
	names := make(map[uint16]string)
	for _, c := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		names[c.ID] = c.Name
	}
	return names
}()

func cipherName(id uint16) string {
	if name, ok := ciphers[id]; ok {
		return name
	}
	return tls.CipherSuiteName(id)
}

// Mechanism says how the client presented its credentials.
type Mechanism string

// The mechanisms that popgate takes from clients.
const (
	User  Mechanism = "USER"  // USER and PASS, RFC 1939 section 7
	Plain Mechanism = "PLAIN" // AUTH PLAIN, RFC 4616
	Login Mechanism = "LOGIN" // AUTH LOGIN, draft-murchison-sasl-login
)

// Credentials are what the client presented. Whoever makes them wipes the secret.
type Credentials struct {
	Mechanism Mechanism
	Name      Name
	Secret    *Secret
}

// A Query asks where a user goes. It is read only, and valid for the call.
type Query struct {
	Name   Name
	Client *Client
}

// A Route is the answer to where a user goes.
type Route struct {
	// Label names the route in explanations, such as "routes[2]".
	Label string
	// Backend names the set of servers that hold the mailbox.
	Backend string
	// Tenant is the label that audit records carry; it may be empty.
	Tenant string
	// Account is the user's key for choosing a server: equal for all spellings of one user.
	Account string
	// Login is how popgate logs in at the backend.
	Login BackendLogin
}

// BackendLogin is what the backend is told.
type BackendLogin struct {
	// User is the name sent in USER.
	User string
	// Secret is sent in PASS; nil means the client's own.
	Secret *Secret
}
