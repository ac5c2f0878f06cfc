package certs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/popgate/popgate/proxy/certs/dns"
)

// acmeView is what one configuration makes of tls.acme. It is never changed.
type acmeView struct {
	section   ACME
	deps      Deps
	ordered   []string // tls.acme.domains as normal writes them
	domains   map[string]bool
	templates []template
	issuers   []*issuer
	depot     *depot
	store     *Store
	resolver  *dns.Resolver
}

// prepareACME makes the view of a section that is on. It asks nobody. What it gives beside an error is to be discarded.
func (k *Keeper) prepareACME(c Config, deps Deps) (*acmeView, error) {
	v := &acmeView{section: c.ACME, deps: deps, domains: make(map[string]bool)}
	for _, d := range c.ACME.Domains {
		name, err := normal(d)
		if err != nil {
			return nil, &Problem{Key: "tls.acme.domains", Problem: err.Error(), Err: err}
		}
		v.domains[name] = true
		v.ordered = append(v.ordered, name)
	}
	for _, n := range c.ACME.OnDemand.Names {
		t, err := parseTemplate(n)
		if err != nil {
			return nil, &Problem{Key: "tls.acme.on_demand.names", Problem: err.Error(), Err: err}
		}
		v.templates = append(v.templates, t)
	}
	var err error
	if v.resolver, err = dns.NewResolver(c.ACME.OnDemand.Resolver); err != nil {
		return nil, &Problem{Key: "tls.acme.on_demand.resolver", Problem: err.Error(), Err: err}
	}
	if v.depot, err = k.depotFor(c.ACME.Storage); err != nil {
		return nil, err
	}
	v.store = &Store{storage: v.depot.store}
	return v, k.prepareIssuers(v) // v also beside an error, for the storage to be closed
}

func (k *Keeper) prepareIssuers(v *acmeView) error {
	set := kit{cache: k.emptyCache(), storage: v.store.storage, section: v.section, log: newZap(k.log)}
	if v.section.DNS.Provider != "" {
		solver, err := dns.NewSolver(v.section.DNS, k.log)
		if err != nil {
			return &Problem{Key: "tls.acme.dns", Problem: err.Error(), Err: err}
		}
		set.dns = dnsSolver{solver}
	}
	var problems []error
	for n, conf := range v.section.issuers() {
		iss, err := set.newIssuer(conf, fmt.Sprintf("tls.acme.issuers[%d]", n))
		if err != nil {
			problems = append(problems, err)
			continue
		}
		v.issuers = append(v.issuers, iss)
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	return nil
}

// emptyCache gives certmagic the cache it wants to have. Nothing is ever put there: what clients get is in a manager's maps, which no
// look into the storage can hold up.
func (k *Keeper) emptyCache() *certmagic.Cache {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cache == nil {
		k.cache = certmagic.NewCache(certmagic.CacheOptions{
			GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) {
				return nil, errors.New("no certificate is kept here")
			},
			Logger: newZap(k.log),
		})
	}
	return k.cache
}

// dropCache ends the cache's own goroutine.
func (k *Keeper) dropCache() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cache != nil {
		k.cache.Stop()
		k.cache = nil
	}
}

// wanted are the names to manage from the start, and why.
func (v *acmeView) wanted() map[string]origin {
	all := make(map[string]origin)
	for _, name := range v.listed() {
		all[name] = listed
	}
	for name := range v.domains {
		all[name] = configured
	}
	return all
}

// covers says whether the configuration has a name, perhaps by a wildcard.
func (v *acmeView) covers(name string) bool {
	if v == nil {
		return false
	}
	if v.domains[name] {
		return true
	}
	_, parent, ok := strings.Cut(name, ".")
	return ok && v.domains["*."+parent]
}

// rsaToo says whether there should be an RSA certificate beside a first one, of the same issuer.
func (v *acmeView) rsaToo(first *site) bool {
	iss := v.issuerOf(first)
	return iss != nil && iss.conf.RSAToo
}

// dnsSolver makes DNS-01 challenges records in DNS.
type dnsSolver struct{ *dns.Solver }

// Present writes the record (acmez.Solver).
func (s dnsSolver) Present(ctx context.Context, c acme.Challenge) error {
	return s.Solver.Present(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}

// Wait waits until the record can be seen (acmez.Waiter).
func (s dnsSolver) Wait(ctx context.Context, c acme.Challenge) error {
	return s.Solver.Wait(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}

// CleanUp removes the record (acmez.Solver).
func (s dnsSolver) CleanUp(ctx context.Context, c acme.Challenge) error {
	return s.Solver.CleanUp(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}

var (
	_ acmez.Solver = dnsSolver{}
	_ acmez.Waiter = dnsSolver{}
)
