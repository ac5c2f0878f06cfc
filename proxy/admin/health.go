package admin

import (
	"fmt"
	"net/http"
)

// healthz says that the process lives. It asks nothing of anybody: a gateway whose backends are down must not be
// restarted for it.
func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, "ok") // the client may have left
}

// readyHandler says whether clients should be sent here: 200 or 503, and what is wrong, a line each.
func readyHandler(ready Ready) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		ok, notes := ready()
		word := "ready"
		if !ok {
			word = "not ready"
			w.WriteHeader(http.StatusServiceUnavailable)
		} else if len(notes) > 0 {
			word = "ready, degraded"
		}
		_, _ = fmt.Fprintln(w, word) // the client may have left
		for _, n := range notes {
			_, _ = fmt.Fprintln(w, n)
		}
	})
}
