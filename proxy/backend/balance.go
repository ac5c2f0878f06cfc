package backend

import (
	"math"

	"github.com/cespare/xxhash/v2"
)

// A candidate is a member in the order of one account.
type candidate struct {
	*member
	score float64
	tried bool
}

// order appends the members that take logins to dst, the one that account belongs to first. It is weighted rendezvous
// hashing: a member's score depends on nobody else, so one that goes or comes moves its own accounts only. Nodes must
// agree on it: a change moves accounts.
func (p *Pool) order(dst []candidate, account string) []candidate {
	h := xxhash.Sum64String(account)
	for _, m := range p.members {
		if m.weight == 0 {
			continue
		}
		// The top 53 bits, in the middle of their step, are a number strictly between 0 and 1.
		u := (float64(mix(h^m.seed)>>11) + 0.5) / (1 << 53)
		c := candidate{member: m, score: -float64(m.weight) / math.Log(u)}
		dst = append(dst, c)
		i := len(dst) - 1
		for ; i > 0 && dst[i-1].score < c.score; i-- {
			dst[i] = dst[i-1]
		}
		dst[i] = c
	}
	return dst
}

// Order returns the addresses of the servers of c that a login of account would try, in order, were all of them alive.
// Drained servers are left out, as are addresses that Validate finds a fault in. It reads no files and asks nobody.
func Order(c Config, account string) []string {
	var p Pool
	for _, s := range c.Servers {
		if a, err := parseAddress(s.Address, c.TLS); err == nil {
			p.members = append(p.members, newMember(a, s.Weight))
		}
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
