package certs

import (
	"crypto/tls"
	"slices"
	"strings"
	"time"
)

// Info describes one certificate in force.
type Info struct {
	File      string   // the certificate's file, or the local CA's where that issued it
	Names     []string // what it covers: A-labels in lower case, wildcards, IP addresses
	NotBefore time.Time
	NotAfter  time.Time

	late time.Time // when it should have been renewed; zero for two thirds of its life and a little more
}

// source is a certificate and where it comes from.
type source struct {
	cert *tls.Certificate
	file string
}

func (s source) info() Info {
	leaf := s.cert.Leaf
	return Info{File: s.file, Names: covered(leaf), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
}

func (s source) status(from string) Status {
	st := statusOf(s.cert, from)
	if st.Name == "" {
		st.Name = s.file // a certificate that names nobody
	}
	return st
}

// table says which certificates a name has. It is never changed: a renewal makes another one.
type table struct {
	exact    map[string][]*tls.Certificate
	wild     map[string][]*tls.Certificate // "example.org" for "*.example.org"
	fallback []*tls.Certificate            // the first listed, and those that stand beside it for its name
	infos    []Info
	sources  []source // each to the info at its place
}

// newTable keeps the order of the sources within each name.
func newTable(sources []source) *table {
	t := &table{exact: make(map[string][]*tls.Certificate), wild: make(map[string][]*tls.Certificate), sources: sources}
	for _, s := range sources {
		info := s.info()
		t.infos = append(t.infos, info)
		for _, name := range info.Names {
			m, key := t.exact, name
			if parent, ok := strings.CutPrefix(name, "*."); ok {
				m, key = t.wild, parent
			}
			// A certificate may list one name twice, written differently.
			if !slices.Contains(m[key], s.cert) {
				m[key] = append(m[key], s.cert)
			}
		}
	}
	if len(sources) > 0 {
		t.fallback = []*tls.Certificate{sources[0].cert}
		if names := t.infos[0].Names; len(names) > 0 {
			t.fallback = t.named(names[0])
		}
	}
	return t
}

// named gives the certificates listed for a name, written as normal writes it, wildcards included.
func (t *table) named(name string) []*tls.Certificate {
	if parent, ok := strings.CutPrefix(name, "*."); ok {
		return t.wild[parent]
	}
	return t.exact[name]
}

// find gives the certificates that cover a name in lower case. An exact name goes before a wildcard, and a wildcard stands
// for one label (RFC 6125, 6.4.3).
func (t *table) find(name string) []*tls.Certificate {
	if certs := t.named(name); certs != nil {
		return certs
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		return t.wild[parent]
	}
	return nil
}

// choose picks the certificate for a client: by the name it asks for, else by the listener's default name, else the first
// listed; among several the first that the client can use.
func (t *table) choose(hello *tls.ClientHelloInfo, defaultName string) *tls.Certificate {
	certs := t.find(strings.ToLower(hello.ServerName))
	if certs == nil {
		certs = t.find(defaultName)
	}
	if certs == nil {
		certs = t.fallback
	}
	return suited(hello, certs)
}

// suited is the first of certs, all good for the name, that the client can use; nil of none.
func suited(hello *tls.ClientHelloInfo, certs []*tls.Certificate) *tls.Certificate {
	if len(certs) == 0 {
		return nil
	}
	if len(certs) == 1 {
		return certs[0]
	}
	// SupportsCertificate would also compare the name, and refuse every default for an unknown one; the name is dealt with.
	unnamed := *hello
	unnamed.ServerName = ""
	for _, c := range certs {
		if unnamed.SupportsCertificate(c) == nil {
			return c
		}
	}
	return certs[0]
}
