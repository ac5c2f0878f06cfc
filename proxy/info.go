package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// An Info is what others may see of the sessions: how many there are, and whose. It does not change.
type Info struct {
	// Started is when the gateway was made.
	Started time.Time `json:"started"`
	// BeforeLogin and LoggedIn are all sessions.
	BeforeLogin int `json:"before_login"`
	LoggedIn    int `json:"logged_in"`
	// Arriving are those before login whose PROXY header has not come: nobody knows their network.
	Arriving int `json:"arriving"`

	// Listeners are all that have sessions, Tenants the largest; each by the number of its sessions.
	Listeners []Share `json:"listeners"`
	Tenants   []Share `json:"tenants"`
	// Networks and Users are the largest, of NetworkCount and UserCount. Users have logged in; networks have all sessions.
	Networks     []Share `json:"networks"`
	NetworkCount int     `json:"network_count"`
	Users        []Share `json:"users"`
	UserCount    int     `json:"user_count"`
}

// A Share is how many sessions are somebody's.
type Share struct {
	Name     string `json:"name"`
	Sessions int    `json:"sessions"`
	// BeforeLogin are those of Sessions that have not logged in.
	BeforeLogin int `json:"before_login,omitempty"`
}

// Info counts the sessions, with up to top of those who have most. It costs sessions nothing, and itself less than a
// microsecond for each.
func (g *Gateway) Info(top int) Info {
	g.census.mu.Lock()
	defer g.census.mu.Unlock()
	i := g.census.take(&g.live, top)
	i.Started = g.started
	return i
}

// A census counts sessions. It keeps its maps, so that who asks again and again makes no work for the collector.
type census struct {
	mu        sync.Mutex
	listeners map[string]tally
	tenants   map[string]tally
	users     map[string]tally
	networks  map[netip.Prefix]tally
}

// A tally is a Share without its name: Sessions in the lower half, BeforeLogin in the upper one. So one addition counts both.
type tally uint64

const (
	tallyLoggedIn tally = 1
	tallyBefore   tally = 1<<32 | 1
)

func (t tally) sessions() int { return int(uint32(t)) }
func (t tally) before() int   { return int(t >> 32) }

func (c *census) take(live *sessions, top int) (i Info) {
	if c.users == nil {
		c.listeners, c.tenants, c.users = map[string]tally{}, map[string]tally{}, map[string]tally{}
		c.networks = map[netip.Prefix]tally{}
	}
	live.sweep(func(s *session) {
		switch s.phase.Load() {
		case phaseRelaying:
			// What is looked at here was written before the phase was, and is not written again.
			i.LoggedIn++
			c.networks[s.client.Network()] += tallyLoggedIn
			c.listeners[s.listener.Name] += tallyLoggedIn
			c.users[s.relay.who.user] += tallyLoggedIn
			if t := s.relay.who.tenant; t != "" {
				c.tenants[t] += tallyLoggedIn
			}
			return
		case phaseArriving:
			i.Arriving++
		default:
			c.networks[s.client.Network()] += tallyBefore
		}
		i.BeforeLogin++
		c.listeners[s.listener.Name] += tallyBefore
	})
	text := func(name string) string { return name }
	i.Listeners = largest(c.listeners, len(c.listeners), strings.Compare, text)
	i.Tenants = largest(c.tenants, top, strings.Compare, text)
	i.Networks, i.NetworkCount = largest(c.networks, top, netip.Prefix.Compare, netip.Prefix.String), len(c.networks)
	i.Users, i.UserCount = largest(c.users, top, strings.Compare, text), len(c.users)
	clear(c.listeners)
	clear(c.tenants)
	clear(c.users)
	clear(c.networks)
	return i
}

// largest are the n with most sessions, the largest first; of those with as many, the first by order.
func largest[K comparable](m map[K]tally, n int, order func(a, b K) int, name func(K) string) []Share {
	type entry struct {
		k K
		t tally
	}
	compare := func(a, b entry) int { return cmp.Or(cmp.Compare(b.t.sessions(), a.t.sessions()), order(a.k, b.k)) }
	first := make([]entry, 0, n+1)
	for k, t := range m {
		e := entry{k, t}
		if len(first) == n && (n == 0 || compare(e, first[n-1]) > 0) {
			continue
		}
		at, _ := slices.BinarySearchFunc(first, e, compare)
		first = slices.Insert(first, at, e)
		first = first[:min(n, len(first))]
	}
	shares := make([]Share, len(first)) // and not nil: nobody is [], not null
	for i, e := range first {
		shares[i] = Share{name(e.k), e.t.sessions(), e.t.before()}
	}
	return shares
}
