package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/backend"
)

// serveStatus serves a status on a socket and returns a client of it.
func serveStatus(t *testing.T, from StatusSources) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "popgate.sock")
	ln := listenAt(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, SocketHandler(ServeStatus(from)), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	client, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// measured is a registry with metrics as a gateway has them.
func measured() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	count := func(name string, labels []string, n float64, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
		reg.MustRegister(c)
		c.WithLabelValues(values...).Add(n)
		return c
	}
	logins := count("popgate_logins_total", []string{"outcome", "backend"}, 5, "accepted", "old")
	logins.WithLabelValues("accepted", "new").Add(2)
	logins.WithLabelValues("wrong_password", "old").Add(3)
	count("popgate_connections_refused_total", []string{"listener", "reason"}, 4, "pop3s", "rate_limited")
	shakes := count("popgate_tls_handshakes_total", []string{"version", "group", "resumed"}, 6, "TLS 1.3", "X25519", "false")
	shakes.WithLabelValues("TLS 1.3", "X25519", "true").Add(7)
	count("popgate_tls_handshake_failures_total", []string{"listener", "cause"}, 1, "pop3s", "alert")
	count("popgate_client_bytes_total", []string{"direction"}, 100, "in").WithLabelValues("out").Add(2000)
	count("popgate_other_total", nil, 1)
	took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "popgate_login_seconds", Buckets: []float64{1, 2}})
	at := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "popgate_backend_login_seconds", Buckets: []float64{1, 2}}, []string{"backend", "server"})
	reg.MustRegister(took, at)
	for _, s := range []float64{0.5, 1.5, 1.6, 3} {
		took.Observe(s)
		at.WithLabelValues("old", "192.0.2.1:110").Observe(s)
	}
	at.WithLabelValues("old", "directory").Observe(0.5)
	return reg
}

func TestStatus(t *testing.T) {
	now := time.Now()
	locked := []lockout.Lockout{
		{Network: netip.MustParsePrefix("192.0.2.7/32"), Until: now.Add(time.Hour).UTC().Truncate(time.Second), Cause: lockout.Manual},
		{Network: netip.MustParsePrefix("192.0.2.8/32"), Until: now.Add(2 * time.Hour).UTC().Truncate(time.Second), Cause: lockout.ManyUsers},
	}
	info := proxy.Info{Started: now.UTC(), LoggedIn: 3, Listeners: []proxy.Share{{Name: "pop3s", Sessions: 3}}}
	client := serveStatus(t, StatusSources{
		Node: "gw1", Version: "v1", Metrics: measured(),
		Sessions: func(top int) proxy.Info {
			if top != statusTop {
				t.Errorf("asked for the top %d", top)
			}
			return info
		},
		Backends: &fakeBackends{list: []backend.Status{{Name: "old", Servers: []backend.ServerStatus{
			{Address: "192.0.2.1:110", State: "up", Sessions: 2, MaxSessions: 9, Queued: 1},
			{Address: "192.0.2.2:110", State: "up", Directory: true}, {Address: "192.0.2.3:110", State: "down", Directory: true},
		}}}},
		Ready:    func() (bool, []string) { return true, []string{"backend old: one server is down"} },
		Lockouts: func() []lockout.Lockout { return locked },
		Cluster:  func() *ClusterState { return &ClusterState{Nodes: []string{"gw1", "gw2"}} },
	})
	got, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Time.Before(now) || got.Time.After(time.Now()) {
		t.Errorf("it is of %v", got.Time)
	}
	times := func(counts ...uint64) Times { return Times{Bounds: []float64{1, 2}, Counts: counts} }
	want := &Status{
		Time: got.Time, Node: "gw1", Version: "v1", Ready: true, Notes: []string{"backend old: one server is down"}, Sessions: info,
		Totals: Totals{
			Logins:       map[string]uint64{"accepted": 7, "wrong_password": 3},
			LoginSeconds: times(1, 2, 1), Refused: map[string]uint64{"rate_limited": 4},
			Handshakes: 13, Resumed: 7, HandshakeFailures: map[string]uint64{"alert": 1}, BytesIn: 100, BytesOut: 2000,
		},
		Servers: []ServerStatus{
			{Backend: "old", Server: "192.0.2.1:110", State: "up", Sessions: 2, MaxSessions: 9, Queued: 1, LoginSeconds: times(1, 2, 1)},
			{Backend: "old", Server: "192.0.2.2:110", State: "up", Directory: true, LoginSeconds: times(1, 0, 0)},
			{Backend: "old", Server: "192.0.2.3:110", State: "down", Directory: true},
		},
		Lockouts: LockoutStatus{InForce: 2, Newest: []lockout.Lockout{locked[1], locked[0]}},
		Cluster:  &ClusterState{Nodes: []string{"gw1", "gw2"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

// TestStatusBounded holds that no number of lockouts and of a directory's servers makes the answer large.
func TestStatusBounded(t *testing.T) {
	many := backend.Status{Name: "old", Servers: make([]backend.ServerStatus, 10*statusServers)}
	for i := range many.Servers {
		many.Servers[i].Directory = true
	}
	from := StatusSources{
		Backends: &fakeBackends{list: []backend.Status{many, {Name: "new", Servers: make([]backend.ServerStatus, 2)}}},
		Lockouts: func() []lockout.Lockout { return make([]lockout.Lockout, 1000) },
	}
	s, err := from.status()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Servers) != statusServers+2 || len(s.Lockouts.Newest) != statusTop || s.Lockouts.InForce != 1000 {
		t.Errorf("got %d servers and %d of %d lockouts", len(s.Servers), len(s.Lockouts.Newest), s.Lockouts.InForce)
	}
}

// TestStatusShared holds that those who ask at once get one answer, and who comes later a new one.
func TestStatusShared(t *testing.T) {
	asked := 0
	client := serveStatus(t, StatusSources{Sessions: func(int) proxy.Info {
		asked++
		return proxy.Info{}
	}})
	first, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(time.Minute); ; {
		s, err := client.Status(t.Context())
		switch {
		case err != nil:
			t.Fatal(err)
		case time.Now().After(late):
			t.Fatal("it is the same answer for ever")
		case s.Time.Equal(first.Time):
			continue
		}
		if since := s.Time.Sub(first.Time); since < statusFreshFor || asked != 2 {
			t.Errorf("asked %d times, for answers that are %s apart", asked, since)
		}
		return
	}
}

func TestStatusSaysWhy(t *testing.T) {
	client := serveStatus(t, StatusSources{Metrics: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return nil, errors.New("collected metric twice")
	})})
	if _, err := client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "gather metrics: collected metric twice") {
		t.Errorf("got %v, want why", err)
	}
}
