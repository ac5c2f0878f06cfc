package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/proxy/pop3"
	"github.com/prometheus/client_golang/prometheus"
)

// Backends is what popgate knows of its backends' servers: which are dead, what they can do, what they were asked.
// It is made once and kept over reloads. Any goroutine may use it.
type Backends struct {
	log   *slog.Logger
	epoch time.Time
	dial  func(ctx context.Context, d *dialer, a address) (net.Conn, error)

	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

	view    atomic.Pointer[View]
	changed chan struct{} // Run is to look at the view again

	mu      sync.Mutex
	servers map[serverID]*server    // those of the view in use
	drained map[string]*atomic.Bool // by an operator, by backend; those of the view in use

	guests   guests
	profiles profiles
	good     goodLogins
}

type serverID struct{ backend, address string }

// New makes a Backends without any servers. A nil log discards, a nil reg registers no metrics. Until Use is called,
// there is nothing to log in to.
func New(log *slog.Logger, reg prometheus.Registerer) *Backends {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Backends{
		log:      log,
		epoch:    time.Now(),
		dial:     dial,
		lookup:   net.DefaultResolver.LookupNetIP,
		changed:  make(chan struct{}, 1),
		servers:  map[serverID]*server{},
		drained:  map[string]*atomic.Bool{},
		guests:   newGuests(),
		profiles: newProfiles(),
		good:     goodLogins{seed: maphash.MakeSeed()},
	}
	b.view.Store(&View{})
	if reg != nil {
		reg.MustRegister(collector{b})
	}
	return b
}

// now is a clock that never goes back, and is never 0.
func (b *Backends) now() time.Duration {
	return time.Since(b.epoch) + 1
}

// Prepare makes a view of configs, reading the files they name. Nothing that runs changes until the view is used.
// The error is auth.Faults, all there are. Servers that are in use already keep what is known of them.
func (b *Backends) Prepare(configs []Config) (*View, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := &View{pools: make(map[string]*Pool, len(configs))}
	var faults auth.Faults
	for i := range configs {
		at := fmt.Sprintf("backends[%d].", i)
		fault := func(key string, err error) { faults = append(faults, &auth.Fault{Key: at + key, Err: err}) }
		c := configs[i]
		valid := true
		c.Validate(func(key, problem string) {
			valid = false
			fault(key, errors.New(problem))
		})
		if v.pools[c.Name] != nil {
			fault("name", fmt.Errorf("is %q, as is another backend's", c.Name))
		}
		if valid {
			p := b.newPool(&c, fault)
			v.pools[c.Name], v.list = p, append(v.list, p)
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	v.refresh()
	return v, nil
}

func (b *Backends) newPool(c *Config, fault func(string, error)) *Pool {
	p := &Pool{
		backends: b,
		config:   *c,
		plan:     newPlan(c, c.TLS),
		dialer:   newDialer(b, c),
		texts:    newTexts(c),
		tls:      newTLS(c, fault),
		drained:  b.drained[c.Name],
	}
	if c.Check.Type == CheckLogin {
		p.probe = probeLogin(&c.Check, fault)
	}
	if p.drained == nil {
		p.drained = new(atomic.Bool)
	}
	for _, s := range c.Servers {
		a, err := parseAddress(s.Address, c.TLS)
		if err != nil {
			continue // Validate has said so
		}
		id := serverID{c.Name, a.text}
		state := b.servers[id]
		if state == nil {
			state = newServer(c.Name, a.text)
		}
		m := newMember(a, s.Weight)
		m.server, m.drain = state, s.Drain
		m.address.name = &state.name
		m.limit(c, &s)
		if c.TLS != TLSNone {
			m.tls = serverTLS(p.tls, c, a.host)
		}
		p.members = append(p.members, m)
	}
	return p
}

// probeLogin is what checks log in with. It is kept as long as the view is.
func probeLogin(c *CheckConfig, fault func(string, error)) *auth.BackendLogin {
	text, err := os.ReadFile(c.PasswordFile)
	defer clear(text)
	if err != nil {
		fault("check.password_file", err)
		return nil
	}
	line, _, _ := bytes.Cut(text, []byte{'\n'})
	l := &auth.BackendLogin{User: c.User, Secret: auth.NewSecret(bytes.TrimSuffix(line, []byte{'\r'}))}
	if !sendable(l, reveal(l)) || len(line) == 0 {
		fault("check.password_file", fmt.Errorf("%s: its first line is empty, or no password that can be sent", c.PasswordFile))
		return nil
	}
	return l
}

// Use makes v the view that Run watches and metrics show. What is known of servers that v does not have is forgotten.
// Pools of earlier views go on working for the sessions that hold them.
func (b *Backends) Use(v *View) {
	b.mu.Lock()
	before, known := b.servers, b.drained
	b.servers, b.drained = map[serverID]*server{}, map[string]*atomic.Bool{}
	for _, p := range v.list {
		b.drained[p.config.Name] = p.drained
		for _, m := range p.members {
			id := serverID{m.server.backend, m.server.address}
			if known[p.config.Name] != nil && before[id] == nil {
				m.server.since.Store(int64(b.now())) // new in a backend that was there
			}
			b.servers[id] = m.server
			m.server.pacer = m.pacer
			m.server.places.raise(m.maxSessions)
		}
	}
	b.mu.Unlock()
	b.view.Store(v)
	v.refresh() // a check may have had news since Prepare
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// A View is what the configuration says of backends. It does not change, but for what is known of its servers.
type View struct {
	pools map[string]*Pool
	list  []*Pool // in the order of the configuration

	news       atomic.Bool // caps are to be computed anew
	refreshing sync.Mutex
	caps       atomic.Pointer[pop3.Capabilities]
}

// Pool returns the pool of the backend called name, nil where there is none.
func (v *View) Pool(name string) *Pool {
	return v.pools[name]
}

// Capabilities returns what may be promised to a client before it is known where it goes: the lines about a session
// after login that all servers of all backends have in common, arguments included. Drained servers do not count; one
// that has not answered CAPA counts as TOP and UIDL. It is cheap; the caller must not change the result.
func (v *View) Capabilities() pop3.Capabilities {
	if c := v.caps.Load(); c != nil {
		return *c
	}
	return nil
}

// refresh recomputes what Capabilities returns. Where that is being done already, it is done once more behind it, whoever
// else asks meanwhile: thousands of servers may have news at once.
func (v *View) refresh() {
	v.news.Store(true)
	for v.news.Load() && v.refreshing.TryLock() { // so that nobody stores what was computed before another's news
		if v.news.Swap(false) {
			v.compute()
		}
		v.refreshing.Unlock()
	}
}

func (v *View) compute() {
	var sets []pop3.Capabilities
	for _, p := range v.list {
		for _, m := range p.members {
			if !p.drains(m) {
				sets = append(sets, m.server.capabilities())
			}
		}
		if len(p.members) > 0 {
			for _, m := range p.backends.guests.of(p.config.Name) {
				sets = append(sets, m.server.capabilities())
			}
		} else {
			sets = append(sets, oldCapabilities) // the next user's server may be one that nobody has seen yet
		}
	}
	var common pop3.Capabilities
	for _, line := range pop3.Common(sets...) {
		name, _, _ := strings.Cut(line, " ")
		switch name {
		// The others of RFC 2449's registry are about the time before login, which is the gateway's own; UTF8 and LANG
		// would have to be passed on before it is known where to.
		case "TOP", "UIDL", "PIPELINING", "EXPIRE", "LOGIN-DELAY":
			common = append(common, line)
		}
	}
	v.caps.Store(&common)
}
