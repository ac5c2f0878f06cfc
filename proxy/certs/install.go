package certs

import (
	"slices"
	"time"
)

// install shows a name's certificates to clients. What was shown before stays where there is none, and where it is newer: a visit that
// took long must not undo what another one, which an operator asked for, has done meanwhile.
func (m *manager) install(e *managed, sites []*site) {
	if len(sites) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all[e.name] != e {
		return // forgotten meanwhile
	}
	s := &shown{sites: newest(e.shown.Load(), sites, e.revoked, time.Now())}
	for _, one := range s.sites {
		s.certs = append(s.certs, one.cert)
	}
	m.count(e, -1)
	e.shown.Store(s)
	m.count(e, 1)
	if e.origin == demanded {
		// Or the next to come would push it out at once.
		e.used.Store(int64(time.Since(m.start) / time.Second))
	}
	m.shelf.put(e)
	m.evict()
}

// newest are sites, with what is shown in the places of those that are older. before may be nil.
func newest(before *shown, sites []*site, revoked []string, now time.Time) []*site {
	if before == nil {
		return sites
	}
	all := slices.Clone(sites)
	for n, s := range all {
		for _, b := range before.sites {
			leaf := b.cert.Leaf
			if b.place == s.place && leaf.NotBefore.After(s.cert.Leaf.NotBefore) && now.Before(leaf.NotAfter) &&
				!slices.Contains(revoked, serialOf(b.cert)) {
				all[n] = b
			}
		}
	}
	return all
}

// evict drops the demanded names that were unused for longest once there are too many. The lock is held.
func (m *manager) evict() {
	v := m.view.Load()
	if v == nil || m.held <= v.section.OnDemand.MaxNames {
		return
	}
	var old []*managed
	for _, e := range m.all {
		if e.origin == demanded && e.shown.Load() != nil && e.pending == nil {
			old = append(old, e)
		}
	}
	slices.SortFunc(old, func(a, b *managed) int { return int(a.used.Load() - b.used.Load()) })
	// Some more than need be, or each new name would sort them all.
	spare := m.held - v.section.OnDemand.MaxNames + v.section.OnDemand.MaxNames/32
	for _, e := range old[:min(spare, len(old))] {
		m.forget(e)
	}
}
