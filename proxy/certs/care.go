package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

const (
	// heedTime is how long an issuer may take to say when to renew.
	heedTime = 5 * time.Second
	// An issuer that gave no answer deafAfter times in a row is not asked for deafFor, longer each time, up to deafMost. A name for
	// which there was none waits for deafFor too.
	deafAfter         = 2
	deafFor, deafMost = time.Hour, 6 * time.Hour
)

// hearing is whether an issuer says when it would have certificates renewed (ARI, RFC 9773). Nothing depends on it: orders have other workers,
// and without an answer the last one holds.
type hearing struct {
	mu       sync.Mutex
	failures int // in a row
	until    time.Time
}

// silence is until when the issuer is not asked.
func (h *hearing) silence() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until
}

// heard notes whether there was an answer, and says whether the issuer is left alone from now on.
func (h *hearing) heard(answered bool) (news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if answered {
		h.failures, h.until = 0, time.Time{}
		return false
	}
	if h.failures++; h.failures >= deafAfter {
		h.until = time.Now().Add(min(deafFor<<min(h.failures-deafAfter, 8), deafMost))
	}
	return h.failures == deafAfter
}

// wonders says whether an issuer should be asked when to renew one of sites. The lock is held.
func (m *manager) wonders(v *acmeView, e *managed, sites []*site, now time.Time) bool {
	return !now.Before(e.deaf) && slices.ContainsFunc(sites, func(s *site) bool { return v.asker(s, now) != nil })
}

// asker is the issuer to ask when to renew s now; nil for none.
func (v *acmeView) asker(s *site, now time.Time) *issuer {
	ari := s.acme.RenewalInfo
	if ari == nil || !ari.NeedsRefresh() {
		return nil
	}
	if iss := v.issuerOf(s); iss != nil && !now.Before(iss.hearing.silence()) {
		return iss
	}
	return nil
}

// silence is until when nobody is asked when to renew what a name has. The lock is held.
func (m *manager) silence(e *managed, sites []*site) time.Time {
	until := e.deaf
	if v := m.view.Load(); v != nil {
		for _, s := range sites {
			if iss := v.issuerOf(s); iss != nil && iss.hearing.silence().After(until) {
				until = iss.hearing.silence()
			}
		}
	}
	return until
}

// wish is the second part of a visit where nothing is due: the issuer is asked when it would have the certificates renewed by now.
func (m *manager) wish(ctx context.Context, o *order) {
	v, sites, _ := m.begin(ctx, o)
	if v == nil {
		return
	}
	for n, s := range sites {
		iss := v.asker(s, time.Now())
		if iss == nil {
			continue
		}
		fresh, err := m.refreshARI(ctx, v, iss, s)
		if err != nil {
			m.log.Debug("ask when to renew a certificate", "name", o.m.name, "error", err)
			m.mu.Lock()
			o.m.deaf = time.Now().Add(deafFor)
			m.mu.Unlock()
			continue
		}
		sites[n] = fresh
	}
	m.install(o.m, sites)
	if !v.needs(sites, time.Now()) {
		m.finish(o, sites)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.orders.push(o)
}

// refreshARI asks the issuer when it would have a certificate renewed, and keeps the answer in the storage for all nodes.
func (m *manager) refreshARI(ctx context.Context, v *acmeView, iss *issuer, s *site) (*site, error) {
	asking, cancel := context.WithTimeout(ctx, m.heed)
	defer cancel()
	info, err := iss.acme.GetRenewalInfo(asking, certmagic.Certificate{Certificate: *s.cert})
	_, problem := errors.AsType[acme.Problem](err)
	if ctx.Err() == nil && iss.hearing.heard(err == nil || problem) {
		m.log.Warn("an issuer does not say when to renew its certificates: they are renewed when it said last, and it is asked again later",
			"issuer", iss.label, "error", err)
	}
	if err != nil {
		return nil, err
	}
	// A time within an unchanged window stays, or each answer would put the renewal somewhere else.
	if old := s.acme.RenewalInfo; old.SameWindow(info) {
		info.SelectedTime = old.SelectedTime
	}
	// A renewal by another node must not be given the old certificate's times. It is not waited for.
	lock := "issue_cert_" + s.name
	if ok, err := v.depot.store.TryLock(ctx, lock); err != nil || !ok {
		return s, err
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
