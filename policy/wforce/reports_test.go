package wforce

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestReports: those that wait go out when popgate stops, and a server that is away for a while loses none.
func TestReports(t *testing.T) {
	s := newScribe()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	reg := prometheus.NewPedanticRegistry()
	k := New(nil, reg)
	c := configFor("http://" + addr)
	c.PasswordFile = secretFile(t, "s3cret")
	v := using(t, k, c)
	stop := run(t, k)
	for i := range 10 {
		v.Login(query(fmt.Sprint("early", i), "pw")).Report(Outcome{Success: true})
	}
	deadline := time.Now().Add(patience)
	for k.Trouble() == nil && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond)
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Skipf("somebody else has the port by now: %v", err)
	}
	web := &httptest.Server{Listener: l, Config: &http.Server{Handler: newTestServer(t, s)}}
	web.Start()
	defer web.Close()
	seen := map[string]int{}
	for range 10 {
		seen[s.reported(t).q.Login]++
	}
	for i := range 10 {
		v.Login(query(fmt.Sprint("late", i), "pw")).Report(Outcome{})
	}
	stop()
	for range 10 {
		seen[s.reported(t).q.Login]++
	}
	if len(seen) != 20 || len(s.reports) != 0 {
		t.Errorf("got %v, %d more, want 20 different ones", seen, len(s.reports))
	}
	v.Login(query("too late", "pw")).Report(Outcome{})
	if got := testutil.ToFloat64(k.metrics.lost); got != 1 {
		t.Errorf("got %v lost, want the one after the end", got)
	}
}

// TestReportsBounded: the oldest make room.
func TestReportsBounded(t *testing.T) {
	k := New(nil, nil)
	v := using(t, k, configFor("http://127.0.0.1:1"))
	for i := range maxReports + 10 {
		v.Login(query(fmt.Sprint(i), "pw")).Report(Outcome{})
	}
	if got := testutil.ToFloat64(k.metrics.lost); k.reports.len() != maxReports || got != 10 {
		t.Errorf("got %d waiting and %v lost, want %d and 10", k.reports.len(), got, maxReports)
	}
	for i := range maxReports {
		r, _ := k.reports.pop()
		var f told
		if err := json.Unmarshal(r.body, &f); err != nil || f.Login != fmt.Sprint(i+10) {
			t.Fatalf("report %d: got %s, %v", i, r.body, err)
		}
	}
	if _, ok := k.reports.pop(); ok {
		t.Error("there is more")
	}
}

// TestReportOnce: what the server has got is not sent again, whatever it says, or it would count twice.
func TestReportOnce(t *testing.T) {
	var calls atomic.Int64
	answers := []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(500) },
		func(w http.ResponseWriter) { fmt.Fprint(w, `{"status":"failure","reason":"x"}`) },
		func(w http.ResponseWriter) { fmt.Fprint(w, `{"status":0}`) },
		func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter) { fmt.Fprint(w, `{"status":"ok"}`) },
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answers[calls.Add(1)-1](w)
	}))
	defer web.Close()
	k := New(nil, nil)
	v := using(t, k, configFor(web.URL))
	stop := run(t, k)
	for range answers {
		v.Login(query("anna", "pw")).Report(Outcome{})
	}
	stop()
	if got, lost := calls.Load(), testutil.ToFloat64(k.metrics.lost); got != int64(len(answers)) || lost != 4 {
		t.Errorf("got %d calls and %v lost, want %d and 4", got, lost, len(answers))
	}
}
