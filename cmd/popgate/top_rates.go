package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/popgate/popgate/proxy/admin"
)

// topWindow is how far back a watch looks.
const topWindow = time.Minute

// A watch is what a gateway has answered within the last minute, the oldest first: all of one life of it. A copy of it stays
// as it is.
type watch struct{ readings []*admin.Status }

// add takes another answer. It says that the gateway has begun a new life since the last.
func (w *watch) add(s *admin.Status) (restarted bool) {
	if last := w.last(); last != nil && !s.Sessions.Started.Equal(last.Sessions.Started) {
		w.readings, restarted = nil, true
	}
	// The same answer may come twice, and a clock may be set back.
	for last := w.last(); last != nil && !last.Time.Before(s.Time); last = w.last() {
		w.readings = slices.Clip(w.readings[:len(w.readings)-1])
	}
	w.readings = append(w.readings, s)
	for len(w.readings) > 2 && s.Time.Sub(w.readings[1].Time) >= topWindow {
		w.readings = w.readings[1:]
	}
	return restarted
}

func (w *watch) last() *admin.Status {
	if len(w.readings) == 0 {
		return nil
	}
	return w.readings[len(w.readings)-1]
}

// now is the rates of the last interval, and minute those of all of them. Before the second answer there are none.
func (w *watch) now() rates    { return w.between(len(w.readings) - 2) }
func (w *watch) minute() rates { return w.between(0) }

func (w *watch) between(i int) rates {
	if i < 0 || len(w.readings) < 2 {
		return rates{}
	}
	return ratesOf(w.readings[i], w.last())
}

// course is a rate in each interval, the oldest first.
func (w *watch) course(of func(rates) float64) []float64 {
	var all []float64
	for i := 1; i < len(w.readings); i++ {
		all = append(all, of(ratesOf(w.readings[i-1], w.readings[i])))
	}
	return all
}

// rates are what happened a second between two answers.
type rates struct {
	over       time.Duration // 0: there are none
	accepted   float64
	refused    float64
	reasons    []share // of refused, the most frequent first
	took       admin.Times
	turnedAway float64 // connections
	handshakes float64
	resumed    float64
	failed     float64
	in, out    float64
	servers    map[serverKey]serverRates
}

// A share is a rate of something by its name.
type share struct {
	name string
	rate float64
}

type serverKey struct{ backend, server string }

// serverRates are a server's logins a second, and how long they took.
type serverRates struct {
	logins float64
	took   admin.Times
}

func ratesOf(a, b *admin.Status) rates {
	over := b.Time.Sub(a.Time)
	if over <= 0 {
		return rates{}
	}
	was, is := &a.Totals, &b.Totals
	per := func(before, after uint64) float64 { return float64(grown(before, after)) / over.Seconds() }
	r := rates{
		over:       over,
		accepted:   per(was.Logins["accepted"], is.Logins["accepted"]),
		took:       timesBetween(was.LoginSeconds, is.LoginSeconds),
		handshakes: per(was.Handshakes, is.Handshakes),
		resumed:    per(was.Resumed, is.Resumed),
		in:         per(was.BytesIn, is.BytesIn),
		out:        per(was.BytesOut, is.BytesOut),
		servers:    map[serverKey]serverRates{},
	}
	for outcome, n := range is.Logins {
		if rate := per(was.Logins[outcome], n); outcome != "accepted" && rate > 0 {
			r.refused += rate
			r.reasons = append(r.reasons, share{outcome, rate})
		}
	}
	slices.SortFunc(r.reasons, func(a, b share) int { return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(a.name, b.name)) })
	for reason, n := range is.Refused {
		r.turnedAway += per(was.Refused[reason], n)
	}
	for cause, n := range is.HandshakeFailures {
		r.failed += per(was.HandshakeFailures[cause], n)
	}
	before := map[serverKey]admin.Times{}
	for _, s := range a.Servers {
		before[serverKey{s.Backend, s.Server}] = s.LoginSeconds
	}
	for _, s := range b.Servers {
		k := serverKey{s.Backend, s.Server}
		took := timesBetween(before[k], s.LoginSeconds)
		r.servers[k] = serverRates{float64(countOf(took)) / over.Seconds(), took}
	}
	return r
}

// grown is by how much a total has grown. One that is smaller than before has begun anew.
func grown(before, after uint64) uint64 {
	if after < before {
		return after
	}
	return after - before
}

// timesBetween are the times that came between two totals.
func timesBetween(before, after admin.Times) admin.Times {
	t := admin.Times{Bounds: after.Bounds, Counts: slices.Clone(after.Counts)}
	if !slices.Equal(before.Bounds, after.Bounds) || len(before.Counts) != len(after.Counts) || countOf(before) > countOf(after) {
		return t // the first of them, or they have begun anew
	}
	for i, n := range before.Counts {
		t.Counts[i] = grown(n, after.Counts[i])
	}
	return t
}

func countOf(t admin.Times) (n uint64) {
	for _, c := range t.Counts {
		n += c
	}
	return n
}

// quantile estimates which time a share q of t did not exceed, as if times were spread evenly between two bounds. Above the
// last bound all that is known is that: then above is true. Without times ok is false.
func quantile(t admin.Times, q float64) (d time.Duration, above, ok bool) {
	rank := q * float64(countOf(t))
	if rank == 0 || len(t.Counts) != len(t.Bounds)+1 {
		return 0, false, false
	}
	lower, seen := 0.0, 0.0
	for i, bound := range t.Bounds {
		n := float64(t.Counts[i])
		if n > 0 && seen+n >= rank {
			return seconds(lower + (bound-lower)*(rank-seen)/n), false, true
		}
		seen += n
		lower = bound
	}
	return seconds(lower), true, true
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
