package limit

import "github.com/popgate/popgate/policy/store"

// Take asks for one turn at the time now. tat is what is kept for the key; next is to be kept instead, granted or not. See
// store.TakeTurn, which it is.
func (r Rate) Take(tat, now int64) (next int64, ok bool) {
	if r.Off() {
		return tat, true
	}
	return store.TakeTurn(r.turn(), r.most(), tat, now)
}

// Give returns a turn that Take granted earlier with the same rate, and says what is to be kept instead of tat. paid is
// what Take said then. See store.GiveTurn, which it is.
func (r Rate) Give(tat, paid, now int64) (next int64) {
	if r.Off() {
		return tat
	}
	return store.GiveTurn(r.turn(), tat, paid, now)
}

// turn is the time in which one turn comes back.
func (r Rate) turn() int64 { return max(int64(r.Per)/int64(r.Count), 1) }

// most is how many turns may be had at once.
func (r Rate) most() int64 {
	if r.Burst > 0 {
		return int64(r.Burst)
	}
	return int64(r.Count)
}
