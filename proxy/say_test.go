package proxy

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/audit"
)

// The same thing is said once a minute, with how often it was not said.
func TestSaidOnceAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s said
		for i := range 5 {
			if _, ok := s.now("x"); ok != (i == 0) {
				t.Errorf("said the %dth time: %v", i+1, ok)
			}
		}
		if _, ok := s.now("y"); !ok {
			t.Error("another subject was not said")
		}
		time.Sleep(sayEvery)
		if quiet, ok := s.now("x"); !ok || quiet != 4 {
			t.Errorf("after a while: %v, %d times not said, want 4", ok, quiet)
		}
		for i := range 2 * maxSayings {
			s.now(string(rune('a' + i)))
		}
		if len(s.last) > maxSayings {
			t.Errorf("%d subjects are remembered", len(s.last))
		}
	})
}

// One client is spoken of once: what is said of the next, a while later, counts none that there was not.
func TestSaidOnceAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := defaults("127.0.0.1:1")
		s.listener.TLS = TLSStartTLS
		r := newRig(t, s)
		for range 2 {
			c := r.pipe()
			c.expect("+OK POP3 ready")
			c.send("GET / HTTP/1.1\r\n")
			r.closed(audit.NotPOP3)
			c.conn.Close()
			time.Sleep(sayEvery)
		}
		r.gw.Close()
		var said []string
		for _, line := range r.log.lines {
			if strings.Contains(line, "spoke HTTP") {
				said = append(said, line)
			}
		}
		if len(said) != 2 || strings.Contains(said[1], "repeated") {
			t.Errorf("said of two clients: %q", said)
		}
	})
}
