package directory

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

const (
	// knownDomain and unknownDomain are how long a source's word about a domain is taken.
	knownDomain   = 10 * time.Minute
	unknownDomain = time.Minute
	// domainWait is how long a handshake waits for that word.
	domainWait = time.Second
	// maxDomains bounds the memory, and domainLookups what strangers' made-up names can keep a source busy with.
	maxDomains    = 10_000
	domainLookups = 4
)

var errDomains = errors.New("too many questions about domains")

// domains remembers which domains a source has users in.
type domains struct {
	asker  *asker
	knower DomainKnower
	known  *otter.Cache[string, word]
	flight singleflight.Group
	slots  chan struct{}
}

// A word is what a source said of a domain.
type word struct {
	knows bool
	until time.Time
}

// A domainLocator is a DomainKnower that anybody can put a domain into, as anybody has a DNS: it has users for us only where its
// servers are such as the directory may name.
type domainLocator interface {
	domainServers(ctx context.Context, domain string) ([]Answer, error)
}

// newDomains returns nil where the source cannot tell.
func newDomains(a *asker) *domains {
	knower, ok := a.source.Source.(DomainKnower)
	if !ok {
		return nil
	}
	return &domains{
		asker: a, knower: knower, slots: make(chan struct{}, domainLookups),
		known: otter.Must(&otter.Options[string, word]{MaximumSize: maxDomains}),
	}
}

// KnowsDomain says whether the directory has users in a domain, which is as auth.Domain writes it. It answers within a second.
// Where the source cannot be asked, it says what the source said last, and false of a domain that it was never asked about.
// A directory that cannot tell knows none.
func (d *Directory) KnowsDomain(domain string) bool {
	if d.domains == nil {
		return false
	}
	return d.domains.knows(domain)
}

func (d *domains) knows(domain string) bool {
	w, ok := d.known.GetIfPresent(domain)
	if ok && time.Now().Before(w.until) {
		return w.knows
	}
	answer := d.flight.DoChan(domain, func() (any, error) { return d.ask(domain) })
	timer := time.NewTimer(domainWait)
	defer timer.Stop()
	select {
	case r := <-answer:
		if r.Err == nil {
			return r.Val.(bool)
		}
	case <-timer.C:
	}
	return w.knows
}

// ask asks the source, and remembers what it says.
func (d *domains) ask(domain string) (knows bool, err error) {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	default:
		return false, errDomains
	}
	if !d.asker.begin() {
		return false, errClosed
	}
	defer d.asker.flying.Done()
	ctx, cancel := d.asker.deadline()
	defer cancel()
	if knows, err = d.call(ctx, domain); err != nil {
		return false, err
	}
	until := time.Now().Add(unknownDomain)
	if knows {
		until = time.Now().Add(knownDomain)
	}
	d.known.Set(domain, word{knows, until})
	return knows, nil
}

// call asks the source. A slip in it costs one question.
func (d *domains) call(ctx context.Context, domain string) (knows bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.asker.log.Error("a fault in popgate; please report it", "directory", d.asker.name, "panic", p)
			knows, err = false, errors.New("panic in the source")
		}
	}()
	l, ok := d.knower.(domainLocator)
	if !ok {
		return d.knower.KnowsDomain(ctx, domain)
	}
	answers, err := l.domainServers(ctx, domain)
	return slices.ContainsFunc(answers, func(a Answer) bool { return d.asker.checker.check(&a) == nil }), err
}
