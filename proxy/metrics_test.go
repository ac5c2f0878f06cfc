package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/policy/audit"
)

// counted checks counters that are not of time against what they must show.
func counted(t *testing.T, reg *prometheus.Registry, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	address, _ := mail(t, false)
	r := start(t, address, func(s *settings) { s.registry = reg })
	c := r.dial()
	c.expect("+OK POP3 ready")
	c.try("nobody@example.net", "x")
	c.try("alice@example.org", "wrong")
	c.try("alice@example.org", "secret")
	counted(t, reg, `
# HELP popgate_sessions Sessions now, those before login included.
# TYPE popgate_sessions gauge
popgate_sessions 1
`, "popgate_sessions")
	c.send("NOOP\r\nQUIT\r\n")
	c.line()
	c.line()
	c.ends(true)
	c.conn.Close()
	var out int64
	for range 4 {
		if e := r.next(); e.End != nil {
			out = e.BytesOut
		}
	}
	r.gw.Close()
	counted(t, reg, `
# HELP popgate_sessions Sessions now, those before login included.
# TYPE popgate_sessions gauge
popgate_sessions 0
# HELP popgate_logins_total Login attempts, by outcome (accepted, or the reason in the audit).
# TYPE popgate_logins_total counter
popgate_logins_total{backend="",outcome="unknown_user"} 1
popgate_logins_total{backend="old",outcome="accepted"} 1
popgate_logins_total{backend="old",outcome="wrong_password"} 1
# HELP popgate_sessions_total Sessions that have ended, by the reason in the audit.
# TYPE popgate_sessions_total counter
popgate_sessions_total{listener="pop3s",reason="client_quit"} 1
`, "popgate_sessions", "popgate_logins_total", "popgate_sessions_total")
	if in := testutil.ToFloat64(r.gw.metrics.bytesIn); in != 12 {
		t.Errorf("%v octets in", in)
	}
	if got := testutil.ToFloat64(r.gw.metrics.bytesOut); int64(got) != out || out == 0 {
		t.Errorf("%v octets out, on record %d", got, out)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if strings.ContainsAny(l.GetValue(), "@") || strings.HasPrefix(l.GetValue(), "127.") {
					t.Errorf("%s has a label %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
}

func TestHandshakeMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := start(t, "127.0.0.1:1", func(s *settings) { s.registry = reg })
	for range 2 {
		c := r.plain()
		c.startTLS(clientTLS())
		c.tlsFacts(r)
	}
	distrusting := r.plain()
	distrusting.arm()
	if err := tls.Client(distrusting.raw, &tls.Config{ServerName: "localhost"}).Handshake(); err == nil {
		t.Fatal("a client trusts the test's certificate")
	}
	r.closed(audit.TLSFailed)
	http := r.plain()
	http.send("GET / HTTP/1.1\r\n\r\n")
	r.closed(audit.TLSFailed)
	gone := r.plain()
	gone.conn.Close()
	r.closed(audit.TLSFailed)
	counted(t, reg, `
# HELP popgate_tls_handshake_failures_total TLS handshakes with clients that failed.
# TYPE popgate_tls_handshake_failures_total counter
popgate_tls_handshake_failures_total{cause="alert",listener="pop3s"} 1
popgate_tls_handshake_failures_total{cause="client_left",listener="pop3s"} 1
popgate_tls_handshake_failures_total{cause="not_tls",listener="pop3s"} 1
# HELP popgate_tls_handshakes_total TLS handshakes with clients that succeeded.
# TYPE popgate_tls_handshakes_total counter
popgate_tls_handshakes_total{group="X25519MLKEM768",resumed="false",version="TLS 1.3"} 2
`, "popgate_tls_handshake_failures_total", "popgate_tls_handshakes_total")
}

func TestRefusedMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := start(t, "127.0.0.1:1", func(s *settings) {
		s.registry = reg
		s.listener.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(c)
	c.Close()
	counted(t, reg, `
# HELP popgate_connections_refused_total Connections closed before they were sessions.
# TYPE popgate_connections_refused_total counter
popgate_connections_refused_total{listener="pop3s",reason="proxy_header"} 1
`, "popgate_connections_refused_total")
}
