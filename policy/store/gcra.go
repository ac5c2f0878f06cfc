package store

import "math/bits"

// maxSpan bounds how far off a kept time can be, so that nothing overflows: 2^53 nanoseconds, 104 days, which is also
// what a script in Redis can reckon with exactly.
const maxSpan = 1 << 53

// span is so many turns of such a length, or maxSpan where that is more.
func span(turn, n int64) int64 {
	if turn <= 0 || n <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(turn), uint64(n))
	if hi != 0 || lo > maxSpan {
		return maxSpan
	}
	return int64(lo)
}

// TakeTurn asks for one turn at the time now. tat is what is kept for the key, the "theoretical arrival time": until
// then its turns are paid for, and at or below now all of them are free, so 0 does for a key not seen before.
// next is to be kept instead of tat, granted or not; asking in vain costs nothing. All times are nanoseconds of one
// monotonic clock. most <= 0 refuses nothing.
func TakeTurn(turn, most, tat, now int64) (next int64, ok bool) {
	full := span(turn, most)
	if most <= 0 {
		full = maxSpan
	}
	// A tat further off than this rate can put it was left by a slower rate, before a reload, or by one that nothing
	// bounds; it must not outlast that one, so what is returned for a refusal is the nearer time.
	tat = min(max(tat, now), now+full)
	if tat+turn-now > full {
		return tat, most <= 0
	}
	return tat + turn, true
}

// GiveTurn returns a turn that TakeTurn granted earlier with the same rate, and says what is to be kept instead of tat.
// paid is what TakeTurn said then. Time may have brought the turn back since, wholly or in part: only the rest of it is
// given, or slow successes would pay for somebody's failures.
func GiveTurn(turn, tat, paid, now int64) (next int64) {
	rest := min(max(paid-now, 0), turn)
	return max(tat-rest, min(tat, now))
}

// SpendTurns pays n turns whatever is left, and says what is to be kept instead of tat, and how long it is until all
// that is paid for has come back but for the burst. What was spent before its time is owed: who spends next waits for it.
func SpendTurns(turn, most, n, tat, now int64) (next, wait int64) {
	next = min(max(tat, now)+span(turn, n), now+maxSpan)
	if most <= 0 {
		return next, 0
	}
	return next, max(next-now-span(turn, most), 0)
}
