package admin

import (
	"encoding/json"
	"net/http"
)

// A Resource is one thing that can be asked about or changed on the socket.
type Resource func(mux *http.ServeMux)

// SocketHandler answers what is asked on the socket.
func SocketHandler(resources ...Resource) http.Handler {
	mux := http.NewServeMux()
	for _, r := range resources {
		r(mux)
	}
	return mux
}

// failure is what a refused request gets as JSON.
type failure struct {
	Error string `json:"error"`
}

// answer sends v as JSON. Some of it may be secret, so nothing may keep it.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Cache-Control", "no-store")
	send(w, http.StatusOK, v)
}

// refuse says why there is no answer.
func refuse(w http.ResponseWriter, code int, err error) { send(w, code, failure{Error: err.Error()}) }

func send(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // the client may have left
}
