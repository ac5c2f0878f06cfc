package main

import (
	"math"
	"testing"
	"time"

	"github.com/popgate/popgate/proxy"
	"github.com/popgate/popgate/proxy/admin"
)

// after is an answer of a gateway that began at second life, at second n.
func after(n, life int, totals admin.Totals) *admin.Status {
	epoch := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }
	return &admin.Status{Time: at(n), Sessions: proxy.Info{Started: at(life)}, Totals: totals}
}

func logins(accepted, wrong uint64) admin.Totals {
	return admin.Totals{Logins: map[string]uint64{"accepted": accepted, "wrong_password": wrong}}
}

func TestWatch(t *testing.T) {
	var w watch
	if w.add(after(10, 0, logins(100, 7))) || w.now().over != 0 || w.minute().over != 0 {
		t.Error("one answer is no rate")
	}
	w.add(after(12, 0, logins(120, 7)))
	w.add(after(14, 0, logins(120, 9)))
	if r := w.now(); r.accepted != 0 || r.refused != 1 || len(r.reasons) != 1 || r.reasons[0] != (share{"wrong_password", 1}) {
		t.Errorf("now: got %+v", r)
	}
	if r := w.minute(); r.accepted != 5 || r.refused != 0.5 || r.over != 4*time.Second {
		t.Errorf("the minute: got %+v", r)
	}
	if got := w.course(func(r rates) float64 { return r.accepted }); len(got) != 2 || got[0] != 10 || got[1] != 0 {
		t.Errorf("course: got %v", got)
	}

	// The same answer once more changes nothing.
	w.add(after(14, 0, logins(120, 9)))
	if r := w.now(); len(w.readings) != 3 || r.refused != 1 {
		t.Errorf("after the same answer: got %+v", r)
	}
	// A copy stays as it is.
	paused := w
	w.add(after(14, 0, logins(1000, 9)))
	if got := paused.last().Totals.Logins["accepted"]; got != 120 {
		t.Errorf("the copy has %d logins now", got)
	}
}

// TestWatchRestart holds that no rate spans two lives of a gateway, whatever its counters were.
func TestWatchRestart(t *testing.T) {
	var w watch
	w.add(after(10, 0, logins(100, 0)))
	w.add(after(12, 0, logins(200, 0)))
	if !w.add(after(14, 13, logins(500, 0))) {
		t.Error("the restart was not seen")
	}
	if r := w.now(); r.over != 0 || len(w.readings) != 1 {
		t.Errorf("got %+v of two lives", r)
	}
	w.add(after(16, 13, logins(510, 0)))
	if r := w.now(); r.accepted != 5 {
		t.Errorf("after the restart: got %v logins a second, want 5", r.accepted)
	}
}

// TestWatchClock holds that a gateway's clock may be set back.
func TestWatchClock(t *testing.T) {
	var w watch
	for _, n := range []int{100, 102, 104, 50, 52} {
		w.add(after(n, 0, logins(uint64(n), 0)))
	}
	if r := w.minute(); len(w.readings) != 2 || r.over != 2*time.Second || r.accepted != 1 {
		t.Errorf("got %+v of %d answers", r, len(w.readings))
	}
}

// TestWatchForgets holds that a watch looks back a minute and no further.
func TestWatchForgets(t *testing.T) {
	var w watch
	for n := range 500 {
		w.add(after(2*n, 0, logins(0, 0)))
	}
	if r := w.minute(); r.over != topWindow || len(w.readings) != 31 {
		t.Errorf("got %d answers of %s", len(w.readings), r.over)
	}
	w = watch{}
	for n := range 5 {
		w.add(after(100*n, 0, logins(0, 0)))
	}
	if len(w.readings) != 2 {
		t.Errorf("got %d answers, want the two that make a rate", len(w.readings))
	}
}

// TestRatesReset holds that a counter that has begun anew, as of a server that was gone for a while, gives no nonsense.
func TestRatesReset(t *testing.T) {
	a, b := after(0, 0, logins(100, 50)), after(1, 0, logins(3, 50))
	a.Servers = []admin.ServerStatus{{Backend: "old", Server: "s", LoginSeconds: topTimes(map[int]uint64{3: 100})}}
	b.Servers = []admin.ServerStatus{{Backend: "old", Server: "s", LoginSeconds: topTimes(map[int]uint64{4: 2})}}
	r := ratesOf(a, b)
	if r.accepted != 3 || r.refused != 0 {
		t.Errorf("got %+v", r)
	}
	if s := r.servers[serverKey{"old", "s"}]; s.logins != 2 || s.took.Counts[3] != 0 || s.took.Counts[4] != 2 {
		t.Errorf("got %+v", s)
	}
}

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		counts map[int]uint64
		q      float64
		want   time.Duration
		above  bool
		ok     bool
	}{
		{nil, 0.5, 0, false, false},
		{map[int]uint64{0: 10}, 0.5, 500 * time.Microsecond, false, true},
		{map[int]uint64{3: 10}, 1, 10 * time.Millisecond, false, true},
		{map[int]uint64{3: 10}, 0.5, 7500 * time.Microsecond, false, true},
		{map[int]uint64{3: 50, 9: 50}, 0.5, 10 * time.Millisecond, false, true},
		{map[int]uint64{3: 50, 9: 50}, 0.75, 750 * time.Millisecond, false, true},
		{map[int]uint64{3: 1, 15: 99}, 0.95, time.Minute, true, true},
	} {
		d, above, ok := quantile(topTimes(tt.counts), tt.q)
		if math.Abs(float64(d-tt.want)) > 1000 || above != tt.above || ok != tt.ok {
			t.Errorf("%v of %v: got %v, %v, %v, want %v, %v, %v", tt.q, tt.counts, d, above, ok, tt.want, tt.above, tt.ok)
		}
	}
	if _, _, ok := quantile(admin.Times{Counts: []uint64{1, 2}}, 0.5); ok {
		t.Error("a quantile of times without bounds")
	}
}
