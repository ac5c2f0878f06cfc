package lockout

import "github.com/prometheus/client_golang/prometheus"

// metrics are what a Keeper tells of itself.
type metrics struct {
	refusals, started, sprays              *prometheus.CounterVec
	lockedOut, knownGood, inFlight, delays prometheus.Counter
	unread                                 prometheus.Counter
}

// newMetrics registers them with reg, unless it is nil.
func newMetrics(reg prometheus.Registerer, k *Keeper) *metrics {
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		refusals: counter("popgate_lockout_refusals_total", "Logins answered as wrong without asking anybody, by why.", "why"),
		started:  counter("popgate_lockouts_started_total", "Lockouts begun, by cause.", "cause"),
		sprays:   counter("popgate_lockout_sprays_total", "Password sprays detected, by cause.", "cause"),
		delays: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "popgate_lockout_delays_total",
			Help: "Logins delayed for the failures before them.",
		}),
		unread: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "popgate_lockout_unread_total",
			Help: "Messages of other nodes that this one does not understand.",
		}),
	}
	m.lockedOut = m.refusals.WithLabelValues("locked_out")
	m.knownGood = m.refusals.WithLabelValues("known_good_budget")
	m.inFlight = m.refusals.WithLabelValues("in_flight")
	if reg == nil {
		return m
	}
	reg.MustRegister(m.refusals, m.started, m.sprays, m.delays, m.unread)
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "popgate_lockouts",
		Help: "Lockouts in force.",
	}, func() float64 { return float64(max(k.active.Load(), 0)) }))
	for name, size := range map[string]func() int{
		"known_good": k.known.len, "user": k.pairs.len, "network": k.networks.len, "secret": k.secrets.len,
	} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "popgate_lockout_keys",
			Help:        "What is remembered, by kind.",
			ConstLabels: prometheus.Labels{"kind": name},
		}, func() float64 { return float64(size()) }))
	}
	return m
}

func (m *metrics) event(e Event) {
	switch e.Kind {
	case Started:
		m.started.WithLabelValues(string(e.Cause)).Inc()
	case SprayDetected:
		m.sprays.WithLabelValues(string(e.Cause)).Inc()
	}
}
