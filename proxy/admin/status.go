package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/proxy"
)

// StatusSources are what a Status is made of. Those that are nil are left out of it.
type StatusSources struct {
	Node    string
	Version string
	// Sessions is proxy.Gateway's Info.
	Sessions func(top int) proxy.Info
	Backends Backends
	// Metrics has the counters; those of other names than Status knows are passed over.
	Metrics prometheus.Gatherer
	Ready   Ready
	// Lockouts are those in force, the oldest first, as lockout.Keeper has them.
	Lockouts func() []lockout.Lockout
	// Cluster is nil, or says nil, on a node that stands alone.
	Cluster func() *ClusterState
}

// Status is how a gateway does, as JSON. What is below Totals only grows from the gateway's start on, so that two answers
// give a rate; Sessions.Started tells whether both are of one life. All else is as it is now.
type Status struct {
	Time    time.Time `json:"time"`
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Ready   bool      `json:"ready"`
	// Notes are what /readyz notes.
	Notes []string `json:"notes"`

	Sessions proxy.Info     `json:"sessions"`
	Totals   Totals         `json:"totals"`
	Servers  []ServerStatus `json:"servers"`
	Lockouts LockoutStatus  `json:"lockouts"`
	Cluster  *ClusterState  `json:"cluster,omitempty"`
}

// Totals are counts since the gateway's start.
type Totals struct {
	// Logins are by outcome: accepted, or the reason in the audit.
	Logins map[string]uint64 `json:"logins"`
	// LoginSeconds are the times from credentials to the decision, of all logins.
	LoginSeconds Times `json:"login_seconds"`
	// Refused are connections closed before they were sessions, by reason.
	Refused map[string]uint64 `json:"refused"`
	// Handshakes have succeeded, Resumed are those of them that needed no certificate.
	Handshakes        uint64            `json:"handshakes"`
	Resumed           uint64            `json:"handshakes_resumed"`
	HandshakeFailures map[string]uint64 `json:"handshake_failures"`
	// BytesIn came from clients after login, BytesOut went to them.
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
}

// Times are a histogram of what took how long.
type Times struct {
	// Bounds are in seconds, and rise.
	Bounds []float64 `json:"bounds,omitempty"`
	// Counts are those up to the bound of the same index and above the one before; the last is of those above all bounds.
	Counts []uint64 `json:"counts,omitempty"`
}

// ServerStatus is a server of a backend. Its Drained says that it gets no new logins.
type ServerStatus struct {
	Backend     string `json:"backend"`
	Server      string `json:"server"`
	Directory   bool   `json:"directory,omitempty"`
	State       string `json:"state"`
	Drained     bool   `json:"drained,omitempty"`
	Sessions    int    `json:"sessions"`
	MaxSessions int    `json:"max_sessions,omitempty"`
	Queued      int    `json:"queued"`
	// LoginSeconds are the times of logins that the server has accepted, a total as those in Totals. All servers of a
	// backend that directories have named have theirs in common, and so in the first of them alone.
	LoginSeconds Times `json:"login_seconds,omitzero"`
}

// LockoutStatus is what is locked out.
type LockoutStatus struct {
	InForce int `json:"in_force"`
	// Newest are some of them, the newest first.
	Newest []lockout.Lockout `json:"newest"`
}

// ClusterState is what a node sees of the others.
type ClusterState struct {
	// Trouble is why it decides alone, "" as long as it need not.
	Trouble string   `json:"trouble,omitempty"`
	Nodes   []string `json:"nodes"`
}

const (
	statusTop      = 20  // of networks, users, tenants and lockouts
	statusServers  = 200 // directories may name any number
	statusFreshFor = 500 * time.Millisecond
)

// ServeStatus is the resource /v1/status. An answer is kept for half a second, so that many who look are as cheap as one.
func ServeStatus(from StatusSources) Resource {
	var (
		mu   sync.Mutex
		last *Status
	)
	return func(mux *http.ServeMux) {
		mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			if last == nil || time.Since(last.Time) > statusFreshFor {
				s, err := from.status()
				if err != nil {
					mu.Unlock()
					refuse(w, http.StatusInternalServerError, fmt.Errorf("gather metrics: %w", err))
					return
				}
				last = s
			}
			s := last
			mu.Unlock() // it is not changed any more, and a client may be slow
			answer(w, s)
		})
	}
}

// Status gives the state of the gateway.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	if err := c.call(ctx, http.MethodGet, "/v1/status", &s); err != nil {
		return nil, err
	}
	return &s, nil
}

func (from *StatusSources) status() (*Status, error) {
	s := &Status{
		Time: time.Now(), Node: from.Node, Version: from.Version, Notes: []string{},
		Servers: []ServerStatus{}, Lockouts: LockoutStatus{Newest: []lockout.Lockout{}},
	}
	if from.Sessions != nil {
		s.Sessions = from.Sessions(statusTop)
	}
	if from.Ready != nil {
		var notes []string
		s.Ready, notes = from.Ready()
		s.Notes = append(s.Notes, notes...)
	}
	var took map[serverName]Times
	if from.Metrics != nil {
		families, err := from.Metrics.Gather()
		if err != nil {
			return nil, err
		}
		took = s.Totals.gather(families)
	}
	if from.Backends != nil {
		s.Servers = servers(from.Backends, took)
	}
	if from.Lockouts != nil {
		all := from.Lockouts()
		s.Lockouts.InForce = len(all)
		s.Lockouts.Newest = append(s.Lockouts.Newest, all[max(0, len(all)-statusTop):]...)
		slices.Reverse(s.Lockouts.Newest)
	}
	if from.Cluster != nil {
		s.Cluster = from.Cluster()
	}
	return s, nil
}

// serverName is a server as metrics name it.
type serverName struct{ backend, server string }

// servers are those of all backends. Of very many that directories have named, those used last are there.
func servers(b Backends, took map[serverName]Times) []ServerStatus {
	all := []ServerStatus{}
	for _, backend := range b.Status() {
		named := false
		for _, one := range backend.Servers {
			if one.Directory && len(all) >= statusServers {
				break
			}
			s := ServerStatus{
				Backend: backend.Name, Server: one.Address, Directory: one.Directory, State: one.State, Drained: one.Drained,
				Sessions: one.Sessions, MaxSessions: one.MaxSessions, Queued: one.Queued,
			}
			switch {
			case !one.Directory:
				s.LoginSeconds = took[serverName{backend.Name, one.Address}]
			case !named:
				s.LoginSeconds = took[serverName{backend.Name, "directory"}]
				named = true
			}
			all = append(all, s)
		}
	}
	return all
}
