package wforce

import (
	"sync"
	"time"
)

const (
	// downAfter is how many questions in a row go without an answer until the server counts as down.
	downAfter = 3
	// probeEvery is how often a server that is down is asked all the same. All other logins do not wait for it.
	probeEvery = time.Second
)

// health knows whether the server answers, so that not every login waits for one that does not. What it answers is of no
// weight here: else a stranger whose name makes a server complain could have it taken for down.
type health struct {
	mu    sync.Mutex
	row   int   // failures since the last answer
	cause error // of the last of them
	probe time.Time
}

// ask says whether to ask at all; an error is why not.
func (h *health) ask(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.row < downAfter {
		return nil
	}
	if now.Before(h.probe) {
		return h.cause
	}
	h.probe = now.Add(probeEvery)
	return nil
}

// answered says that there was an answer; true if there was none before.
func (h *health) answered() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	down := h.row >= downAfter
	h.row, h.cause = 0, nil
	return down
}

// silent says that there was none; true if that makes the server one that is down.
func (h *health) silent(cause error, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.row++
	h.cause = cause
	if h.row != downAfter {
		return false
	}
	h.probe = now.Add(probeEvery)
	return true
}

// trouble is why the server counts as down; nil when it does not.
func (h *health) trouble() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.row < downAfter {
		return nil
	}
	return h.cause
}
