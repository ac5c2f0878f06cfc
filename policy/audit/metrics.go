package audit

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the audit tells of itself.
type metrics struct {
	records  *prometheus.CounterVec
	failures prometheus.Counter
	dovecot  prometheus.Counter
}

// newMetrics registers them with reg, unless it is nil. depth is the number of records that wait.
func newMetrics(reg prometheus.Registerer, depth func() int) *metrics {
	m := &metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "popgate_audit_records_total",
			Help: "Audit records written, by event.",
		}, []string{"event"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "popgate_audit_failures_total",
			Help: "Audit records that could not be written.",
		}),
		dovecot: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "popgate_audit_dovecot_lost_total",
			Help: "Failed logins that could not be written to audit.dovecot_log.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.records, m.failures, m.dovecot, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "popgate_audit_queue_records",
			Help: "Audit records that wait to be written.",
		}, func() float64 { return float64(depth()) }))
	}
	return m
}

func (m *metrics) record(n Name) { m.records.WithLabelValues(string(n)).Inc() }
