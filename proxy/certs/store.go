package certs

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/popgate/popgate/proxy/certs/storage"
)

// The folders of the storage that certificates are in: certmagic's own, and the one for second certificates with RSA keys.
const (
	siteDir    = "certificates"
	rsaSiteDir = "certificates-rsa"
)

// Store is the obtained certificates as they lie in the storage. Its methods may be called at once.
type Store struct {
	storage certmagic.Storage
}

func openStorage(c storage.Config, stateDir string, log *slog.Logger) (*storage.Store, error) {
	if stateDir == "" {
		return nil, &Problem{Key: "state_dir", Problem: "is not set, and tls.acme needs a place for accounts and certificates: set state_dir"}
	}
	s, err := storage.Open(c, stateDir, log)
	if err != nil {
		return nil, &Problem{Key: "tls.acme.storage", Problem: err.Error(), Err: err}
	}
	return s, nil
}

// site is one obtained certificate.
type site struct {
	place
	cert    *tls.Certificate
	certPEM []byte
	keyPEM  []byte
	meta    certmagic.CertificateResource
	acme    acme.Certificate // what meta holds of the issuer's
}

// place is where a site lies.
type place struct {
	issuer string // certmagic's key of the issuer
	name   string
	rsa    bool // it is the second certificate of the name
}

// damaged says that what lies in the storage is no certificate with its key.
type damaged struct {
	key string
	err error
}

func (d *damaged) Error() string { return fmt.Sprintf("%s is damaged: %v", d.key, d.err) }
func (d *damaged) Unwrap() error { return d.err }

func (p place) certKey() string { return p.in(certmagic.StorageKeys.SiteCert(p.issuer, p.name)) }
func (p place) keyKey() string  { return p.in(certmagic.StorageKeys.SitePrivateKey(p.issuer, p.name)) }
func (p place) metaKey() string { return p.in(certmagic.StorageKeys.SiteMeta(p.issuer, p.name)) }

func (p place) in(key string) string {
	if p.rsa {
		return rsaKey(key)
	}
	return key
}

// load reads the site at p. The error is fs.ErrNotExist where there is none, a *damaged where what is there cannot be used, and
// otherwise the storage's.
func (s *Store) load(ctx context.Context, p place) (*site, error) {
	loaded := &site{place: p}
	var err error
	if loaded.certPEM, err = s.fetch(ctx, p.certKey()); err != nil {
		return nil, err
	}
	if loaded.keyPEM, err = s.fetch(ctx, p.keyKey()); err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(loaded.certPEM, loaded.keyPEM)
	if err != nil {
		return nil, &damaged{key: p.certKey(), err: err}
	}
	loaded.cert = &cert
	meta, err := s.fetch(ctx, p.metaKey())
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(meta, &loaded.meta); err != nil {
		return nil, &damaged{key: p.metaKey(), err: err}
	}
	// What an issuer that is no ACME server has left there is no reason to refuse its certificate.
	_ = json.Unmarshal(loaded.meta.IssuerData, &loaded.acme)
	if info := loaded.acme.RenewalInfo; info != nil && !ours(info, cert.Leaf) {
		loaded.acme.RenewalInfo = nil
	}
	return loaded, nil
}

// fetch loads one part of a site. Where it was altered it is damaged; where only the key for it is missing here, it must stay.
func (s *Store) fetch(ctx context.Context, key string) ([]byte, error) {
	value, err := s.storage.Load(ctx, key)
	if errors.Is(err, storage.ErrAltered) {
		err = &damaged{key: key, err: err}
	}
	return value, err
}

// List gives a Status for each certificate in the storage, and for each name whose order failed, by name. A certificate that cannot be read
// has a LastError.
func (s *Store) List(ctx context.Context) ([]Status, error) {
	places, err := s.places(ctx)
	if err != nil {
		return nil, err
	}
	failed, err := s.troubles(ctx)
	if err != nil {
		return nil, fmt.Errorf("list failed orders in the storage: %w", err)
	}
	all := make([]Status, 0, len(places))
	for _, p := range places {
		loaded, err := s.load(ctx, p)
		if err != nil {
			all = append(all, Status{Name: p.name, Source: SourceACME, Issuer: p.issuer, LastError: oneLine(err)})
			continue
		}
		// Another gateway may have been luckier, or this one have been killed before it could say so.
		if info, err := s.storage.Stat(ctx, p.certKey()); err == nil && failed[p.name].gone(info.Modified) {
			delete(failed, p.name)
		}
		all = append(all, loaded.status())
	}
	for i, st := range all {
		if t, ok := failed[st.Name]; ok && st.LastError == "" {
			all[i].LastError, all[i].LastErrorAt, all[i].NextRenewal = t.Error, t.At, t.Next
		}
	}
	for _, p := range places {
		delete(failed, p.name)
	}
	for _, t := range failed {
		all = append(all, Status{Name: t.Name, Source: SourceACME, NextRenewal: t.Next, LastError: t.Error, LastErrorAt: t.At})
	}
	slices.SortStableFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all, ctx.Err()
}

// Export gives the certificate of a name, with its chain, and its key, both in PEM. The error is ErrUnknownName where the storage has none.
// Of several the one that is good for longest is given, an ECDSA one before an RSA one.
func (s *Store) Export(ctx context.Context, name string) (certPEM, keyPEM []byte, err error) {
	name, err = normal(name)
	if err != nil {
		return nil, nil, err
	}
	places, err := s.places(ctx)
	if err != nil {
		return nil, nil, err
	}
	var best *site
	var unreadable error
	for _, p := range places {
		if p.name != name {
			continue
		}
		loaded, err := s.load(ctx, p)
		switch {
		case err != nil:
			unreadable = err
		case best == nil || best.rsa && !loaded.rsa ||
			best.rsa == loaded.rsa && loaded.cert.Leaf.NotAfter.After(best.cert.Leaf.NotAfter):
			best = loaded
		}
	}
	if best != nil {
		return best.certPEM, best.keyPEM, nil
	}
	if unreadable != nil {
		return nil, nil, unreadable
	}
	return nil, nil, fmt.Errorf("%s: %w", name, ErrUnknownName)
}

// places lists where certificates lie.
func (s *Store) places(ctx context.Context) ([]place, error) {
	var all []place
	for _, dir := range []string{siteDir, rsaSiteDir} {
		keys, err := s.storage.List(ctx, dir, true)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list certificates in the storage: %w", err)
		}
		for _, key := range keys {
			// certificates/ISSUER/NAME/NAME.crt
			parts := strings.Split(key, "/")
			if len(parts) != 4 || path.Ext(key) != ".crt" {
				continue
			}
			// Storage keys have no asterisk.
			name := strings.Replace(parts[2], "wildcard_.", "*.", 1)
			all = append(all, place{issuer: parts[1], name: name, rsa: dir == rsaSiteDir})
		}
	}
	return all, nil
}

func (s *site) status() Status {
	st := statusOf(s.cert, SourceACME)
	st.Name, st.NextRenewal = s.name, s.renewal()
	return st
}

// renewal is when a certificate is to be renewed: when its issuer wishes (ARI, RFC 9773), else after two thirds of its life.
func (s *site) renewal() time.Time {
	if ari := s.wish(); ari != nil {
		return ari.SelectedTime
	}
	return renewAt(s.cert.Leaf.NotBefore, s.cert.Leaf.NotAfter)
}

// late is when it should have been renewed: after the window that its issuer gave, else as for any certificate.
func (s *site) late() time.Time {
	ari := s.wish()
	if ari == nil {
		return time.Time{}
	}
	leaf := s.cert.Leaf
	at := ari.SelectedTime
	if end := ari.SuggestedWindow.End; end.After(at) {
		at = end
	}
	return earlier(at.Add(grace(leaf.NotBefore, leaf.NotAfter)), s.latest())
}

// wish is what the issuer said of when to renew; nil where that is not to be heard: an issuer's slip must not let a certificate run out.
func (s *site) wish() *acme.RenewalInfo {
	ari := s.acme.RenewalInfo
	if ari == nil || ari.SelectedTime.IsZero() || !ari.SelectedTime.Before(s.latest()) {
		return nil
	}
	return ari
}

// latest is when to renew at the latest, with a twentieth of the life left.
func (s *site) latest() time.Time {
	leaf := s.cert.Leaf
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 20)
}

func statusOf(cert *tls.Certificate, source string) Status {
	leaf := cert.Leaf
	st := Status{
		Names: covered(leaf), Source: source, KeyType: keyType(leaf.PublicKey),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Issuer: issuerOf(leaf),
	}
	if len(st.Names) > 0 {
		st.Name = st.Names[0]
	}
	return st
}

// issuerOf is the organization and common name of who signed.
func issuerOf(leaf *x509.Certificate) string {
	return strings.TrimSpace(strings.Join(leaf.Issuer.Organization, " ") + " " + leaf.Issuer.CommonName)
}

func keyType(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", key), "*")
}

// rsaKey is the key of a second certificate for the key that it would have as the first one.
func rsaKey(key string) string {
	if rest, ok := strings.CutPrefix(key, siteDir+"/"); ok {
		return rsaSiteDir + "/" + rest
	}
	return key
}
