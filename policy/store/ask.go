package store

// An Ask is one thing that a decision asks for: a turn of a rate, or a place among so many.
//
// A rate is GCRA, the generic cell rate algorithm (ITU-T I.371): all that is kept of it is the time until which its
// turns are paid for.
type Ask struct {
	Key Key
	// Turn is the nanoseconds in which one turn comes back; 0: this asks for a place, not for a turn.
	Turn int64
	// Most is how many turns may be had at once, or how many places there are. At or below 0 nothing is refused, only
	// counted.
	Most int64
	// Paid is what Take set for a turn, for Give.
	Paid int64
	// Tag is the asker's own; nobody here looks at it.
	Tag uint8
	// Whole says that a node that decides alone does not divide the limit among the nodes.
	Whole bool
	// divided is by how many the limit was when Take granted this; 0 is 1.
	divided int32
}

// cost is how long the turn was that Take granted.
func (a *Ask) cost() int64 {
	if a.divided > 1 {
		return span(a.Turn, int64(a.divided))
	}
	return a.Turn
}

// Place says that this asks for a place, which has to be given back, and not for a turn, which time brings back.
func (a *Ask) Place() bool { return a.Turn <= 0 }
