// Package admin is what operators and their tools ask popgate over HTTP. What is served on the metrics address is
// read-only and names no user: /metrics, /healthz and /readyz. What lists or changes anything is served on a Unix socket
// alone, whose file says who may ask; Client asks there. Each resource has a file of its own.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is the section `metrics`.
type Config struct {
	// Address to serve /metrics, /healthz and /readyz on, without TLS: "host:port". "" serves none of them.
	Address string `yaml:"address"`
}

// DefaultConfig is the section's default.
func DefaultConfig() Config { return Config{Address: "127.0.0.1:9995"} }

// Validate reports what cannot work, by key.
func (c Config) Validate(fault func(key, problem string)) {
	if c.Address == "" {
		return
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err == nil && host != "" {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		fault("address", fmt.Sprintf(`is %q; write "host:port" with an IP address, such as "127.0.0.1:9995"`, c.Address))
	}
}

// Ready says whether the gateway takes clients, and what is not as it should be, a sentence each. There may be notes
// while it is ready: a degraded gateway still serves.
type Ready func() (ready bool, notes []string)

// Handler answers /metrics from reg, /healthz and /readyz.
func Handler(reg prometheus.Gatherer, ready Ready) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsHandler(reg))
	mux.HandleFunc("GET /healthz", healthz)
	mux.Handle("GET /readyz", readyHandler(ready))
	return mux
}

// Serve answers on ln until ctx ends. It closes ln.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(patient{ln, log}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", ln.Addr(), err)
	}
	return nil
}

// A patient listener waits where accepting fails, mostly for want of descriptors: what operators look at must not end
// for that, least of all the gateway with it.
type patient struct {
	net.Listener
	log *slog.Logger
}

// Accept returns the next connection, or net.ErrClosed.
func (p patient) Accept() (net.Conn, error) {
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		conn, err := p.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return conn, err
		}
		p.log.Warn("accept a connection", "address", p.Addr().String(), "error", err, "retry_in", delay.String())
		time.Sleep(delay)
	}
}
