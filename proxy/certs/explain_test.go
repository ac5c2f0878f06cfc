package certs

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestPortsOfAnotherProgram: a web server has both ports and knows nothing of us. What to do is said at the start, and with the order that
// fails.
func TestPortsOfAnotherProgram(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	for _, address := range []string{p.http, p.alpn} {
		ln, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
		defer func() { _ = server.Close() }()
		go func() { _ = server.Serve(ln) }()
	}
	c := p.config("mail.example.org")
	c.ACME.TLSALPNAddress = p.alpn
	r, _ := startRig(t, t.TempDir(), c, nil)
	rec, _ := r.log.wait(t, "another program has the ports")
	for _, want := range []string{"only DNS-01 works, so set tls.acme.dns", "let it pass /.well-known/acme-challenge/ on to tls.acme.http_address"} {
		if line := text(rec); !strings.Contains(line, want) {
			t.Errorf("the start says %q, want %q in it", line, want)
		}
	}
	failed, between := r.log.wait(t, "no certificate for now")
	if line := text(failed); !strings.Contains(line, onlyDNS) {
		t.Errorf("the failed order says %q, want %q in it", line, onlyDNS)
	}
	for _, line := range texts(between) {
		if strings.HasPrefix(line, "another program has the ports") {
			t.Error("it is said twice")
		}
	}
	if st := r.status("mail.example.org"); len(st) != 1 || !strings.Contains(st[0].LastError, onlyDNS) {
		t.Errorf("the status has %+v", st)
	}
}

// TestPortsThatMayNotBeHad: they are privileged, say, or the address is another host's.
func TestPortsThatMayNotBeHad(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	c := p.config("mail.example.org")
	c.ACME.HTTPAddress = "192.0.2.1:80"
	r, _ := startRig(t, t.TempDir(), c, nil)
	if rec, _ := r.log.wait(t, "no issuer can come in"); !strings.Contains(rec.Message, onlyDNS) {
		t.Errorf("the start says %q", rec.Message)
	}
	if failed, _ := r.log.wait(t, "no certificate for now"); !strings.Contains(text(failed), onlyDNS) {
		t.Errorf("the failed order says %q", text(failed))
	}
}
