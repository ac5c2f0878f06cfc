package certs

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// maxSeries bounds the names in the metrics; those that expire first are shown.
const maxSeries = 1000

// metrics is the counters, and a collector that reads expiry from the view in force.
type metrics struct {
	keeper   *Keeper
	expiry   *prometheus.Desc
	reloaded prometheus.Counter
	rejected prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, k *Keeper) *metrics {
	reloads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "popgate_certificate_reloads_total",
		Help: "Changed certificate files by result: ok (in force) or error (the certificate before stays in force).",
	}, []string{"result"})
	m := &metrics{
		keeper: k,
		expiry: prometheus.NewDesc("popgate_certificate_expiry_timestamp_seconds",
			"When a configured certificate expires, by its first name; the earliest where several share it.", []string{"name"}, nil),
		reloaded: reloads.WithLabelValues("ok"),
		rejected: reloads.WithLabelValues("error"),
	}
	if reg != nil {
		reg.MustRegister(reloads, m)
	}
	return m
}

// Describe sends the description of the expiry metric (prometheus.Collector).
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.expiry }

// Collect sends when the certificates in force expire (prometheus.Collector).
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	v := m.keeper.view.Load()
	if v == nil || v.local != nil {
		return
	}
	infos := v.Certificates()
	// Earliest first, so that of several certificates of one name, and of too many names, the urgent ones show.
	slices.SortStableFunc(infos, func(a, b Info) int { return a.NotAfter.Compare(b.NotAfter) })
	seen := make(map[string]bool)
	for _, info := range infos {
		name := strings.ToValidUTF8(info.File, "?")
		if len(info.Names) > 0 {
			name = info.Names[0]
		}
		if seen[name] || len(seen) == maxSeries {
			continue
		}
		seen[name] = true
		ch <- prometheus.MustNewConstMetric(m.expiry, prometheus.GaugeValue, float64(info.NotAfter.Unix()), name)
	}
}
