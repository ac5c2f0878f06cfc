package certs

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// namesPerCert keeps a hello small where there are many names; most installations need one certificate.
const namesPerCert = 100

// local is what the CA has issued for a view. After Use the keeper's lock guards certs.
type local struct {
	ca     *authority
	groups [][]string // the names of each certificate
	certs  []*tls.Certificate
	spares *spares // for names that clients bring up; outlives reloads
}

// issueLocal issues for the names and the listeners' default names. What an earlier view has for the
// same names is taken over, so that a reload does not show clients another certificate.
func issueLocal(ca *authority, names []string, earlier *local) (*local, error) {
	l := &local{ca: ca, spares: newSpares(ca)}
	if earlier != nil && earlier.ca.cert.Equal(ca.cert) {
		l.spares = earlier.spares
	}
	for group := range slices.Chunk(names, namesPerCert) {
		cert := earlier.find(ca, group)
		if cert == nil {
			var err error
			if cert, err = ca.issue(group); err != nil {
				return nil, err
			}
		}
		l.groups = append(l.groups, group)
		l.certs = append(l.certs, cert)
	}
	return l, nil
}

// find gives the certificate issued for exactly these names by the same CA; l may be nil.
func (l *local) find(ca *authority, names []string) *tls.Certificate {
	if l == nil || !l.ca.cert.Equal(ca.cert) {
		return nil
	}
	for i, group := range l.groups {
		if slices.Equal(group, names) {
			return l.certs[i]
		}
	}
	return nil
}

// renew issues anew what has used up two thirds of its life, and says whether there was any.
func (l *local) renew(now time.Time) (bool, error) {
	renewed := false
	for i, c := range l.certs {
		if now.Before(renewAt(c.Leaf.NotBefore, c.Leaf.NotAfter)) {
			continue
		}
		if now.After(l.ca.cert.NotAfter) {
			return renewed, fmt.Errorf("the local CA %s has expired: remove it and %s, and reload to make a new one", l.ca.file, caKeyFile)
		}
		cert, err := l.ca.issue(l.groups[i])
		if err != nil {
			return renewed, err
		}
		l.certs[i], renewed = cert, true
	}
	return renewed, nil
}

func renewAt(from, to time.Time) time.Time { return from.Add(to.Sub(from) / 3 * 2) }

// spareNames bounds each half of the certificates that spares keep.
const spareNames = 2000

// spares are what the local CA issues for single names while their own certificates are still to come (tls.acme.missing). Which
// names they are is for the caller to say. The ones used of late are kept.
type spares struct {
	ca *authority

	mu         sync.Mutex
	young, old map[string]*tls.Certificate
}

func newSpares(ca *authority) *spares {
	return &spares{ca: ca, young: make(map[string]*tls.Certificate)}
}

// find gives a name's certificate, and makes it where there is none or the one there is grows old.
func (s *spares) find(name string) (*tls.Certificate, error) {
	s.mu.Lock()
	c := s.young[name]
	if c == nil {
		c = s.old[name]
	}
	s.mu.Unlock()
	if c == nil || time.Now().After(renewAt(c.Leaf.NotBefore, c.Leaf.NotAfter)) {
		var err error
		if c, err = s.ca.issue([]string{name}); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.young[name]; !there && len(s.young) >= spareNames {
		s.young, s.old = make(map[string]*tls.Certificate), s.young
	}
	s.young[name] = c
	return c, nil
}

// localNames are the names the CA issues for: those configured, or, where there are none, this host's. Default names and IP
// addresses come first, so that the certificate for clients that name nothing has them.
func localNames(names []string, ls []Listener) ([]string, error) {
	var first, rest []string
	for _, l := range ls {
		if l.DefaultName != "" {
			n, err := normal(l.DefaultName)
			if err != nil {
				return nil, cannotIssue(fmt.Sprintf("listener %s, default_name", l.Name), err)
			}
			first = append(first, n)
		}
	}
	for _, name := range names {
		n, err := normal(name)
		if err != nil {
			return nil, cannotIssue("a configured name", err)
		}
		if _, err := netip.ParseAddr(n); err == nil {
			first = append(first, n)
		} else {
			rest = append(rest, n)
		}
	}
	all := slices.Concat(first, rest)
	if len(all) == 0 {
		all = hostNames()
	}
	return unique(all), nil
}

func cannotIssue(where string, err error) error {
	return &Problem{Key: "tls", Err: err, Problem: fmt.Sprintf("the local CA cannot issue for %s: %v: correct the name", where, err)}
}

// hostNames are what clients can call this host where nobody has said.
func hostNames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	// A host may have a name that is none in DNS; then the three must do.
	if host, err := os.Hostname(); err == nil {
		if n, err := normal(host); err == nil {
			names = append([]string{n}, names...)
		}
	}
	return names
}

func unique(names []string) []string {
	seen := make(map[string]bool, len(names))
	return slices.DeleteFunc(names, func(n string) bool {
		dup := seen[n]
		seen[n] = true
		return dup
	})
}
