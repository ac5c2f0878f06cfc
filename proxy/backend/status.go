package backend

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/popgate/popgate/proxy/pop3"
)

// Causes of Backends.Drain.
var (
	ErrUnknown    = errors.New("there is no such backend or server")
	ErrConfigured = errors.New("it is the configuration that drains it: change drain or weight there")
)

// Status is the state of one backend.
type Status struct {
	Name    string
	Balance string
	// Drained says that the backend as a whole gets no new logins.
	Drained bool
	// Servers are those of the configuration in its order, then those that directories have named, used last first.
	Servers []ServerStatus
}

// Up is how many of the configuration's servers take logins and are believed alive.
func (b *Status) Up() int {
	n := 0
	for _, s := range b.Servers {
		if s.Up && !s.Drained && !s.Directory {
			n++
		}
	}
	return n
}

// ServerStatus is the state of one server.
type ServerStatus struct {
	Address string
	Weight  int
	// Directory says that the server is none of the configuration's: a directory has named it.
	Directory bool
	// Up says that the server is believed alive, as it is until it could not be reached, or failed many clients' logins.
	Up bool
	// Drained says that the server gets no new logins: by its weight, the configuration or an operator.
	Drained bool
	// State is all of that in words: up, starting (up, with a part of its share), down, failing or banned.
	State string
	// Sessions counts logins that have begun, too. MaxSessions is 0 where there is no limit.
	Sessions, MaxSessions int
	// Queued is how many logins wait for a place.
	Queued int
	// LoginsPerSecond is 0 where there is no pace. Ahead is how long the last login waits that waits for its turn.
	LoginsPerSecond int
	Ahead           time.Duration
	// LastError is what went wrong last, "" for nothing, and LastErrorAt when that was.
	LastError   string
	LastErrorAt time.Time
	// Addresses are those of the server's name, nil where it has none or was not looked up. LookupError is why there are no
	// newer ones, "" where the last look-up went well.
	Addresses   []netip.Addr
	LookupError string
	// Capabilities are the server's last answer to CAPA, nil where there is none. They must not be changed.
	Capabilities pop3.Capabilities
	// Greeting is the text that the server greets checks with, "" where none has seen it.
	Greeting string
	// Changes are the last changes that checks saw of the server, the latest last. They must not be changed.
	Changes []ServerChange
}

// The values of ServerStatus.State.
const (
	StateUp       = "up"
	StateStarting = "starting"
	StateDown     = "down"
	StateFailing  = "failing"
	StateBanned   = "banned"
)

// Status returns the state of all backends of the view, in the order of the configuration.
func (v *View) Status() []Status {
	all := make([]Status, 0, len(v.list))
	for _, p := range v.list {
		s := Status{Name: p.config.Name, Balance: p.config.Balance, Drained: p.config.Drain || p.drained.Load()}
		for _, m := range p.members {
			s.Servers = append(s.Servers, p.status(m))
		}
		for _, m := range p.backends.guests.of(p.config.Name) {
			one := p.status(m)
			one.Directory = true
			s.Servers = append(s.Servers, one)
		}
		all = append(all, s)
	}
	return all
}

func (p *Pool) status(m *member) ServerStatus {
	s := m.server
	one := ServerStatus{
		Address:         m.address.text,
		Weight:          m.weight,
		Up:              s.up(),
		Drained:         p.drains(m),
		State:           p.state(m),
		Sessions:        int(s.places.taken.Load()),
		MaxSessions:     int(m.maxSessions),
		Queued:          int(s.places.waiting.Load()),
		LoginsPerSecond: m.pacer.PerSecond(),
		Ahead:           m.pacer.Ahead(),
	}
	if e := s.last.Load(); e != nil {
		one.LastError, one.LastErrorAt = e.text, e.at
	}
	if ips := s.name.last.Load(); ips != nil {
		one.Addresses = *ips
	}
	if e := s.name.failed.Load(); e != nil {
		one.LookupError = e.text
	}
	one.Greeting, one.Changes = p.backends.profiles.of(serverID{s.backend, s.address})
	if c := s.caps.Load(); c != nil {
		one.Capabilities = *c
	}
	return one
}

func (p *Pool) state(m *member) string {
	switch {
	case m.server.deadUntil.Load() != 0:
		return StateDown
	case m.server.ban.believed(p.backends.now()):
		return StateBanned
	case m.server.sickUntil.Load() != 0:
		return StateFailing
	case p.share(m) < 1:
		return StateStarting
	}
	return StateUp
}

// Status returns the state of the backends in use.
func (b *Backends) Status() []Status { return b.view.Load().Status() }

// mostTrouble bounds the sentences about servers of one backend: directories may have named thousands.
const mostTrouble = 10

// Trouble says what is not as it should be with the backends in use, a sentence each.
func (b *Backends) Trouble() []string {
	var notes []string
	v := b.view.Load()
	for _, p := range v.list {
		of := p.trouble()
		if more := len(of) - mostTrouble; more > 0 {
			of = append(of[:mostTrouble], fmt.Sprintf("backend %s: %d more of this kind, see popgate backends", p.config.Name, more))
		}
		notes = append(notes, of...)
	}
	for _, s := range v.Status() {
		switch {
		case s.Drained:
			notes = append(notes, fmt.Sprintf("backend %s: drained, nobody can log in", s.Name))
		case len(s.Servers) > 0 && !s.Servers[0].Directory && s.Up() == 0:
			notes = append(notes, fmt.Sprintf("backend %s: no server can be reached", s.Name))
		}
	}
	return notes
}

// trouble says which servers seem to have banned popgate, the configuration's first.
func (p *Pool) trouble() (notes []string) {
	say := func(m *member, what string) {
		notes = append(notes, fmt.Sprintf("backend %s: %s %s", p.config.Name, m.address.text, what))
	}
	for _, m := range slices.Concat(p.members, p.backends.guests.of(p.config.Name)) {
		if m.server.ban.believed(p.backends.now()) {
			say(m, "refuses passwords that it took before; it seems to have banned popgate")
		}
		if m.server.deafTo(&p.config) {
			say(m, fmt.Sprintf("no longer takes clients' addresses (client_info: %s)", p.config.ClientInfo))
		}
	}
	return notes
}

// Drain takes a backend, or a server of one ("backend/server"), out of service, or back into it: it gets no new logins,
// sessions go on until they end. That outlives reloads, and ends with popgate. The error is ErrUnknown, or ErrConfigured.
func (b *Backends) Drain(name string, drained bool) error {
	v := b.view.Load()
	p, members := v.find(name)
	configured := func(m *member) bool { return m.drain || m.weight == 0 }
	switch {
	case p == nil:
		return fmt.Errorf("%q: %w", name, ErrUnknown)
	case !drained && (p.config.Drain || slices.ContainsFunc(members, configured)):
		return fmt.Errorf("%s: %w", name, ErrConfigured)
	case members == nil:
		p.drained.Store(drained)
	}
	for _, m := range members {
		m.server.drained.Store(drained)
	}
	what := "drained by an operator"
	if !drained {
		what = "back in service by an operator"
	}
	b.log.Info(what, slog.String("backend", name))
	v.refresh()
	return nil
}

// find finds a backend by its name, or a server by the name of its backend and its address: once as the configuration has it,
// and once for each way to TLS by which directories have named it. There are no members for a backend.
func (v *View) find(name string) (p *Pool, members []*member) {
	if p = v.pools[name]; p != nil {
		return p, nil
	}
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return nil, nil
	}
	if p = v.pools[name[:i]]; p == nil {
		return nil, nil
	}
	for _, m := range append(p.backends.guests.of(name[:i]), p.members...) {
		a, err := parseAddress(name[i+1:], p.planOf(m).mode)
		if err == nil && a.text == m.address.text {
			members = append(members, m)
		}
	}
	if members == nil {
		return nil, nil
	}
	return p, members
}
