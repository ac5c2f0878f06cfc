package backend

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// A result is how opening a connection to a server ended.
type result int

const (
	resultOK result = iota
	resultConnect
	resultTimeout
	resultTLS
	resultGreeting
	resultLocal
	results
)

var resultNames = [results]string{"ok", "connect", "timeout", "tls", "greeting", "local"}

// counts are one server's. They are read when metrics are: a server that leaves the configuration takes its series
// along.
type counts struct {
	connects [results]atomic.Uint64
	checked  atomic.Uint64
	failed   atomic.Uint64
	noClient atomic.Uint64 // logins that could not say who the client is, the greeting not offering XCLIENT
}

var (
	upDesc = prometheus.NewDesc("popgate_backend_up",
		"Whether the server is believed alive.", []string{"backend", "server"}, nil)
	connectsDesc = prometheus.NewDesc("popgate_backend_connects_total",
		"Connections opened to the server, up to its greeting, by how that ended.",
		[]string{"backend", "server", "result"}, nil)
	checksDesc = prometheus.NewDesc("popgate_backend_checks_total",
		"Checks of the server made in the background, by whether it answered.",
		[]string{"backend", "server", "result"}, nil)
	noClientDesc = prometheus.NewDesc("popgate_backend_client_unknown_total",
		"Logins in which the server could not be told who the client is, because it does not offer XCLIENT.",
		[]string{"backend", "server"}, nil)
)

// A collector shows the state of the servers in use.
type collector struct{ b *Backends }

// Describe names all that Collect gives.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, connectsDesc, checksDesc, noClientDesc} {
		ch <- d
	}
}

// Collect reads the state of the servers as it is now.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.b.view.Load().list {
		for _, m := range p.members {
			m.server.collect(ch, p.config.ClientInfo == ClientXClient)
		}
	}
	c.b.guests.collect(ch, c.b.view.Load())
}

// collect shows what a directory's servers have in common, a backend at a time.
func (g *guests) collect(ch chan<- prometheus.Metric, v *View) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, n := range g.counts {
		if p := v.pools[name]; p != nil {
			n.collect(ch, name, labelDirectory, p.config.ClientInfo == ClientXClient)
		}
	}
}

func (s *server) collect(ch chan<- prometheus.Metric, xclient bool) {
	up := 0.0
	if s.up() {
		up = 1
	}
	ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up, s.backend, s.address)
	s.counts.collect(ch, s.backend, s.address, xclient)
}

func (n *counts) collect(ch chan<- prometheus.Metric, backend, server string, xclient bool) {
	count := func(d *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		labels = append([]string{backend, server}, labels...)
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	for i := range n.connects {
		count(connectsDesc, &n.connects[i], resultNames[i])
	}
	count(checksDesc, &n.checked, "ok")
	count(checksDesc, &n.failed, "failed")
	if xclient {
		count(noClientDesc, &n.noClient)
	}
}
