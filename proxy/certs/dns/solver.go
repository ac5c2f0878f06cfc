package dns

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/libdns/libdns"
)

// A Solver answers DNS-01 challenges: it writes a record where it belongs, waits until it can be seen and removes it. It may
// be used at once.
type Solver struct {
	config   Config
	provider Provider
	resolver *Resolver
	watch    *watch
	log      *slog.Logger

	mu     sync.Mutex
	places map[record]place // from Present to CleanUp
}

// A place is where the record of one challenge goes.
type place struct {
	write string // what the provider is told
	zone  string
	show  string // where it appears
}

// A delegator is a provider whose records appear under names of its own choice.
type delegator interface {
	// Delegate says where the record for name will appear. It must have a CNAME there.
	Delegate(name string) (string, error)
}

// A zoner is a provider that knows better than the public DNS which zone a name is in.
type zoner interface {
	Zone(ctx context.Context, name string) (string, error)
}

// NewSolver makes a Solver with the provider that c names. Like New it reads files but asks no server. A nil log discards.
func NewSolver(c Config, log *slog.Logger) (*Solver, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p, err := New(c, log)
	if err != nil {
		return nil, err
	}
	r, err := NewResolver(c.Resolver)
	if err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	w, err := newWatch(c.Propagation, r, log)
	if err != nil {
		return nil, err
	}
	return &Solver{config: c, provider: p, resolver: r, watch: w, log: log, places: make(map[record]place)}, nil
}

// Present writes the record: name is `_acme-challenge.` and the domain, value what the challenge asks for. Each Present that went
// well wants a CleanUp.
func (s *Solver) Present(ctx context.Context, name, value string) error {
	name = fqdn(name)
	p, err := s.place(ctx, name)
	if err != nil {
		return err
	}
	if _, err := s.provider.AppendRecords(ctx, p.zone, s.libdns(p, value)); err != nil {
		// What ran into its deadline may have been done all the same.
		_ = s.remove(ctx, p, value)
		return fmt.Errorf("write the record %s: %w", host(p.write), err)
	}
	s.mu.Lock()
	s.places[record{name, value}] = p
	s.mu.Unlock()
	s.log.Info("DNS record written", "name", host(p.write), "provider", s.config.Provider, "zone", host(p.zone), "visible_as", host(p.show))
	return nil
}

// Wait returns once the record that Present wrote can be seen by all who might be asked for it, or with an error that says
// who does not show it. It logs what it waits for.
func (s *Solver) Wait(ctx context.Context, name, value string) error {
	p, ok := s.placeOf(name, value)
	if !ok {
		return fmt.Errorf("wait for the record %s: it was not written", host(fqdn(name)))
	}
	return s.watch.wait(ctx, p.show, value)
}

// CleanUp removes the record that Present wrote, even when ctx has ended. Without one it does nothing.
func (s *Solver) CleanUp(ctx context.Context, name, value string) error {
	p, ok := s.placeOf(name, value)
	if !ok {
		return nil
	}
	s.mu.Lock()
	delete(s.places, record{fqdn(name), value})
	s.mu.Unlock()
	if err := s.remove(ctx, p, value); err != nil {
		return fmt.Errorf("remove the record %s: %w", host(p.write), err)
	}
	return nil
}

func (s *Solver) placeOf(name, value string) (place, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.places[record{fqdn(name), value}]
	return p, ok
}

func (s *Solver) remove(ctx context.Context, p place, value string) error {
	// Longer than one change takes: a program that runs once at a time may have others before this one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.Longest())
	defer cancel()
	_, err := s.provider.DeleteRecords(ctx, p.zone, s.libdns(p, value))
	return err
}

func (s *Solver) libdns(p place, value string) []libdns.Record {
	return []libdns.Record{libdns.TXT{Name: libdns.RelativeName(p.write, p.zone), TTL: s.config.TTL, Text: value}}
}

// place finds where the record for name has to be written.
func (s *Solver) place(ctx context.Context, name string) (place, error) {
	if d, ok := s.provider.(delegator); ok {
		show, err := d.Delegate(name)
		if err != nil {
			return place{}, err
		}
		return place{write: name, zone: name, show: show}, s.mustLead(ctx, name, show)
	}
	p := place{write: name}
	var err error
	switch {
	case s.config.OverrideDomain != "":
		p.write = fqdn(s.config.OverrideDomain)
		err = s.mustLead(ctx, name, p.write)
	case s.config.FollowCNAME:
		p.write, err = s.resolver.CNAME(ctx, name)
	}
	if err != nil {
		return place{}, err
	}
	p.show = p.write
	p.zone, err = s.zone(ctx, p.write)
	return p, err
}

func (s *Solver) zone(ctx context.Context, name string) (string, error) {
	if z, ok := s.provider.(zoner); ok {
		return z.Zone(ctx, name)
	}
	return s.resolver.Zone(ctx, name)
}

// mustLead finds a missing delegation before the certificate authority does, which counts each failure.
func (s *Solver) mustLead(ctx context.Context, name, target string) error {
	if !s.config.FollowCNAME || name == target {
		return nil
	}
	end, err := s.resolver.CNAME(ctx, name)
	switch {
	case err != nil:
		return err
	case end == name:
		return fmt.Errorf("%s has no CNAME: add `%s CNAME %s` to its zone", host(name), name, target)
	case end != target:
		return fmt.Errorf("%s has a CNAME that leads to %s: it must lead to %s", host(name), host(end), host(target))
	}
	return nil
}
