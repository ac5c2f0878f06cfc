package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// clients is what tls.client_ca asks of clients.
type clients struct {
	auth      tls.ClientAuthType
	pool      *x509.CertPool
	listeners []string        // empty is all
	names     map[string]bool // as normal writes them; empty is all
	policy    string          // tells this one from any other
}

func (v *View) prepareClients(c ClientCA) error {
	if !c.on() {
		return nil
	}
	data, err := readFile("tls.client_ca.file", c.File)
	if err != nil {
		return err
	}
	g := &clients{auth: tls.VerifyClientCertIfGiven, pool: x509.NewCertPool(), listeners: c.Listeners, names: make(map[string]bool)}
	if !g.pool.AppendCertsFromPEM(data) {
		return &Problem{Key: "tls.client_ca.file", Problem: c.File + " " + noCert(c.File, data)}
	}
	if c.Mode == "require" {
		g.auth = tls.RequireAndVerifyClientCert
	}
	for i, n := range c.ServerNames {
		name, err := normal(n)
		if err != nil {
			return &Problem{Key: fmt.Sprintf("tls.client_ca.server_names[%d]", i), Problem: err.Error(), Err: err}
		}
		g.names[name] = true
	}
	for i, l := range c.Listeners {
		if !slices.ContainsFunc(v.listeners, func(known Listener) bool { return known.Name == l }) {
			return &Problem{Key: fmt.Sprintf("tls.client_ca.listeners[%d]", i),
				Problem: fmt.Sprintf("is %q, and no listener where TLS starts has that name: write one of those under listeners", l)}
		}
	}
	sum := sha256.Sum256(data)
	g.policy = c.Mode + " " + hex.EncodeToString(sum[:])
	v.clients = g
	return nil
}

// on says whether a listener asks any client for a certificate. A nil g asks nobody.
func (g *clients) on(l Listener) bool {
	return g != nil && (len(g.listeners) == 0 || slices.Contains(g.listeners, l.Name))
}

// applies says whether clients that ask for a name are asked for a certificate.
func (g *clients) applies(serverName string) bool {
	if len(g.names) == 0 {
		return true
	}
	name := strings.ToLower(serverName)
	if g.names[name] {
		return true
	}
	_, parent, ok := strings.Cut(name, ".")
	return ok && g.names["*."+parent]
}

// guarded is the config for a listener's clients that are asked for a certificate, nil where none is. It has ticket keys of its own: a session
// that was begun without a certificate must not be taken up where one is wanted.
func (v *View) guarded(l Listener, minVersion uint16) *tls.Config {
	if !v.clients.on(l) {
		return nil
	}
	c := v.base(l, minVersion, v.tickets[v.guardedSet(l)])
	c.ClientAuth, c.ClientCAs = v.clients.auth, v.clients.pool
	return c
}

// guardedSet names the ticket keys of a listener's clients that are asked for a certificate.
func (v *View) guardedSet(l Listener) string { return l.openSet() + " " + v.clients.policy }

// ticketSets names all ticket keys that the view needs: one set for each listener, and one for each policy on clients' certificates.
func (v *View) ticketSets() []string {
	var sets []string
	for _, l := range v.listeners {
		sets = append(sets, l.openSet())
		if v.clients.on(l) {
			sets = append(sets, v.guardedSet(l))
		}
	}
	return sets
}
