package certs

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/proxy/certs/storage"
)

// maxSeries bounds the names in the metrics; those that expire first are shown.
const maxSeries = 1000

// metrics is the counters, and a collector that reads expiry and the storage's state from the view in force.
type metrics struct {
	keeper   *Keeper
	expiry   *prometheus.Desc
	overdue  *prometheus.Desc
	reloaded prometheus.Counter
	rejected prometheus.Counter
	orders   *orderMetrics
}

// orderMetrics are those of what popgate obtains.
type orderMetrics struct {
	orders    *prometheus.CounterVec
	inFlight  prometheus.Gauge
	waiting   prometheus.Gauge
	refused   *prometheus.CounterVec
	impatient prometheus.Counter
}

func newOrderMetrics() *orderMetrics {
	return &orderMetrics{
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "popgate_certificate_orders_total",
			Help: "Orders of certificates by issuer and result: issued (the first for its name), renewed or failed.",
		}, []string{"issuer", "result"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "popgate_certificate_orders_in_flight", Help: "Orders at work at the issuers.",
		}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "popgate_certificate_orders_waiting", Help: "Names whose order waits for its turn.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "popgate_certificate_names_refused_total",
			Help: "Names clients asked for that were not ordered: queue (max_waiting), network (per_network), domain (per_domain), " +
				"address (it leads elsewhere), caa, unknown.",
		}, []string{"reason"}),
		impatient: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "popgate_certificate_waits_refused_total",
			Help: "Handshakes that did not wait for a certificate on its way, because too many did.",
		}),
	}
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
		overdue: prometheus.NewDesc("popgate_certificates_overdue",
			"Certificates that should have been renewed: two thirds of their life are over, or the time that their issuer gave for it.", nil, nil),
		orders:   newOrderMetrics(),
		reloaded: reloads.WithLabelValues("ok"),
		rejected: reloads.WithLabelValues("error"),
	}
	if reg != nil {
		reg.MustRegister(reloads, m, m.orders.orders, m.orders.inFlight, m.orders.waiting, m.orders.refused, m.orders.impatient)
	}
	return m
}

// Describe sends the descriptions of what Collect sends (prometheus.Collector).
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.expiry
	ch <- m.overdue
	storage.Describe(ch)
}

// Collect sends when the certificates in force expire, how many should have been renewed, and how the storage is (prometheus.Collector).
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	v := m.keeper.view.Load()
	if v != nil && v.depot != nil {
		v.depot.store.Collect(ch)
	}
	if v == nil || v.onlyLocal() {
		return
	}
	infos := append(v.Certificates(), m.keeper.acme.infos()...)
	// Earliest first, so that of several certificates of one name, and of too many names, the urgent ones show.
	slices.SortStableFunc(infos, func(a, b Info) int { return a.NotAfter.Compare(b.NotAfter) })
	seen := make(map[string]bool)
	late, now := 0, time.Now()
	for _, info := range infos {
		if info.overdue(now) {
			late++
		}
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
	ch <- prometheus.MustNewConstMetric(m.overdue, prometheus.GaugeValue, float64(late))
}
