package backend

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestTimes holds which bucket a time falls into: a bound is in the bucket below it.
func TestTimes(t *testing.T) {
	var n times
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Minute, time.Hour} {
		n.add(d)
	}
	if n.upTo[0].Load() != 2 || n.upTo[1].Load() != 1 || n.upTo[len(loginBounds)-1].Load() != 1 || n.upTo[len(loginBounds)].Load() != 1 {
		t.Errorf("got %v", &n.upTo)
	}
	if got := testing.AllocsPerRun(100, func() { n.add(time.Second) }); got > 0 {
		t.Errorf("%v allocations for a login", got)
	}
}

// TestLoginTimes holds that logins that a server has accepted are counted there.
func TestLoginTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(nil, nil)
		p := use(t, b, limited("one.example.org")).Pool("old")
		alwaysOK(t, p)
		open(t, p, 2)
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(collector{b})
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() != "popgate_backend_login_seconds" {
				continue
			}
			h := f.GetMetric()[0].GetHistogram()
			if len(f.GetMetric()) != 1 || h.GetSampleCount() != 2 || h.GetBucket()[0].GetCumulativeCount() != 2 {
				t.Errorf("got %v, want two logins that took no time", f)
			}
			return
		}
		t.Error("there is no popgate_backend_login_seconds")
	})
}
