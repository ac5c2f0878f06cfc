package admin

import (
	dto "github.com/prometheus/client_model/go"
)

// gather takes the totals out of the gateway's metrics, and the times of logins by server, which it returns.
func (t *Totals) gather(families []*dto.MetricFamily) map[serverName]Times {
	t.Logins, t.Refused, t.HandshakeFailures = map[string]uint64{}, map[string]uint64{}, map[string]uint64{}
	took := map[serverName]Times{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "popgate_backend_login_seconds" {
				took[serverName{label(m, "backend"), label(m, "server")}] = timesOf(m.GetHistogram())
			}
			t.add(f.GetName(), m)
		}
	}
	return took
}

// add adds one series of a metric.
func (t *Totals) add(name string, m *dto.Metric) {
	n := uint64(m.GetCounter().GetValue())
	switch name {
	case "popgate_logins_total":
		t.Logins[label(m, "outcome")] += n
	case "popgate_login_seconds":
		t.LoginSeconds = timesOf(m.GetHistogram())
	case "popgate_connections_refused_total":
		t.Refused[label(m, "reason")] += n
	case "popgate_tls_handshakes_total":
		t.Handshakes += n
		if label(m, "resumed") == "true" {
			t.Resumed += n
		}
	case "popgate_tls_handshake_failures_total":
		t.HandshakeFailures[label(m, "cause")] += n
	case "popgate_client_bytes_total":
		if label(m, "direction") == "in" {
			t.BytesIn = n
		} else {
			t.BytesOut = n
		}
	}
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// timesOf makes counts of their own of what a histogram counts up to each bound.
func timesOf(h *dto.Histogram) Times {
	var t Times
	before := uint64(0)
	for _, b := range h.GetBucket() {
		t.Bounds = append(t.Bounds, b.GetUpperBound())
		t.Counts = append(t.Counts, b.GetCumulativeCount()-before)
		before = b.GetCumulativeCount()
	}
	t.Counts = append(t.Counts, h.GetSampleCount()-before)
	return t
}
