package directory

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A result is how a lookup at a source ended.
type result int

const (
	resultFound   result = iota
	resultUnknown        // the source does not know the user
	resultRefused        // the source refused the password
	resultFailed         // the source could not answer
	resultBad            // it answered what cannot be followed
	results
)

var resultNames = [results]string{"found", "unknown", "refused", "failed", "bad"}

// A use is what the cache could do for a login.
type use int

const (
	cacheHit      use = iota
	cacheNegative     // the user was remembered as unknown
	cacheStale        // the answer's time was over, and the source could not give another
	cacheShared       // another login asked the same already
	cacheMiss         // the source had to be asked
	uses
)

var useNames = [uses]string{"hit", "negative", "stale", "shared", "miss"}

// stats are one directory's counts. They are read when metrics are: a directory that leaves the configuration takes its series
// along.
type stats struct {
	lookups [results]atomic.Uint64
	uses    [uses]atomic.Uint64
	seconds prometheus.Observer
}

func newSeconds() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "popgate_directory_lookup_seconds", Help: "Time that lookups took the source itself, the wait for their turn left out.",
		Buckets: []float64{.0001, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"directory"})
}

func (s *stats) add(u use) { s.uses[u].Add(1) }

// asked counts a lookup at the source; one that never came to it took no time.
func (s *stats) asked(r result, took time.Duration) {
	s.lookups[r].Add(1)
	if took > 0 {
		s.seconds.Observe(took.Seconds())
	}
}

var (
	upDesc = prometheus.NewDesc("popgate_directory_up",
		"Whether the last lookup at the directory's source was answered.", []string{"directory"}, nil)
	lookupsDesc = prometheus.NewDesc("popgate_directory_lookups_total",
		"Lookups at the directory's source, by how they ended.", []string{"directory", "result"}, nil)
	usesDesc = prometheus.NewDesc("popgate_directory_cache_total",
		"Logins that asked the directory's cache, by what it had.", []string{"directory", "result"}, nil)
)

// A collector shows the directories in use.
type collector struct{ k *Keeper }

// Describe names all that Collect gives.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, lookupsDesc, usesDesc} {
		ch <- d
	}
}

// Collect reads the counts as they are now.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	v := c.k.view.Load()
	if v == nil {
		return
	}
	for _, d := range v.list {
		up := 1.0
		if d.asker.health.failing() {
			up = 0
		}
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up, d.Name)
		for i := range d.stats.lookups {
			ch <- prometheus.MustNewConstMetric(lookupsDesc, prometheus.CounterValue, float64(d.stats.lookups[i].Load()), d.Name, resultNames[i])
		}
		if !d.asker.source.Memory {
			for i := range d.stats.uses {
				ch <- prometheus.MustNewConstMetric(usesDesc, prometheus.CounterValue, float64(d.stats.uses[i].Load()), d.Name, useNames[i])
			}
		}
	}
}
