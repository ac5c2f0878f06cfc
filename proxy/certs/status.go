package certs

import (
	"errors"
	"time"

	"github.com/popgate/popgate/policy/audit"
)

// Where a certificate comes from.
const (
	SourceFile  = "file"  // files that tls.certificates lists
	SourceACME  = "acme"  // obtained by popgate
	SourceLocal = "local" // popgate's own local CA
)

// Status is what an operator should know of one certificate.
type Status struct {
	// Name is the name it was made for: the first one of a file, or the file itself where that names none or cannot be read; the managed one otherwise. A
	// name that has an ECDSA and an RSA certificate has two Statuses.
	Name string
	// Names is all it covers, in the form certificates have them. Empty as long as there is no certificate.
	Names []string
	// Source is SourceFile, SourceACME or SourceLocal.
	Source string
	// Issuer is the organization and common name of who signed it.
	Issuer string
	// KeyType is such as "ECDSA P-256" or "RSA 2048".
	KeyType string
	// NotBefore and NotAfter bound its life; both are zero as long as there is no certificate.
	NotBefore, NotAfter time.Time
	// NextRenewal is when popgate renews it, by the issuer's own wish (ARI) where it has one; where there is no certificate, when it is
	// ordered next. Zero for files, whose renewal is not popgate's.
	NextRenewal time.Time
	// LastError is why the last order failed, with the issuer's host, of each where several were asked; "" once one succeeded, be it of another
	// issuer. LastErrorAt is when that was.
	LastError   string
	LastErrorAt time.Time
}

// Errors of what operators ask for.
var (
	// ErrUnknownName says that there is no certificate by that name.
	ErrUnknownName = errors.New("no certificate has that name")
	// ErrNotManaged says that the name's certificate is not popgate's to renew.
	ErrNotManaged = errors.New("that certificate comes from files, which popgate does not renew")
)

// Deps are what a Keeper needs of others. Each may be nil.
type Deps struct {
	// Knows says whether a domain (A-labels, lower case) is one that a route or directory knows; nil knows none. It is
	// called during handshakes, for names strangers made up.
	Knows func(domain string) bool
	// Domains lists the domains that can be listed, whose names are obtained ahead; nil lists none.
	Domains func() []string
	// Post takes the events certificate.issued, certificate.failed and certificate.revoked. It must not wait.
	Post func(*audit.Event)
}
