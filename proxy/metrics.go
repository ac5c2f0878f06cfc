package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/audit"
)

// metrics are what the gateway counts. No label holds a user or the address of a client.
type metrics struct {
	sessions          *prometheus.CounterVec // by listener and how it ended
	refused           *prometheus.CounterVec
	handshakes        *prometheus.CounterVec
	handshakeFailures *prometheus.CounterVec
	handshakeSeconds  prometheus.Histogram
	logins            *prometheus.CounterVec
	legacyLogins      *prometheus.CounterVec
	loginSeconds      [len(loginStages)]prometheus.Observer
	replySeconds      prometheus.Observer
	sessionSeconds    prometheus.Histogram
	bytesIn, bytesOut prometheus.Counter
	paced             struct{ download, commands prometheus.Counter }
	accept            struct{ errors, waits prometheus.Counter }
	panics            prometheus.Counter
}

// Buckets for what takes milliseconds when all is well and is cut off after a minute.
var loginBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

func newMetrics(reg prometheus.Registerer, live *sessions) *metrics {
	factory := registrar{reg}
	bytes := factory.counters("popgate_client_bytes_total",
		"Octets carried between clients and backends after login, by direction (in: from the client, out: to it).", "direction")
	stages := factory.histograms("popgate_login_stage_seconds",
		"Time that logins spent in each stage they came to.", loginBuckets, "stage")
	paced := factory.counters("popgate_paced_seconds_total",
		"Time that sessions waited after login for their turn, by the limit that had them wait (download, commands).", "limit")
	m := &metrics{
		sessions:          factory.counters("popgate_sessions_total", "Sessions that have ended, by the reason in the audit.", "listener", "reason"),
		refused:           factory.counters("popgate_connections_refused_total", "Connections closed before they were sessions.", "listener", "reason"),
		handshakes:        factory.counters("popgate_tls_handshakes_total", "TLS handshakes with clients that succeeded.", "version", "group", "resumed"),
		handshakeFailures: factory.counters("popgate_tls_handshake_failures_total", "TLS handshakes with clients that failed.", "listener", "cause"),
		handshakeSeconds:  factory.histogram("popgate_tls_handshake_seconds", "Time of TLS handshakes that succeeded, waiting included.", loginBuckets),
		logins:            factory.counters("popgate_logins_total", "Login attempts, by outcome (accepted, or the reason in the audit).", "outcome", "backend"),
		legacyLogins:      factory.counters("popgate_legacy_logins_total", "Logins without TLS or with TLS 1.0 or 1.1 that were accepted, by the TLS version (none without).", "listener", "version"),
		replySeconds:      factory.histogram("popgate_login_seconds", "Time from credentials to the decision, the delay of refusals left out.", loginBuckets),
		sessionSeconds: factory.histogram("popgate_session_seconds", "Length of sessions that logged in.",
			[]float64{.01, .1, .5, 1, 5, 10, 30, 60, 300, 1800, 7200}),
		bytesIn:  bytes.WithLabelValues("in"),
		bytesOut: bytes.WithLabelValues("out"),
		panics:   factory.counters("popgate_panics_total", "Sessions ended by a fault in popgate.").WithLabelValues(),
	}
	m.paced.download, m.paced.commands = paced.WithLabelValues("download"), paced.WithLabelValues("commands")
	m.accept.errors = factory.counters("popgate_accept_errors_total", "Errors of accepting connections.").WithLabelValues()
	m.accept.waits = factory.counters("popgate_accept_wait_seconds_total", "Time that connections were held back after a start (bounds.accept_ramp).").WithLabelValues()
	for i, stage := range loginStages {
		m.loginSeconds[i] = stages.WithLabelValues(stage)
	}
	factory.register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "popgate_sessions", Help: "Sessions now, those before login included.",
	}, func() float64 { return float64(live.count()) }))
	return m
}

// registrar makes metrics and registers them, where there is something to register with.
type registrar struct{ reg prometheus.Registerer }

func (r registrar) register(c prometheus.Collector) {
	if r.reg != nil {
		r.reg.MustRegister(c)
	}
}

func (r registrar) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.register(c)
	return c
}

func (r registrar) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	r.register(h)
	return h
}

func (r registrar) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	r.register(h)
	return h
}

func (m *metrics) handshake(t *auth.TLS, took time.Duration) {
	resumed := "false"
	if t.Resumed {
		resumed = "true"
	}
	m.handshakes.WithLabelValues(t.Version, t.Group, resumed).Inc()
	m.handshakeSeconds.Observe(took.Seconds())
}

// handshakeFailed counts a failure under one of a few causes: the texts of errors are without number.
func (m *metrics) handshakeFailed(listener string, err error) {
	var (
		header  tls.RecordHeaderError
		remote  *net.OpError // an alert's own type is crypto/tls's secret
		limited *policy.LimitError
		cause   = "other"
	)
	switch {
	case errors.As(err, &limited):
		cause = "limit"
	case errors.Is(err, errNoSlot):
		cause = "no_slot"
	case isTimeout(err):
		cause = "timeout"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		cause = "client_left"
	case errors.As(err, &header):
		cause = "not_tls"
	case errors.As(err, &remote) && remote.Op == "remote error":
		cause = "alert"
	}
	m.handshakeFailures.WithLabelValues(listener, cause).Inc()
}

func (m *metrics) login(l *login, o outcome, took time.Duration) {
	label := "accepted"
	if o.reason != "" {
		label = string(o.reason)
	}
	m.logins.WithLabelValues(label, l.route.Backend).Inc()
	if o.reason == "" && l.s.legacy() {
		version := "none"
		if t := l.s.client.TLS; t != nil {
			version = t.Version
		}
		m.legacyLogins.WithLabelValues(l.s.listener.Name, version).Inc()
	}
	m.replySeconds.Observe(took.Seconds())
	for i, d := range l.spent {
		if d > 0 {
			m.loginSeconds[i].Observe(d.Seconds())
		}
	}
}

func (m *metrics) sessionEnded(e *audit.Event) {
	m.sessions.WithLabelValues(e.Listener, string(e.Reason)).Inc()
	if e.Server != "" {
		m.sessionSeconds.Observe(float64(e.DurationMS) / 1000)
	}
}
