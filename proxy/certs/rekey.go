package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
)

// rekeys says whether a name's certificate has another kind of key than the configuration wants by now, and is to be replaced for it. It is
// done once in a view for each name: gateways that share a storage and differ about the kind would otherwise order for ever. The lock is
// held.
func (m *manager) rekeys(v *acmeView, e *managed, sites []*site) bool {
	// A second one is RSA whatever the first is.
	if len(sites) == 0 || sites[0].rsa || m.rekeyed[e.name] {
		return false
	}
	iss := v.issuerOf(sites[0])
	return iss != nil && keyKind(sites[0].cert.Leaf.PublicKey) != iss.conf.Key
}

// rekey is rekeys without the lock.
func (m *manager) rekey(v *acmeView, e *managed, sites []*site) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rekeys(v, e, sites)
}

// rekeyDone notes that a name has a certificate of this view.
func (m *manager) rekeyDone(e *managed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rekeyed[e.name] = true
}

// idle says whether a turn has come that nobody waits for: what is not due takes those alone, or is left to a later visit. The lock is held.
func (m *manager) idle() bool {
	rate := m.rate()
	if rate.Off() {
		return true
	}
	_, free := rate.Take(m.turns.tat, m.now())
	return free && m.turns.owed == 0 && m.orders.first() == nil
}

// keyKind is how the configuration calls a kind of keys, "" for one that it does not know.
func keyKind(key crypto.PublicKey) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return keyP256
		case elliptic.P384():
			return keyP384
		}
	case *rsa.PublicKey:
		if k.N.BitLen() == 2048 {
			return keyRSA2048
		}
	}
	return ""
}
