package backend

import (
	"slices"
	"sync/atomic"
	"time"

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
	changed  atomic.Uint64 // times that a check saw another server than before
	opened   atomic.Uint64 // times that the breaker opened
	turned   [turns]atomic.Uint64
	waits    atomic.Uint64 // logins that waited in the queue or for their turn, and began
	waitTime atomic.Int64  // all of that, in nanoseconds
	took     times
}

// loginBounds are what the times of logins are told apart by, in seconds: milliseconds when all is well, cut off after a minute.
var loginBounds = [...]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// times are how long logins took.
type times struct {
	upTo [len(loginBounds) + 1]atomic.Uint64 // by the first bound that was not passed
	sum  atomic.Int64                        // in nanoseconds
}

func (t *times) add(d time.Duration) {
	i, _ := slices.BinarySearch(loginBounds[:], d.Seconds())
	t.upTo[i].Add(1)
	t.sum.Add(int64(d))
}

// metric is the histogram of them.
func (t *times) metric(labels ...string) prometheus.Metric {
	var count uint64
	buckets := make(map[float64]uint64, len(loginBounds))
	for i, bound := range loginBounds {
		count += t.upTo[i].Load()
		buckets[bound] = count
	}
	count += t.upTo[len(loginBounds)].Load()
	return prometheus.MustNewConstHistogram(tookDesc, count, time.Duration(t.sum.Load()).Seconds(), buckets, labels...)
}

// waited notes that a login waited before it began.
func (n *counts) waited(d time.Duration) {
	n.waits.Add(1)
	n.waitTime.Add(int64(d))
}

// A turned is why a login could not begin.
type turned int

const (
	turnedQueue turned = iota
	turnedPace
	turns
)

var turnedNames = [turns]string{"max_sessions", "logins_per_second"}

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
	sessionsDesc = prometheus.NewDesc("popgate_backend_sessions",
		"Sessions at the server now, logins that have begun included.", []string{"backend", "server"}, nil)
	queueDesc = prometheus.NewDesc("popgate_backend_queue",
		"Logins that wait for a place at the server now.", []string{"backend", "server"}, nil)
	waitsDesc = prometheus.NewDesc("popgate_backend_waits_total",
		"Logins that waited for a place or their turn at the server, and got it.", []string{"backend", "server"}, nil)
	waitSecondsDesc = prometheus.NewDesc("popgate_backend_wait_seconds_total",
		"Time that these logins waited.", []string{"backend", "server"}, nil)
	tookDesc = prometheus.NewDesc("popgate_backend_login_seconds",
		"Time of logins that the server accepted, from connecting to its answer.", []string{"backend", "server"}, nil)
	changedDesc = prometheus.NewDesc("popgate_backend_changes_total",
		"Changes that checks saw of a server: another greeting, other capabilities, other TLS, XCLIENT gone or new.",
		[]string{"backend", "server"}, nil)
	openedDesc = prometheus.NewDesc("popgate_backend_breaker_opened_total",
		"Times that the server was passed over because it failed the logins of many client networks.",
		[]string{"backend", "server"}, nil)
	bannedDesc = prometheus.NewDesc("popgate_backend_banned",
		"Whether the server seems to have banned popgate: it refuses passwords that it took before, or clients' addresses.",
		[]string{"backend", "server"}, nil)
	turnedDesc = prometheus.NewDesc("popgate_backend_turned_away_total",
		"Logins that did not get a place or a turn at the server in time, by the limit.",
		[]string{"backend", "server", "limit"}, nil)
)

// A collector shows the state of the servers in use.
type collector struct{ b *Backends }

// Describe names all that Collect gives.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		upDesc, connectsDesc, checksDesc, noClientDesc, sessionsDesc, queueDesc, waitsDesc, waitSecondsDesc, turnedDesc, openedDesc, bannedDesc, changedDesc, tookDesc,
	} {
		ch <- d
	}
}

// Collect reads the state of the servers as it is now.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, p := range c.b.view.Load().list {
		for _, m := range p.members {
			m.server.collect(ch, p)
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
			var taken, waiting, banned int64
			for at := g.byUse.Front(); at != nil; at = at.Next() {
				if one := at.Value.(*guest); one.id.backend == name {
					taken += one.member.server.places.taken.Load()
					waiting += one.member.server.places.waiting.Load()
					banned += one.member.server.banned(p)
				}
			}
			gauge(ch, sessionsDesc, taken, name, labelDirectory)
			gauge(ch, queueDesc, waiting, name, labelDirectory)
			gauge(ch, bannedDesc, banned, name, labelDirectory)
			n.collect(ch, name, labelDirectory, p.config.ClientInfo == ClientXClient)
		}
	}
}

func (s *server) collect(ch chan<- prometheus.Metric, p *Pool) {
	up := 0.0
	if s.up() {
		up = 1
	}
	ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up, s.backend, s.address)
	gauge(ch, sessionsDesc, s.places.taken.Load(), s.backend, s.address)
	gauge(ch, queueDesc, s.places.waiting.Load(), s.backend, s.address)
	gauge(ch, bannedDesc, s.banned(p), s.backend, s.address)
	s.counts.collect(ch, s.backend, s.address, p.config.ClientInfo == ClientXClient)
}

// banned is 1 where the server seems to have banned popgate.
func (s *server) banned(p *Pool) int64 {
	if s.ban.believed(p.backends.now()) || s.deafTo(&p.config) {
		return 1
	}
	return 0
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, value int64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
}

func (n *counts) collect(ch chan<- prometheus.Metric, backend, server string, xclient bool) {
	count := func(d *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		labels = append([]string{backend, server}, labels...)
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	for i := range n.connects {
		count(connectsDesc, &n.connects[i], resultNames[i])
	}
	for i := range n.turned {
		count(turnedDesc, &n.turned[i], turnedNames[i])
	}
	count(openedDesc, &n.opened)
	if server != labelDirectory {
		count(changedDesc, &n.changed)
	}
	count(waitsDesc, &n.waits)
	ch <- prometheus.MustNewConstMetric(waitSecondsDesc, prometheus.CounterValue,
		time.Duration(n.waitTime.Load()).Seconds(), backend, server)
	ch <- n.took.metric(backend, server)
	count(checksDesc, &n.checked, "ok")
	count(checksDesc, &n.failed, "failed")
	if xclient {
		count(noClientDesc, &n.noClient)
	}
}
