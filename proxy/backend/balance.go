package backend

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// A candidate is a member in the order of one account.
type candidate struct {
	*member
	score float64 // by its hash
	load  float64 // sessions for its weight
	late  bool    // its server is starting, and has no share of the account yet
	tried bool
}

// A round is one way through the candidates.
type round struct {
	dead    bool // the dead ones too, should nobody else be there
	patient bool // with waiting for a place and a turn
}

// rounds are the ways through the candidates for each balance. Where an account has a server of its own, the login waits
// for that one; where it has not, it waits only when no other could take it at once.
var (
	roundsOwn = []round{{patient: true}, {dead: true, patient: true}}
	roundsAny = []round{{}, {patient: true}, {dead: true, patient: true}}
)

func (p *Pool) rounds() []round {
	if p.config.Balance == BalanceLeast {
		return roundsAny
	}
	return roundsOwn
}

// order appends the members that take logins to dst, the one first that the balance picks for account.
func (p *Pool) order(dst []candidate, account string) []candidate {
	switch p.config.Balance {
	case BalanceLeast:
		return p.byLoad(p.byHash(dst, account))
	case BalanceFailover:
		return p.inOrder(dst, account)
	}
	return p.byHash(dst, account)
}

// byHash is weighted rendezvous hashing: a member's score depends on nobody else, so one that goes or comes moves its own
// accounts only. Nodes must agree on it: a change moves accounts.
func (p *Pool) byHash(dst []candidate, account string) []candidate {
	h := xxhash.Sum64String(account)
	for _, m := range p.members {
		if p.drains(m) {
			continue
		}
		c := candidate{member: m, score: -float64(m.weight) * p.share(m) / math.Log(uniform(h, m.seed))}
		dst = append(dst, c)
		i := len(dst) - 1
		for ; i > 0 && dst[i-1].score < c.score; i-- {
			dst[i] = dst[i-1]
		}
		dst[i] = c
	}
	return dst
}

// byLoad puts those with the fewest sessions for their weight first; where that is equal the hash decides.
func (p *Pool) byLoad(all []candidate) []candidate {
	for i := range all {
		c := all[i]
		c.load = float64(c.server.places.taken.Load()) / (float64(c.weight) * p.share(c.member))
		j := i
		for ; j > 0 && all[j-1].load > c.load; j-- {
			all[j] = all[j-1]
		}
		all[j] = c
	}
	return all
}

// inOrder is the order of the configuration. A member that is back and has a part of its share only stands where it
// belongs for that part of the accounts, and last for the others.
func (p *Pool) inOrder(dst []candidate, account string) []candidate {
	h := xxhash.Sum64String(account)
	for _, m := range p.members {
		if p.drains(m) {
			continue
		}
		c := candidate{member: m, late: uniform(h, m.seed) >= p.share(m)}
		dst = append(dst, c)
		i := len(dst) - 1
		for ; i > 0 && dst[i-1].late && !c.late; i-- {
			dst[i] = dst[i-1]
		}
		dst[i] = c
	}
	return dst
}

// uniform is a number strictly between 0 and 1, of the top 53 bits in the middle of their step.
func uniform(hash, seed uint64) float64 {
	return (float64(mix(hash^seed)>>11) + 0.5) / (1 << 53)
}

// share is how much of its weight m has: less than all of it where the server is back or new, and the backend starts
// those slowly.
func (p *Pool) share(m *member) float64 {
	if p.config.SlowStart == 0 || m.server == nil {
		return 1
	}
	since := m.server.since.Load()
	if since == 0 {
		return 1
	}
	const least = 0.01 // or nobody would ever come, where sessions are few
	passed := p.backends.now() - time.Duration(since)
	return min(max(float64(passed)/float64(p.config.SlowStart), least), 1)
}

// drains says that m gets no new logins.
func (p *Pool) drains(m *member) bool {
	return m.weight == 0 || p.config.Drain || m.drain || m.server != nil && m.server.drained.Load() || p.drained.Load()
}

// Order returns the addresses of the servers of c that a login of account would try, in order, were all of them alive and
// without sessions. Drained servers are left out, as are addresses that Validate finds a fault in. It reads no files and
// asks nobody.
func Order(c Config, account string) []string {
	p := Pool{config: c, drained: new(atomic.Bool)}
	p.config.SlowStart = 0
	for _, s := range c.Servers {
		if a, err := parseAddress(s.Address, c.TLS); err == nil {
			m := newMember(a, s.Weight)
			m.drain = s.Drain
			p.members = append(p.members, m)
		}
	}
	if c.Balance == BalanceLeast {
		p.config.Balance = BalanceHash // which decides where nobody has sessions
	}
	var addresses []string
	for _, m := range p.order(nil, account) {
		addresses = append(addresses, m.address.text)
	}
	return addresses
}

// seed is what a server's address contributes to the scores.
func seed(address string) uint64 {
	return xxhash.Sum64String(address)
}

// mix is the finalizer of splitmix64: every bit of x changes half of the result's.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
