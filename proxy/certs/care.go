package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// care asks issuers when they would have certificates renewed by now (ARI). Nothing depends on an answer: trouble is logged, and asked again
// at the next visit.
func (m *manager) care(ctx context.Context, v *acmeView, e *managed, sites []*site) []*site {
	for n, s := range sites {
		if ari := s.acme.RenewalInfo; ari != nil && ari.NeedsRefresh() {
			fresh, err := v.refreshARI(ctx, s)
			if err != nil {
				m.log.Warn("ask when to renew a certificate", "name", e.name, "error", err)
				continue
			}
			sites[n] = fresh
		}
	}
	return sites
}

// refreshARI asks the issuer when it would have a certificate renewed, and keeps the answer in the storage for all nodes.
func (v *acmeView) refreshARI(ctx context.Context, s *site) (*site, error) {
	iss := v.issuerOf(s)
	if iss == nil {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	info, err := iss.acme.GetRenewalInfo(ctx, certmagic.Certificate{Certificate: *s.cert})
	if err != nil {
		return nil, err
	}
	// A time within an unchanged window stays, or each answer would put the renewal somewhere else.
	if old := s.acme.RenewalInfo; old.SameWindow(info) {
		info.SelectedTime = old.SelectedTime
	}
	// A renewal by another node must not be given the old certificate's times.
	lock := "issue_cert_" + s.name
	if err := v.store.storage.Lock(ctx, lock); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock, err)
	}
	defer func() { _ = v.store.storage.Unlock(context.WithoutCancel(ctx), lock) }()
	now, err := v.store.load(ctx, s.place)
	if err != nil || !bytes.Equal(now.cert.Certificate[0], s.cert.Certificate[0]) {
		return s, err
	}
	now.acme.RenewalInfo = &info
	if now.meta.IssuerData, err = json.Marshal(now.acme); err != nil {
		return nil, err
	}
	meta, err := json.MarshalIndent(now.meta, "", "\t")
	if err != nil {
		return nil, err
	}
	return now, v.store.storage.Store(ctx, s.metaKey(), meta)
}

// issuerOf is the issuer a certificate came from; nil where it is configured no more.
func (v *acmeView) issuerOf(s *site) *issuer {
	for _, iss := range v.issuers {
		if iss.acme.IssuerKey() == s.issuer {
			return iss
		}
	}
	return nil
}

// disown notes that the issuer has revoked a certificate of a name, and has that visited.
func (m *manager) disown(e *managed, serial string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(e.revoked, serial) {
		// What is served may be several, and each is replaced before long.
		e.revoked = append(e.revoked[max(0, len(e.revoked)-3):len(e.revoked):len(e.revoked)], serial)
	}
	e.due = time.Time{}
	m.wake()
}

// isRevoked says whether a certificate among sites, of one kind of keys, is revoked.
func (m *manager) isRevoked(e *managed, sites []*site, rsa bool) bool {
	revoked := m.revokedOf(e)
	return slices.ContainsFunc(sites, func(s *site) bool { return s.rsa == rsa && slices.Contains(revoked, serialOf(s.cert)) })
}

func (m *manager) anyRevoked(e *managed, sites []*site) bool {
	return m.isRevoked(e, sites, false) || m.isRevoked(e, sites, true)
}

// revokedOf are the serial numbers of a name's revoked certificates.
func (m *manager) revokedOf(e *managed) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.revoked
}

func serialOf(cert *tls.Certificate) string { return fmt.Sprintf("%x", cert.Leaf.SerialNumber) }

// ours reports whether renewal information is of this certificate and not left over from one before.
func ours(info *acme.RenewalInfo, leaf *x509.Certificate) bool {
	id, err := acme.ARIUniqueIdentifier(leaf)
	return err != nil || info.UniqueIdentifier == "" || info.UniqueIdentifier == id
}
