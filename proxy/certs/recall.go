package certs

import "time"

// recallSize bounds each half of a recall.
const recallSize = 10_000

// note is what is kept of a name that got no certificate.
type note struct {
	until    time.Time // before this nothing is tried
	failures int
}

// recall is the negative cache: names that got no certificate of late. It holds the newest ones, recallSize at least and
// twice that at most. Its user guards it.
type recall struct {
	young, old map[string]note
}

func newRecall() *recall { return &recall{young: make(map[string]note)} }

func (r *recall) put(name string, n note) {
	if len(r.young) >= recallSize {
		r.young, r.old = make(map[string]note), r.young
	}
	r.young[name] = n
}

// get gives the zero note for a name that is not known.
func (r *recall) get(name string) note {
	if n, ok := r.young[name]; ok {
		return n
	}
	return r.old[name]
}

func (r *recall) drop(name string) {
	delete(r.young, name)
	delete(r.old, name)
}

func (r *recall) len() int { return len(r.young) + len(r.old) }
