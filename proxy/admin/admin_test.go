package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestHandler(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "popgate_test", Help: "x"}, func() float64 { return 7 }))
	var ready bool
	var notes []string
	h := Handler(reg, func() (bool, []string) { return ready, notes })
	for _, c := range []struct {
		path  string
		ready bool
		notes []string
		code  int
		body  string
	}{
		{"/metrics", false, nil, 200, "popgate_test 7\n"},
		{"/healthz", false, nil, 200, "ok\n"},
		{"/readyz", true, nil, 200, "ready\n"},
		{"/readyz", true, []string{"backend old is down"}, 200, "ready, degraded\nbackend old is down\n"},
		{"/readyz", false, []string{"shutting down"}, 503, "not ready\nshutting down\n"},
		{"/debug/pprof/", true, nil, 404, "404"},
	} {
		ready, notes = c.ready, c.notes
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("GET %s: got %d %q, want %d %q", c.path, w.Code, w.Body, c.code, c.body)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /metrics: got %d, want 405", w.Code)
	}
}

func TestServeEndsWithContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	h := Handler(prometheus.NewRegistry(), func() (bool, []string) { return true, nil })
	go func() { done <- Serve(ctx, ln, h, slog.New(slog.DiscardHandler)) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "ok\n" {
		t.Errorf("got %q, want ok", b)
	}
	_ = resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}

func TestValidate(t *testing.T) {
	for address, ok := range map[string]bool{"": true, "127.0.0.1:9995": true, ":9995": true, "[::1]:1": true, "9995": false, "host.example:1": false} {
		faults := 0
		Config{Address: address}.Validate(func(string, string) { faults++ })
		if (faults == 0) != ok {
			t.Errorf("address %q: got %d faults, want valid=%v", address, faults, ok)
		}
	}
	DefaultConfig().Validate(func(key, problem string) { t.Errorf("default: %s %s", key, problem) })
}

// stingy is a listener that has no connections at first.
type stingy struct {
	net.Listener
	refusals int
}

func (s *stingy) Accept() (net.Conn, error) {
	if s.refusals > 0 {
		s.refusals--
		return nil, syscall.ENOBUFS
	}
	return s.Listener.Accept()
}

func TestServeOutlivesErrorsOfAccept(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	h := Handler(prometheus.NewRegistry(), func() (bool, []string) { return true, nil })
	go func() { done <- Serve(ctx, &stingy{ln, 3}, h, slog.New(slog.DiscardHandler)) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %d, want 200", resp.StatusCode)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
}
