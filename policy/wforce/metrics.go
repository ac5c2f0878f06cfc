package wforce

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A result is how a call ended.
type result string

const (
	resultOK     result = "ok"
	resultSilent result = "silent" // no answer came
	resultBad    result = "bad"    // one came that is none
	resultSpared result = "spared" // the server is down, and was not asked
)

// complainEvery is how often the log speaks of one thing that others can have happen again and again.
const complainEvery = 10 * time.Second

// complaints are of one such thing.
type complaints struct{ said atomic.Int64 } // when the log last spoke of it, in Unix nanoseconds

// may is true once a while.
func (c *complaints) may() bool {
	now, said := time.Now().UnixNano(), c.said.Load()
	return now-said >= int64(complainEvery) && c.said.CompareAndSwap(said, now)
}

// metrics are what the asking side tells of itself.
type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	lost    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, queued func() int, up func() bool) *metrics {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "popgate_wforce_calls_total", Help: "Calls of weakforced, by command and how they ended.",
		}, []string{"command", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "popgate_wforce_call_seconds", Help: "Time that calls of weakforced took.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"command"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "popgate_wforce_reports_lost_total", Help: "Reports that weakforced did not take.",
		}),
	}
	for _, command := range []string{commandAllow, commandReport} {
		m.seconds.WithLabelValues(command) // there from the start, as 0
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.calls, m.seconds, m.lost,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "popgate_wforce_reports_queued", Help: "Reports that wait to be sent to weakforced.",
		}, func() float64 { return float64(queued()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "popgate_wforce_up", Help: "0 while weakforced does not answer, else 1.",
		}, func() float64 {
			if up() {
				return 1
			}
			return 0
		}))
	return m
}

// call counts a call; one that was spared took no time.
func (m *metrics) call(command string, r result, took time.Duration) {
	m.calls.WithLabelValues(command, string(r)).Inc()
	if r != resultSpared {
		m.seconds.WithLabelValues(command).Observe(took.Seconds())
	}
}
