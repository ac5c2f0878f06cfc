package limit

import "github.com/popgate/popgate/policy/store"

// Rates keeps the turns of many keys. Where there are too many it forgets those whose turns are soonest back, as
// store.Times does. It may be used by many at once; all times are those of Rate.Take.
type Rates struct {
	times *store.Times
}

// NewRates returns Rates for at most so many keys.
func NewRates(most int) *Rates { return &Rates{times: store.NewTimes(most)} }

// Take asks for a turn of k; a rate that is off grants it and keeps nothing. paid is what Give wants to have, should
// the turn be given back.
func (r *Rates) Take(k store.Key, rate Rate, now int64) (paid int64, ok bool) {
	if rate.Off() {
		return 0, true
	}
	r.times.Update(k, now, func(tat int64) int64 {
		paid, ok = rate.Take(tat, now)
		return paid
	})
	return paid, ok
}

// Give gives back a turn that Take granted with the same rate. A key that was forgotten has none to give.
func (r *Rates) Give(k store.Key, rate Rate, paid, now int64) {
	r.times.Update(k, now, func(tat int64) int64 { return rate.Give(tat, paid, now) })
}

// Len is the number of keys that have a turn out at the time now.
func (r *Rates) Len(now int64) int { return r.times.Len(now) }
