package access

import "github.com/prometheus/client_golang/prometheus"

// metrics are what the rules tell of themselves.
type metrics struct {
	verdicts *prometheus.CounterVec
	lookups  *prometheus.CounterVec
}

var (
	entriesDesc = prometheus.NewDesc("popgate_access_list_entries",
		"Ranges of addresses on a list of networks; neighbours are one.", []string{"list"}, nil)
	failingDesc = prometheus.NewDesc("popgate_access_files_failing",
		"Files of lists, accounts, countries and operators whose newest state could not be taken.", nil, nil)
	upDesc = prometheus.NewDesc("popgate_access_blocklist_up",
		"Whether a DNS blocklist answers.", []string{"blocklist"}, nil)
)

// newMetrics registers them with reg, unless it is nil.
func newMetrics(k *Keeper, reg prometheus.Registerer) *metrics {
	m := &metrics{
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "popgate_access_refused_total",
			Help: "Clients and logins that a rule held something against, by the rule, its action (deny, log) and the reason.",
		}, []string{"rule", "action", "reason"}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "popgate_access_blocklist_lookups_total",
			Help: "Questions to DNS blocklists, by what came of them.",
		}, []string{"blocklist", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.verdicts, m.lookups, collector{k})
	}
	return m
}

// A collector shows what is in use now.
type collector struct{ k *Keeper }

// Describe names the metrics.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- entriesDesc
	ch <- failingDesc
	ch <- upDesc
}

// Collect reads them.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	r := c.k.rules.Load()
	if r == nil {
		return
	}
	for _, l := range r.lists {
		n := l.inline.size()
		for _, f := range l.files {
			n += f.entries()
		}
		ch <- prometheus.MustNewConstMetric(entriesDesc, prometheus.GaugeValue, float64(n), l.name)
	}
	failing := 0
	for _, f := range r.files {
		if f.failure() != nil {
			failing++
		}
	}
	ch <- prometheus.MustNewConstMetric(failingDesc, prometheus.GaugeValue, float64(failing))
	for name, b := range r.blocklists {
		up := 1.0
		if b.failure() != nil {
			up = 0
		}
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up, name)
	}
}
