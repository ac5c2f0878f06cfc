package audit

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
)

// maxRows bounds the networks that one summary tells apart.
const maxRows = 256

// refusals counts connections that were turned away since the last summary.
type refusals struct {
	mu   sync.Mutex
	rows map[Refusal]int64
}

// A Refusal says why a connection is turned away, and whose it is.
type Refusal struct {
	Reason      Reason
	Limit, Rule string       // which limit or access rule it was, where it was one
	Network     netip.Prefix // the client's; the zero one is the sum of those that found no row
}

// A row is one line of a summary.
type row struct {
	Refusal
	count int64
}

func (r *refusals) add(k Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.rows[k]; !ok && len(r.rows) >= maxRows {
		k.Network = netip.Prefix{} // there are no more of these than there are reasons, limits and rules
	}
	if r.rows == nil {
		r.rows = make(map[Refusal]int64)
	}
	r.rows[k]++
}

// take returns the rows by reason and network, the sum of the rest of a reason before its networks, and begins anew.
func (r *refusals) take() []row {
	r.mu.Lock()
	counts := r.rows
	r.rows = nil
	r.mu.Unlock()
	rows := make([]row, 0, len(counts))
	for k, n := range counts {
		rows = append(rows, row{k, n})
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Rule, b.Rule), a.Network.Compare(b.Network))
	})
	return rows
}
