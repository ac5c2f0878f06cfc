package limit

// Take asks for one turn at the time now. tat is what is kept for the key, the "theoretical arrival time": until
// then its turns are paid for, and at or below now all of them are free, so 0 does for a key not seen before.
// next is to be kept instead of tat, granted or not; asking in vain costs nothing. All times are nanoseconds of one
// monotonic clock.
func (r Rate) Take(tat, now int64) (next int64, ok bool) {
	if r.Off() {
		return tat, true
	}
	turn := r.turn()
	full := turn * int64(r.Count)
	// A tat further off than this rate can put it was left by a slower rate, before a reload; it must not outlast
	// that one, so what is returned for a refusal is the nearer time.
	tat = min(max(tat, now), now+full)
	if tat+turn-now > full {
		return tat, false
	}
	return tat + turn, true
}

// Give returns a turn that Take granted earlier with the same rate, and says what is to be kept instead of tat.
// paid is what Take said then. Time may have brought the turn back since, wholly or in part: only the rest of it is
// given, or slow successes would pay for somebody's failures.
func (r Rate) Give(tat, paid, now int64) (next int64) {
	if r.Off() {
		return tat
	}
	rest := min(max(paid-now, 0), r.turn())
	return max(tat-rest, min(tat, now))
}

// turn is the time in which one turn comes back.
func (r Rate) turn() int64 { return max(int64(r.Per)/int64(r.Count), 1) }
