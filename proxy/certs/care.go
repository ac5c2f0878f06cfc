package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/crypto/ocsp"

	"github.com/popgate/popgate/policy/audit"
)

// care asks issuers what they say of certificates by now: when to renew them (ARI) and, where a certificate names a responder, whether
// they are revoked (OCSP). Nothing depends on an answer: trouble is logged, and asked again at the next visit.
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
	if m.staleStaple(e, sites) {
		m.restaple(ctx, e, sites[0])
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

// A staple is what a certificate's OCSP responder said last.
type staple struct {
	leaf []byte    // of which certificate, in DER
	raw  []byte    // nil where there was no good answer
	next time.Time // when to ask again
}

// of says whether there is an answer to show with cert. A nil staple has none.
func (s *staple) of(cert *tls.Certificate) bool {
	return s != nil && s.raw != nil && bytes.Equal(s.leaf, cert.Certificate[0])
}

// staleStaple says whether the responder of a name's certificate should be asked. Certificates without one, as all of Let's Encrypt's,
// have nobody to ask.
func (m *manager) staleStaple(e *managed, sites []*site) bool {
	if len(sites) == 0 || len(sites[0].cert.Leaf.OCSPServer) == 0 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	st := e.staple
	return st == nil || !bytes.Equal(st.leaf, sites[0].cert.Certificate[0]) || time.Now().After(st.next)
}

func (m *manager) restaple(ctx context.Context, e *managed, s *site) {
	st := &staple{leaf: s.cert.Certificate[0], next: time.Now().Add(time.Hour)}
	reply, raw, err := askOCSP(ctx, s.cert)
	switch {
	case err != nil:
		m.log.Warn("ask whether a certificate is revoked", "name", e.name, "responder", s.cert.Leaf.OCSPServer[0], "error", err)
	case reply.Status == ocsp.Good:
		st.raw = raw
		if !reply.NextUpdate.IsZero() {
			st.next = reply.ThisUpdate.Add(reply.NextUpdate.Sub(reply.ThisUpdate) / 2)
		}
	case reply.Status == ocsp.Revoked:
		m.revoked(e, s, reply.RevokedAt)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// An answer that is good for longer than it takes the responder to come back is shown on.
	if st.raw == nil && err != nil && e.staple.of(s.cert) {
		st.raw = e.staple.raw
	}
	e.staple = st
}

func (m *manager) revoked(e *managed, s *site, at time.Time) {
	serial := serialOf(s.cert)
	m.mu.Lock()
	known := e.revoked == serial
	e.revoked = serial
	m.mu.Unlock()
	if known {
		return
	}
	m.log.Error("the issuer has revoked a certificate: another one is obtained", "name", e.name, "serial", serial, "revoked_at", at)
	m.post(&audit.Event{Name: audit.CertificateRevoked, Certificate: &audit.Certificate{
		Name: e.name, Issuer: s.issuer, Serial: serial, NotAfter: s.cert.Leaf.NotAfter,
	}})
}

func (m *manager) isRevoked(e *managed, sites []*site) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.revoked != "" && len(sites) > 0 && serialOf(sites[0].cert) == e.revoked
}

func (m *manager) revokedOf(e *managed) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return e.revoked
}

func serialOf(cert *tls.Certificate) string { return fmt.Sprintf("%x", cert.Leaf.SerialNumber) }

// askOCSP asks the certificate's own responder (RFC 6960).
func askOCSP(ctx context.Context, cert *tls.Certificate) (*ocsp.Response, []byte, error) {
	if len(cert.Certificate) < 2 {
		return nil, nil, fmt.Errorf("the chain has no issuer's certificate to ask with")
	}
	issuer, err := x509.ParseCertificate(cert.Certificate[1])
	if err != nil {
		return nil, nil, err
	}
	body, err := ocsp.CreateRequest(cert.Leaf, issuer, nil)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cert.Leaf.OCSPServer[0], bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, nil, err
	}
	reply, err := ocsp.ParseResponseForCert(raw, cert.Leaf, issuer)
	if err != nil {
		return nil, nil, err
	}
	if !reply.NextUpdate.IsZero() && time.Now().After(reply.NextUpdate) {
		return nil, nil, fmt.Errorf("the answer ran out at %s", reply.NextUpdate)
	}
	return reply, raw, nil
}

// ours reports whether renewal information is of this certificate and not left over from one before.
func ours(info *acme.RenewalInfo, leaf *x509.Certificate) bool {
	id, err := acme.ARIUniqueIdentifier(leaf)
	return err != nil || info.UniqueIdentifier == "" || info.UniqueIdentifier == id
}
