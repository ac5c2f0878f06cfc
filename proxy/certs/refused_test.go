package certs

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/policy/audit"
)

// paused is a back-off that tests can wait for. It keeps the shortest that the real one would have made of each failure.
type paused struct {
	mu    sync.Mutex
	waits []time.Duration
}

func (p *paused) backoff(err error, failures int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits = append(p.waits, backoff(err, failures))
	return 100 * time.Millisecond
}

// longer says that each of the waits would have been at least that long, and that there were some.
func (p *paused) longer(t *testing.T, least time.Duration) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waits) == 0 {
		t.Error("nothing was waited for")
	}
	for _, wait := range p.waits {
		if wait < least {
			t.Errorf("the next try comes after %v, want %v at least", wait, least)
		}
	}
}

// failed gives what the events say of the failures with a name.
func (r *rig) failed(name string) (problems []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Name == audit.CertificateFailed && e.Certificate.Name == name {
			problems = append(problems, e.Certificate.Problem)
		}
	}
	return problems
}

// TestUnauthorized: the name leads to somebody else's web server, and later to us. Nobody has to say so.
func TestUnauthorized(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{})
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.3", fmt.Sprint(portOf(p.http))))
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = elsewhere.Serve(ln) }()
	defer func() { _ = elsewhere.Close() }()
	p.dns.set(p.dns.addrs, "mail.example.org", "127.0.0.3")
	pause := new(paused)
	r, v := startRig(t, t.TempDir(), p.config("mail.example.org"), func(r *rig) { r.k.acme.backoff = pause.backoff })
	eventually(t, "two refusals", func() bool { return len(r.failed("mail.example.org")) >= 2 })
	for _, problem := range r.failed("mail.example.org") {
		if !strings.Contains(problem, "unauthorized") || !strings.Contains(problem, "404") {
			t.Errorf("the event says %q", problem)
		}
	}
	if st := r.status("mail.example.org")[0]; !strings.Contains(st.LastError, "unauthorized") || st.LastErrorAt.IsZero() {
		t.Errorf("status: %+v", st)
	}
	// Five in an hour are all that Let's Encrypt takes.
	pause.longer(t, 4*time.Minute)
	p.dns.set(p.dns.addrs, "mail.example.org", "127.0.0.1")
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	eventually(t, "the failure is over", func() bool { return r.status("mail.example.org")[0].LastError == "" })
	if got := r.told(audit.CertificateIssued, "mail.example.org"); got != 1 {
		t.Errorf("got %d events of success, want one", got)
	}
}

// TestBadNonces: an issuer that takes no nonce gives no certificate; one that refuses some of them does.
func TestBadNonces(t *testing.T) {
	t.Parallel()
	p := startPebble(t, pebbleOptions{env: []string{"PEBBLE_WFE_NONCEREJECT=100"}})
	pause := new(paused)
	r, v := startRig(t, t.TempDir(), p.config("mail.example.org"), func(r *rig) { r.k.acme.backoff = pause.backoff })
	eventually(t, "a failure", func() bool { return len(r.failed("mail.example.org")) > 0 })
	if problem := r.failed("mail.example.org")[0]; !strings.Contains(problem, "badNonce") {
		t.Errorf("the event says %q", problem)
	}
	pause.longer(t, 9*time.Second)
	if _, err := shake(v.TLS("pop3s"), p.clientFor("mail.example.org")); err == nil {
		t.Error("a handshake without a certificate went well")
	}
	p.stop()
	again := startPebble(t, pebbleOptions{
		listen: strings.TrimSuffix(strings.TrimPrefix(p.directory, "https://"), "/dir"),
		config: map[string]any{"httpPort": portOf(p.http)}, env: []string{"PEBBLE_WFE_NONCEREJECT=30"},
	})
	shaken(t, v.TLS("pop3s"), again.clientFor("mail.example.org"))
}
