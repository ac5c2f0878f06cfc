package certs

import (
	"crypto/tls"
	"strings"
	"time"
)

// pick gives the certificate for a client: files by the name it asks for, then what popgate obtains for it, in memory, in the storage, or on its
// way; then what clients get that name none. nil ends the handshake with the unrecognized_name alert.
func (v *View) pick(hello *tls.ClientHelloInfo, alertUnknown bool, defaultName string) *tls.Certificate {
	t := v.table.Load()
	if v.acme == nil && !alertUnknown {
		return t.choose(hello, defaultName)
	}
	name := strings.ToLower(hello.ServerName)
	if name != "" {
		if certs := t.find(name); certs != nil {
			return suited(hello, certs)
		}
		certs, ours := v.obtained(hello, name)
		if ours {
			return v.orSpare(hello, certs, name)
		}
		if alertUnknown {
			return nil
		}
	}
	return v.unnamed(hello, t, defaultName)
}

// obtained gives the certificates that popgate obtains for a name, and says whether it does so at all.
func (v *View) obtained(hello *tls.ClientHelloInfo, name string) (certs []*tls.Certificate, ours bool) {
	if v.acme == nil || name == "" {
		return nil, false
	}
	held := v.keeper.acme.find(name)
	if held != nil && time.Now().Before(held[0].Leaf.NotAfter) {
		return held, true
	}
	// One that has run out is shown where no other is on its way.
	if certs, ours := v.keeper.acme.await(hello, name); len(certs) > 0 || held == nil {
		return certs, ours
	}
	return held, true
}

// orSpare gives one of certs or, where there are none yet, what tls.acme.missing says.
func (v *View) orSpare(hello *tls.ClientHelloInfo, certs []*tls.Certificate, name string) *tls.Certificate {
	if len(certs) > 0 {
		return suited(hello, certs)
	}
	spare := v.spare.Load()
	if spare == nil {
		return nil
	}
	// A customer's name has a certificate of its own, or the client would see two things wrong with it. Others never do.
	if spare.find(name) == nil && v.acme.knows(name) {
		own, err := v.local.spares.find(name)
		if err == nil {
			return own
		}
		v.keeper.log.Error("issue a certificate by the local CA", "name", name, "error", err)
	}
	return spare.choose(hello, name)
}

// unnamed gives the certificate for a client that names no server, or one that nobody knows: that of the listener's default name, of the
// address the client came to, the first file, the first obtained name.
func (v *View) unnamed(hello *tls.ClientHelloInfo, t *table, defaultName string) *tls.Certificate {
	if certs := t.find(defaultName); certs != nil {
		return suited(hello, certs)
	}
	if certs, ours := v.obtained(hello, defaultName); ours {
		return v.orSpare(hello, certs, defaultName)
	}
	// Clients that connect to an address name no server.
	if _, local := networkOf(hello); hello.ServerName == "" && local.IsValid() {
		name := local.String()
		if certs := t.find(name); certs != nil {
			return suited(hello, certs)
		}
		if v.acme != nil && v.acme.domains[name] {
			certs, _ := v.obtained(hello, name)
			return v.orSpare(hello, certs, name)
		}
	}
	if t.fallback != nil {
		return suited(hello, t.fallback)
	}
	if v.acme != nil && len(v.acme.ordered) > 0 {
		first := strings.Replace(v.acme.ordered[0], "*.", "any.", 1)
		certs, _ := v.obtained(hello, first)
		return v.orSpare(hello, certs, first)
	}
	// What the local CA has for this host is no answer to somebody who asks for a name that nobody knows.
	if spare := v.spare.Load(); hello.ServerName != "" && defaultName == "" && spare != nil && spare.find(strings.ToLower(hello.ServerName)) == nil {
		return nil
	}
	return v.orSpare(hello, nil, defaultName)
}
