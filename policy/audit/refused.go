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
	rows map[refusal]int64
}

// A refusal with the zero network is the sum of those that found no row.
type refusal struct {
	reason  Reason
	network netip.Prefix
}

// A row is one line of a summary.
type row struct {
	refusal
	count int64
}

func (r *refusals) add(reason Reason, network netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := refusal{reason, network}
	if _, ok := r.rows[k]; !ok && len(r.rows) >= maxRows {
		k.network = netip.Prefix{} // there are no more of these than there are reasons
	}
	if r.rows == nil {
		r.rows = make(map[refusal]int64)
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
		return cmp.Or(cmp.Compare(a.reason, b.reason), a.network.Compare(b.network))
	})
	return rows
}
