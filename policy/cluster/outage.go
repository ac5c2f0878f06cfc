package cluster

import (
	"log/slog"
	"sync"
)

// An outage is what those who use one Client cannot do. They find out one after the other, and people want to read it once: the log has
// a line when the first of them fails and one when the last goes on; the others are for those who look closer.
type outage struct {
	mu  sync.Mutex
	out map[string]struct{}
}

// begin logs that what cannot be done any more.
func (o *outage) begin(log *slog.Logger, what string, err error) {
	o.mu.Lock()
	first := len(o.out) == 0
	if first {
		o.out = make(map[string]struct{})
	}
	o.out[what] = struct{}{}
	o.mu.Unlock()
	if first {
		log.Warn("cluster: what nodes know is not shared: each goes by what it knows itself", "first", what, "error", err)
		return
	}
	log.Debug("cluster: this is not shared either", "what", what, "error", err)
}

// end logs that what can be done again.
func (o *outage) end(log *slog.Logger, what string) {
	o.mu.Lock()
	delete(o.out, what)
	last := len(o.out) == 0
	o.mu.Unlock()
	if last {
		log.Info("cluster: what nodes know is shared again", "last", what)
		return
	}
	log.Debug("cluster: this is shared again", "what", what)
}
