package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"time"
)

// List gives a Status for each certificate of the view in force: files, then what popgate obtains, in the order of the names, then what the local CA
// issued. It works while the storage is down.
func (k *Keeper) List(ctx context.Context) ([]Status, error) {
	v := k.view.Load()
	if v == nil {
		return nil, nil
	}
	all := statuses(v.table.Load(), SourceFile)
	if v.onlyLocal() {
		all = statuses(v.table.Load(), SourceLocal)
	}
	all = append(all, k.acme.list()...)
	if spare := v.spare.Load(); spare != nil {
		all = append(all, statuses(spare, SourceLocal)...)
	}
	return all, ctx.Err()
}

func statuses(t *table, source string) []Status {
	var all []Status
	for _, s := range t.sources {
		st := s.status(source)
		if source == SourceLocal {
			st.NextRenewal = renewAt(st.NotBefore, st.NotAfter)
		}
		all = append(all, st)
	}
	return all
}

// list gives a Status for each certificate that popgate obtains, and for each name that has none yet.
func (m *manager) list() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Status
	for _, name := range slices.Sorted(maps.Keys(m.all)) {
		e := m.all[name]
		trouble := func(st Status) Status {
			if e.lastErr != nil {
				st.LastError, st.LastErrorAt = oneLine(e.lastErr), e.lastAt
				st.NextRenewal = e.due
			}
			return st
		}
		s := e.shown.Load()
		if s == nil {
			all = append(all, trouble(Status{Name: name, Source: SourceACME, NextRenewal: e.due}))
			continue
		}
		for _, one := range s.sites {
			all = append(all, trouble(one.status()))
		}
	}
	return all
}

// infos describes the obtained certificates in memory.
func (m *manager) infos() []Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Info
	for name, e := range m.all {
		s := e.shown.Load()
		if s == nil {
			continue
		}
		for _, one := range s.sites {
			leaf := one.cert.Leaf
			all = append(all, Info{Names: []string{name}, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, late: one.late()})
		}
	}
	return all
}

// warn says which certificates should have been renewed.
func (m *manager) warn() {
	now := time.Now()
	for _, info := range m.infos() {
		if info.overdue(now) {
			m.log.Warn("certificate should have been renewed, and could not be: `popgate certs` says why",
				"name", info.Names[0], "not_after", info.NotAfter)
		}
	}
}

// Renew orders a new certificate for a name that popgate obtains, now and whatever the age of the one it has, and returns once that is
// in force. The error is ErrUnknownName, ErrNotManaged, the order's, or that of ctx; the order goes on when ctx ends.
func (k *Keeper) Renew(ctx context.Context, name string) error {
	name, err := normal(name)
	if err != nil {
		return err
	}
	if o, ok := k.acme.renew(name); ok {
		select {
		case <-o.done:
			return o.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if v := k.view.Load(); v != nil && v.table.Load().find(name) != nil {
		return fmt.Errorf("%s: %w", name, ErrNotManaged)
	}
	return fmt.Errorf("%s: %w", name, ErrUnknownName)
}

// Export gives the certificate that clients get for a name, with its chain, and its key, both in PEM. The error is ErrUnknownName where
// there is none. Of an ECDSA and an RSA certificate it gives the first one.
func (k *Keeper) Export(ctx context.Context, name string) (certPEM, keyPEM []byte, err error) {
	name, err = normal(name)
	if err != nil {
		return nil, nil, err
	}
	v := k.view.Load()
	if v == nil {
		return nil, nil, fmt.Errorf("%s: %w", name, ErrUnknownName)
	}
	found := v.table.Load().find(name)
	if found == nil {
		found = k.acme.find(name)
	}
	if found == nil && v.acme != nil {
		return v.acme.store.Export(ctx, name) // perhaps pushed out of memory
	}
	if found == nil {
		return nil, nil, fmt.Errorf("%s: %w", name, ErrUnknownName)
	}
	return pemOf(name, found[0])
}

func pemOf(name string, cert *tls.Certificate) (certPEM, keyPEM []byte, err error) {
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		chain.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, nil, fmt.Errorf("export the key of %s: %w", name, err)
	}
	return chain.Bytes(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
