package policy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/policy/limit"
)

// metrics are what a Keeper tells of itself; its parts tell of theirs.
type metrics struct {
	limits *prometheus.CounterVec
}

// newMetrics registers them with reg, unless it is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{limits: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "popgate_limit_refusals_total",
		Help: "Clients and logins that a limit refused, by the limit's key in the configuration.",
	}, []string{"limit"})}
	if reg != nil {
		reg.MustRegister(m.limits)
	}
	return m
}

// refused counts a refusal by the limit of an Ask's tag, and makes its error.
func (m *metrics) refused(tag uint8) error {
	w := limit.Of(tag)
	m.limits.WithLabelValues(w.String()).Inc()
	return &LimitError{w}
}
