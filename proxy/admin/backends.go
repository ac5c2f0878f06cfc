package admin

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/popgate/popgate/proxy/backend"
)

// Backends are the gateway's, as backend.Backends has them.
type Backends interface {
	Status() []backend.Status
	Drain(name string, drained bool) error
}

// Backend is a backend's state as JSON.
type Backend struct {
	Name    string   `json:"name"`
	Balance string   `json:"balance"`
	Drained bool     `json:"drained"`
	Servers []Server `json:"servers"`
}

// Server is a server's state as JSON.
type Server struct {
	Address         string       `json:"address"`
	Weight          int          `json:"weight"`
	Directory       bool         `json:"directory,omitempty"`
	Up              bool         `json:"up"`
	Drained         bool         `json:"drained"`
	State           string       `json:"state"`
	Sessions        int          `json:"sessions"`
	MaxSessions     int          `json:"max_sessions,omitempty"`
	Queued          int          `json:"queued"`
	LoginsPerSecond int          `json:"logins_per_second,omitempty"`
	AheadMS         int64        `json:"ahead_ms"`
	LastError       string       `json:"last_error,omitempty"`
	LastErrorAt     time.Time    `json:"last_error_at,omitzero"`
	Addresses       []netip.Addr `json:"addresses,omitempty"`
	LookupError     string       `json:"lookup_error,omitempty"`
	Capabilities    []string     `json:"capabilities,omitempty"`
	Greeting        string       `json:"greeting,omitempty"`

	Changes []backend.ServerChange `json:"changes,omitempty"`
}

func backendJSON(s *backend.Status) Backend {
	b := Backend{Name: s.Name, Balance: s.Balance, Drained: s.Drained, Servers: make([]Server, 0, len(s.Servers))}
	for _, one := range s.Servers {
		b.Servers = append(b.Servers, Server{
			Address: one.Address, Weight: one.Weight, Directory: one.Directory, Up: one.Up, Drained: one.Drained, State: one.State,
			Sessions: one.Sessions, MaxSessions: one.MaxSessions, Queued: one.Queued,
			LoginsPerSecond: one.LoginsPerSecond, AheadMS: one.Ahead.Milliseconds(),
			LastError: one.LastError, LastErrorAt: one.LastErrorAt, Addresses: one.Addresses, LookupError: one.LookupError,
			Capabilities: one.Capabilities, Greeting: one.Greeting, Changes: one.Changes,
		})
	}
	return b
}

// ServeBackends is the resource below /v1/backends. A name is a backend's, or a server's behind its backend's and a slash.
func ServeBackends(b Backends) Resource {
	return func(mux *http.ServeMux) { backends(mux, b) }
}

func backends(mux *http.ServeMux, b Backends) {
	mux.HandleFunc("GET /v1/backends", func(w http.ResponseWriter, _ *http.Request) {
		list := []Backend{}
		for _, s := range b.Status() {
			list = append(list, backendJSON(&s))
		}
		answer(w, list)
	})
	drain := func(drained bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			err := b.Drain(r.PathValue("name"), drained)
			switch {
			case errors.Is(err, backend.ErrUnknown):
				refuse(w, http.StatusNotFound, err)
			case err != nil:
				refuse(w, http.StatusConflict, err)
			default:
				w.WriteHeader(http.StatusNoContent)
			}
		}
	}
	mux.HandleFunc("POST /v1/backends/{name}/drain", drain(true))
	mux.HandleFunc("POST /v1/backends/{name}/undrain", drain(false))
}

// Backends gives the state of the gateway's backends.
func (c *Client) Backends(ctx context.Context) ([]Backend, error) {
	var list []Backend
	err := c.call(ctx, http.MethodGet, "/v1/backends", &list)
	return list, err
}

// Drain takes a backend, or a server of one ("backend/server"), out of service, or back into it.
func (c *Client) Drain(ctx context.Context, name string, drained bool) error {
	what := "/drain"
	if !drained {
		what = "/undrain"
	}
	return c.call(ctx, http.MethodPost, "/v1/backends/"+url.PathEscape(name)+what, nil)
}
