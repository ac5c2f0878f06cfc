// Package auth holds the values that one login is about: the client, what it presented, and where it goes.
//
// It imports nothing of popgate's, so that every other room can share these words.
package auth

import (
	"crypto/fips140"
	"crypto/sha1"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// The reasons why a login has no route. What is wrapped around them says more.
var (
	// ErrUnknownUser means that no route takes the user, or that a directory answered and does not know the user.
	ErrUnknownUser = errors.New("no route takes the user")
	// ErrWrongPassword means that a directory has refused the password, or that it does not fit the hash that one gave:
	// no backend has to be asked.
	ErrWrongPassword = errors.New("wrong password")
	// ErrNetwork means that a directory lets the user log in from other networks only.
	ErrNetwork = errors.New("the user may not log in from this network")
	// ErrDirectoryDown means that a directory could not answer, so that nobody knows where the user goes. It wraps the
	// cause.
	ErrDirectoryDown = errors.New("the directory cannot answer")
)

// A Client is the far end in front. It does not change once the session's TLS handshake is done.
type Client struct {
	// Addr is the client's address and port, after any PROXY header; IPv4 is never mapped into IPv6.
	Addr netip.AddrPort
	// Local is the address and port the client connected to, after any PROXY header.
	Local netip.AddrPort
	// Proxied says that a PROXY header has told both.
	Proxied bool
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
	// Issuer, Serial and Fingerprint tell that certificate: who issued it, its number in hex, and its SHA-1 in lower-case hex, as
	// nginx has them. They are known where popgate itself has seen the certificate.
	Issuer, Serial, Fingerprint string
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
		leaf := cs.PeerCertificates[0]
		t.Subject, t.Issuer = leaf.Subject.String(), leaf.Issuer.String()
		t.Serial = fmt.Sprintf("%X", leaf.SerialNumber.Bytes())
		fips140.WithoutEnforcement(func() { t.Fingerprint = fmt.Sprintf("%x", sha1.Sum(leaf.Raw)) }) // a name, not a proof
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
	// Mechanism is how the credentials came; "" where nobody presented any.
	Mechanism Mechanism
	// Secret is what the client presented, borrowed for the call: who needs it longer takes a Clone. It is nil where nobody
	// presented one, as in `popgate route`.
	Secret *Secret
	// Attempt counts the logins of the connection, from 1.
	Attempt int
	// Session is the session's id; "" where there is none.
	Session string
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
	// Directory names the source that answered; "" where the config alone did.
	Directory string
	// Server is the one server that the directory named. The zero Server leaves the choice to the backend, which gives the
	// settings for a named one.
	Server Server
	// Verified says that the password has been checked, by the directory or by popgate: that the backend refuses the login
	// then is a fault of ours and not of the user's.
	Verified bool
	// Disabled says that the account cannot log in. It is told only to who has the right password: where Verified says so,
	// or after the backend has taken it.
	Disabled bool
	// Then names the backend to try where the password is refused, for a user whom the directory marks as moving; "" for
	// none.
	Then string
	// Wait is the pause that a directory asks for before a refusal; zero for none.
	Wait time.Duration
}

// A Server is one server that a directory named.
type Server struct {
	// Address is host:port, or just host for the usual port: 995 where TLS is implicit there, 110 else. The host may be a
	// name; an IPv6 address with a port is in brackets.
	Address string
	// TLS is how TLS starts there: none, starttls or implicit; "" is as the backend has it.
	TLS string
}

// BackendLogin is what the backend is told.
type BackendLogin struct {
	// User is the name sent in USER, or the authentication identity of AUTH PLAIN.
	User string
	// Authzid is whose mailbox is wanted where User is a master user: the authorization identity of AUTH PLAIN; "" for none.
	Authzid string
	// Secret is what is sent as password; nil means the client's own. Whoever asked for the route wipes it.
	Secret *Secret
	// Method is how to log in; "" is MethodUser.
	Method Method
}

// A Method is how popgate logs in at a backend.
type Method string

// The ways to log in at a backend.
const (
	MethodUser  Method = "USER"  // USER and PASS, RFC 1939 section 7
	MethodPlain Method = "PLAIN" // AUTH PLAIN, RFC 4616
)
