package lockout

import "time"

// hour is the window of a known-good pair's budget.
const hour = int64(time.Hour)

// A tally counts failures from the first of them on, until their window ends. Times are nanoseconds of Keeper.now.
type tally struct {
	first   int64
	failed  uint16
	flying  uint16 // logins on their way that have been counted for fear that they fail
	pending uint32 // of the secret that the last of these came with
	marks   int64  // until when there are wrong secrets to be known again; not kept by the window
}

// roll forgets what is older than the window.
func (t *tally) roll(now, window int64) {
	if now-t.first >= window {
		t.first, t.failed = now, 0
		t.flying = 0 // those that took longer than the window to end are ended by land, which bears it
	}
}

// full says whether there are so many failures that one more login is too many; 0 is no bound.
func (t *tally) full(most int) bool {
	return most > 0 && int(t.failed)+int(t.flying) >= most
}

// begun says whether a login with this secret is on its way, and the last that began: one user's many devices may all come
// at once.
func (t *tally) begun(secret Key) bool {
	return secret != 0 && t.flying > 0 && t.pending == uint32(secret)
}

// lift counts a login that begins.
func (t *tally) lift(secret Key) {
	t.pending = uint32(secret)
	if t.flying < maxCount {
		t.flying++
	}
}

// land counts the end of one.
func (t *tally) land() {
	if t.flying > 0 {
		t.flying--
	}
}

func (t *tally) fail() {
	if t.failed < maxCount {
		t.failed++
	}
}

// known is what is kept of a known-good pair.
type known struct {
	success int64 // when it last logged in
	tally         // of this hour
}

// netTally is what is kept of a client network.
type netTally struct {
	tally
	users  uint16 // that failed since sprays, each once
	told   bool   // that this is a spray
	sprays int64
}

// spray is what is kept of a secret that was wrong.
type spray struct {
	first int64
	users uint16 // each once
	told  bool
}
