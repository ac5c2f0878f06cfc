package certs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/proxy/certs/storage"
)

// read gives what the storage has for a name: of all issuers' certificates the best one, and then, where an issuer gives a second one,
// the RSA one. revoked are the serial numbers of those that are only the last resort. What is damaged is passed over and named.
func (v *acmeView) read(ctx context.Context, name string, revoked ...string) (sites []*site, bad []place, err error) {
	now := time.Now()
	for _, rsa := range []bool{false, true} {
		var best *site
		for _, iss := range v.issuers {
			if rsa && !iss.conf.RSAToo {
				continue
			}
			p := place{issuer: iss.acme.IssuerKey(), name: name, rsa: rsa}
			one, err := v.store.load(ctx, p)
			var d *damaged
			switch {
			case errors.Is(err, fs.ErrNotExist):
			case errors.As(err, &d):
				bad = append(bad, p)
			case err != nil:
				err = fmt.Errorf("read the certificate of %s from the storage: %w", name, err)
				if !errors.Is(err, storage.ErrUnreadable) {
					err = &away{err}
				}
				return nil, nil, err
			case best == nil || one.better(best, now, revoked):
				best = one
			}
		}
		if best != nil {
			sites = append(sites, best)
		}
	}
	return sites, bad, nil
}

// better says whether s should be served rather than other. One that is not due goes before one that is: where an issuer fails, another's
// certificate may end sooner than the one it stands in for.
func (s *site) better(other *site, now time.Time, revoked []string) bool {
	if a, b := slices.Contains(revoked, serialOf(s.cert)), slices.Contains(revoked, serialOf(other.cert)); a != b {
		return b
	}
	a, b := now.Before(s.renewal()), now.Before(other.renewal())
	if a != b {
		return a
	}
	if a {
		return s.renewal().After(other.renewal())
	}
	return s.cert.Leaf.NotAfter.After(other.cert.Leaf.NotAfter)
}

// needs says whether a name's certificates have to be obtained.
func (v *acmeView) needs(sites []*site, now time.Time) bool {
	if len(sites) == 0 || sites[0].rsa || len(sites) == 1 && v.rsaToo(sites[0]) {
		return true
	}
	return slices.ContainsFunc(sites, func(s *site) bool { return !now.Before(s.renewal()) })
}

func usable(sites []*site, now time.Time) bool {
	return len(sites) > 0 && now.Before(sites[0].cert.Leaf.NotAfter)
}

// begin is how each part of a visit begins: the storage is read, since another node may have been faster. A nil view says that the visit has ended.
func (m *manager) begin(ctx context.Context, o *order) (v *acmeView, sites []*site, bad []place) {
	v = m.view.Load()
	if v == nil || !m.wanted(o.m) {
		m.finish(o, nil)
		return nil, nil, nil
	}
	sites, bad, err := v.read(ctx, o.m.name, m.revokedOf(o.m)...)
	if err != nil {
		m.fail(o, err)
		return nil, nil, nil
	}
	return v, sites, bad
}

// load is the first part of a visit: it shows what the storage has, and passes on what an issuer must be asked for.
func (m *manager) load(ctx context.Context, o *order) {
	v, sites, _ := m.begin(ctx, o)
	if v == nil {
		return
	}
	m.install(o.m, sites)
	if usable(sites, time.Now()) && !o.force {
		o.show()
	}
	m.pass(v, o, sites)
}

// pass has a visit go on where an issuer is to be asked for something, and ends it where none is.
func (m *manager) pass(v *acmeView, o *order, sites []*site) {
	now := time.Now()
	order := o.force || v.needs(sites, now) || m.anyRevoked(o.m, sites)
	m.mu.Lock()
	switch {
	case order:
		m.orders.push(o)
	case m.rekeys(v, o.m, sites) && m.idle():
		m.orders.push(o)
	case m.wonders(v, o.m, sites, now):
		m.wishes.push(o)
	default:
		m.mu.Unlock()
		m.finish(o, sites)
		return
	}
	m.mu.Unlock()
}

func (m *manager) wanted(e *managed) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[e.name] == e
}

// obtain is the second part of a visit.
func (m *manager) obtain(ctx context.Context, o *order) {
	v, sites, bad := m.begin(ctx, o)
	if v == nil {
		return
	}
	v.clear(ctx, bad, m)
	rekey := m.rekey(v, o.m, sites)
	if !o.force && !rekey && !v.needs(sites, time.Now()) && !m.anyRevoked(o.m, sites) {
		m.install(o.m, sites)
		m.finish(o, sites)
		return
	}
	if err := m.allowed(ctx, v, o); err != nil {
		m.fail(o, err)
		return
	}
	fresh, err := m.ask(ctx, v, o, sites, rekey)
	m.install(o.m, fresh)
	if err != nil {
		m.fail(o, err)
		return
	}
	m.finish(o, fresh)
}

// clear removes damaged certificates from the storage: certmagic takes them for good ones as long as the files are there.
func (v *acmeView) clear(ctx context.Context, bad []place, m *manager) {
	for _, p := range bad {
		m.log.Error("a certificate in the storage is damaged: it is removed and obtained anew", "name", p.name, "key", p.certKey())
		for _, key := range []string{p.certKey(), p.keyKey(), p.metaKey()} {
			if err := v.store.storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
				m.log.Warn("remove a damaged file from the storage", "key", key, "error", err)
			}
		}
	}
}

// ask has the issuers, in their order, make a certificate, and a second one where they are set so. The first is made anew though it is not due
// where it is revoked, or rekey is set. ask gives what the storage has then, also beside an error.
func (m *manager) ask(ctx context.Context, v *acmeView, o *order, before []*site, rekey bool) ([]*site, error) {
	m.metrics.inFlight.Inc()
	defer m.metrics.inFlight.Dec()
	name := o.m.name
	first, second := o.force || rekey || m.isRevoked(o.m, before, false), o.force || m.isRevoked(o.m, before, true)
	var failed []error
	for _, iss := range m.askable(v, o) {
		how := m.doors()
		err := m.askOne(ctx, v, o, iss, how, first, len(before) > 0)
		m.setBack(o.m, iss, err)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		failed = nil
		m.rekeyDone(o.m)
		// Without the second one the name is served all the same: no reason to try the next issuer.
		if how.rsa = true; iss.conf.RSAToo {
			if err := m.askOne(ctx, v, o, iss, how, second, len(before) > 0); err != nil {
				failed = []error{err}
			}
		}
		break
	}
	sites, _, err := v.read(ctx, name, m.revokedOf(o.m)...)
	if err != nil {
		return nil, err
	}
	m.tell(before, sites)
	return sites, errors.Join(failed...)
}

// askOne has one issuer make one certificate at its turn, where the one it made before is due or force is set.
func (m *manager) askOne(ctx context.Context, v *acmeView, o *order, iss *issuer, how manner, force, renewal bool) error {
	old, err := v.store.load(ctx, place{issuer: iss.acme.IssuerKey(), name: o.m.name, rsa: how.rsa})
	if err == nil && !force && time.Now().Before(old.renewal()) {
		return nil
	}
	replaces := err == nil
	m.spend(o)
	err = iss.order(ctx, how, o.m.name, force)
	if replaces && aboutPast(err) {
		m.log.Warn("an order is refused that names the certificate it replaces: ordered once more without", "name", o.m.name, "error", err)
		how.unrelated = true
		err = iss.order(ctx, how, o.m.name, force)
	}
	err = m.explain(iss, err)
	m.note(iss, o.m, err, renewal)
	return err
}

// A setback is what an issuer's last failure with a name leaves behind.
type setback struct {
	failures int
	until    time.Time
}

// askable are the issuers to ask, in their order. One that failed is left alone for a while, as long as there is another: where all of
// them failed, the name itself waits.
func (m *manager) askable(v *acmeView, o *order) []*issuer {
	m.mu.Lock()
	defer m.mu.Unlock()
	var some []*issuer
	for _, iss := range v.issuers {
		if o.force || !time.Now().Before(o.m.setbacks[iss.acme.IssuerKey()].until) {
			some = append(some, iss)
		}
	}
	if len(some) == 0 {
		return v.issuers
	}
	return some
}

// setBack keeps what came of asking an issuer, whatever comes of asking the next one.
func (m *manager) setBack(e *managed, iss *issuer, err error) {
	if errors.Is(err, context.Canceled) {
		return // popgate stops
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := iss.acme.IssuerKey()
	if err == nil {
		delete(e.setbacks, key)
		return
	}
	if e.setbacks == nil {
		e.setbacks = make(map[string]setback)
	}
	n := e.setbacks[key].failures + 1
	e.setbacks[key] = setback{failures: n, until: time.Now().Add(m.backoff(err, n))}
}

// note counts what came of asking an issuer, and records a failure.
func (m *manager) note(iss *issuer, e *managed, err error, renewal bool) {
	if errors.Is(err, context.Canceled) {
		return // popgate stops
	}
	result := "issued"
	if renewal {
		result = "renewed"
	}
	if err != nil {
		result = "failed"
		m.post(&audit.Event{Name: audit.CertificateFailed, Certificate: &audit.Certificate{
			Name: e.name, Issuer: iss.label, Problem: err.Error(),
		}})
	}
	m.metrics.orders.WithLabelValues(iss.label, result).Inc()
}

// tell says which certificates are new.
func (m *manager) tell(before, after []*site) {
	for _, s := range after {
		old := false
		for _, b := range before {
			old = old || bytes.Equal(b.cert.Certificate[0], s.cert.Certificate[0])
		}
		if old {
			continue
		}
		leaf := s.cert.Leaf
		m.log.Info("certificate obtained", "name", s.name, "issuer", s.issuer, "serial", serialOf(s.cert),
			"not_after", leaf.NotAfter, "renewal", s.renewal())
		m.post(&audit.Event{Name: audit.CertificateIssued, Certificate: &audit.Certificate{
			Name: s.name, Issuer: s.issuer, Serial: serialOf(s.cert), NotAfter: leaf.NotAfter,
		}})
	}
}

// nextLook is when a name is looked after again: for another node's renewal, for a renewal of our own, for what the issuer says of it, which
// is not asked before silence ends.
func nextLook(sites []*site, silence time.Time) time.Time {
	now := time.Now()
	// Not all names at once.
	next := now.Add(recheck - recheck/5 + rand.N(recheck/5))
	soonest := now.Add(time.Minute)
	for _, s := range sites {
		life := s.cert.Leaf.NotAfter.Sub(s.cert.Leaf.NotBefore)
		soonest = earlier(soonest, now.Add(life/10))
		next = earlier(next, s.renewal())
		if ari := s.acme.RenewalInfo; ari != nil && ari.RetryAfter != nil {
			at := *ari.RetryAfter
			if at.Before(silence) {
				at = silence
			}
			next = earlier(next, at)
		}
	}
	// An issuer that gives certificates long due, by its own word, must not be asked without end.
	if next.Before(soonest) {
		next = soonest
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// backoff is how long a name waits after so many failures in a row. An issuer that refuses counts what is asked of it (Let's Encrypt
// takes 5 failures an hour for a name); one that cannot be reached does not.
func backoff(err error, failures int) time.Duration {
	base, most := 10*time.Second, 10*time.Minute
	var problem acme.Problem
	var refused *refusal
	switch {
	case errors.As(err, &refused) && refused.fleeting:
		return base
	case errors.As(err, &problem) && problem.Type == acme.ProblemTypeRateLimited:
		base, most = time.Hour, 12*time.Hour
	case errors.As(err, &problem), errors.As(err, &refused):
		base, most = 5*time.Minute, 12*time.Hour
	}
	wait := base
	for range min(failures-1, 20) {
		wait = min(3*wait, most)
	}
	return wait - rand.N(wait/10)
}
