package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/policy/cluster"
)

// health is what is said of how this node stands to Redis.
type health struct {
	mu    sync.Mutex
	mode  mode
	since time.Time // when the nodes ceased to count together; zero while they do
	why   error
	first bool // they have not yet
}

func (h *health) begin() {
	h.since, h.first, h.why = time.Now(), true, errors.New("redis has not been reached yet")
}

// trouble is nil while all is well.
func (h *health) trouble(spread string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mode == together {
		return nil
	}
	text := "each node grants the whole of the limits by itself"
	if spread == cluster.SpreadEven {
		text = "each node grants its part of the limits by itself"
	}
	return fmt.Errorf("limits have not been shared with the other nodes since %s, %s: %w", h.since.UTC().Format(time.RFC3339), text, h.why)
}

// turn takes note of a mode, and logs one line when the nodes cease to count together and one when they do again.
func (h *health) turn(m mode, why error, s *Shared) {
	h.mu.Lock()
	defer h.mu.Unlock()
	former := h.mode
	h.mode = m
	if why != nil {
		h.why = why
	}
	switch {
	case m == together:
		if h.first {
			s.log.Info("limits are shared with the other nodes", "nodes", s.nodes.Alive())
		} else if !h.since.IsZero() {
			s.log.Info("limits are shared with the other nodes again", "after", time.Since(h.since).Round(time.Millisecond), "nodes", s.nodes.Alive())
		}
		h.since, h.first, h.why = time.Time{}, false, nil
	case former == together:
		h.since = time.Now()
		if errors.Is(why, context.Canceled) {
			return // it ends
		}
		s.log.Warn("limits are no longer shared with the other nodes; this one decides alone", "spread", s.config.Spread, "error", why)
	}
}

func (h *health) is(m mode) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mode == m
}

// sharedMetrics are what a Shared tells of itself.
type sharedMetrics struct {
	local, redis, told, alone prometheus.Counter
	resyncs                   prometheus.Counter
	roundTrip                 prometheus.Histogram
}

// newSharedMetrics registers them with reg, unless it is nil.
func newSharedMetrics(reg prometheus.Registerer, s *Shared) *sharedMetrics {
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "popgate_cluster_decisions_total",
		Help: "Decisions about limits, by where they were made.",
	}, []string{"by"})
	m := &sharedMetrics{
		local: decisions.WithLabelValues("local_refusal"),
		redis: decisions.WithLabelValues("redis"),
		told:  decisions.WithLabelValues("told"),
		alone: decisions.WithLabelValues("alone"),
		resyncs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "popgate_cluster_resyncs_total",
			Help: "How often this node's counts were written to Redis anew: at the start, after an outage, and after Redis had lost them.",
		}),
		roundTrip: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "popgate_cluster_round_trip_seconds",
			Help:    "How long calls of Redis for decisions took, each for all that waited.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .25, 1},
		}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(decisions, m.resyncs, m.roundTrip, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "popgate_cluster_nodes",
		Help: "Nodes alive when Redis last said so, this one included.",
	}, func() float64 { return float64(s.nodes.Alive()) }))
	for state, m := range map[string]mode{"away": away, "merging": merging, "slow": slow, "together": together} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "popgate_cluster_state",
			Help:        "1 for how this node stands to Redis now.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 {
			if s.health.is(m) {
				return 1
			}
			return 0
		}))
	}
	return m
}
