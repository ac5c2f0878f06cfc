package proxy

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/proxy/pop3"
)

// legacyFor makes the listener a legacy one for a network, with TLS 1.0 as certs makes it.
func legacyFor(network string) func(*settings) {
	return func(s *settings) {
		s.listener.Legacy, s.listener.LegacyNetworks = true, []netip.Prefix{netip.MustParsePrefix(network)}
		s.tls = func(c *tls.Config) { c.MinVersion = tls.VersionTLS10 }
	}
}

// Who comes with what no other listener takes is marked in every record that knows it, and counted once logged in.
func TestLegacyMark(t *testing.T) {
	address, _ := mail(t, false)
	for _, tt := range []struct {
		version uint16
		name    string
		legacy  bool
	}{{0, "none", true}, {tls.VersionTLS10, "TLS 1.0", true}, {tls.VersionTLS11, "TLS 1.1", true}, {tls.VersionTLS12, "TLS 1.2", false}} {
		reg := prometheus.NewRegistry()
		r := start(t, address, legacyFor("127.0.0.0/8"), func(s *settings) {
			s.registry = reg
			if tt.version == 0 {
				s.listener.TLS = TLSOptional
			}
		})
		c := r.plain()
		if tt.version != 0 {
			config := clientTLS()
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tt.version
			c.startTLS(config)
		}
		c.login("alice@example.org", "secret")
		c.send("QUIT\r\n")
		c.line()
		c.ends(true)
		c.conn.Close()
		accepted, closed := r.next(), r.closed(audit.ClientQuit)
		if accepted.Legacy != tt.legacy || closed.Legacy != tt.legacy {
			t.Errorf("%s: on record: legacy %v and %v, want %v", tt.name, accepted.Legacy, closed.Legacy, tt.legacy)
		}
		count := testutil.ToFloat64(r.gw.metrics.legacyLogins.WithLabelValues("pop3s", tt.name))
		if (count == 1) != tt.legacy {
			t.Errorf("%s: %v logins counted", tt.name, count)
		}
	}
	r := start(t, address)
	c := r.loggedIn()
	c.conn.Close()
	if e := r.next(); e.Legacy {
		t.Error("another listener's login is marked")
	}
}

// Who is not of the listener's networks is closed without a word.
func TestLegacyNetworks(t *testing.T) {
	r := start(t, "127.0.0.1:1", legacyFor("192.0.2.0/24"))
	c := r.plain()
	c.ends(false)
	if got := receive(t, r.audit.refused, "the refusal"); got.Reason != audit.AccessDenied {
		t.Errorf("refused as %s", got.Reason)
	}
}

// A network that has as many handshakes in flight as it may gets no more, and no answer; others do, and it does once one is over.
func TestHandshakesInFlight(t *testing.T) {
	r := start(t, "127.0.0.1:1", func(s *settings) {
		s.limits = policy.Config{IP: limit.ClientLimits{Handshakes: 2}}
	})
	hello := clientHello(t)
	var held []*client
	for range 2 {
		c := r.plain()
		if _, err := c.raw.Write(hello); err != nil {
			t.Fatal(err)
		}
		c.arm()
		if _, err := c.r.Peek(1); err != nil { // the gateway's answer: its handshake is under way
			t.Fatal(err)
		}
		held = append(held, c)
	}
	silent := r.plain() // one that has said nothing is none
	waitFor(t, func() bool { return r.gw.Sessions() == 3 })
	refused := r.plain()
	if _, err := refused.raw.Write(hello); err != nil {
		t.Fatal(err)
	}
	refused.ends(false)
	if e := r.closed(audit.TooManyHandshakes); !strings.Contains(e.Limit, "per_ip.handshakes") {
		t.Errorf("on record: limit %q", e.Limit)
	}
	if got := testutil.ToFloat64(r.gw.metrics.handshakeFailures.WithLabelValues("pop3s", "limit")); got != 1 {
		t.Errorf("%v counted", got)
	}
	held[0].conn.Close()
	r.closed(audit.TLSFailed)
	silent.startTLS(clientTLS())
	silent.tlsFacts(r)
	more := r.dial() // what was finished gave its place back
	more.tlsFacts(r)
	held[1].conn.Close()
	r.closed(audit.TLSFailed)
}

func TestLoginDelayCapability(t *testing.T) {
	for _, tt := range []struct {
		backends pop3.Capabilities
		ours     time.Duration
		want     pop3.Capabilities
	}{
		{pop3.Capabilities{"TOP", "UIDL"}, 0, pop3.Capabilities{"TOP", "UIDL"}},
		{pop3.Capabilities{"LOGIN-DELAY 60", "TOP"}, 0, pop3.Capabilities{"LOGIN-DELAY 60", "TOP"}},
		{pop3.Capabilities{"TOP"}, 5 * time.Minute, pop3.Capabilities{"LOGIN-DELAY 300 USER", "TOP"}},
		{pop3.Capabilities{"LOGIN-DELAY 60", "TOP"}, 30 * time.Second, pop3.Capabilities{"LOGIN-DELAY 60 USER", "TOP"}},
		{pop3.Capabilities{"LOGIN-DELAY 60 USER"}, 90 * time.Second, pop3.Capabilities{"LOGIN-DELAY 90 USER"}},
		{pop3.Capabilities{"LOGIN-DELAY"}, time.Millisecond, pop3.Capabilities{"LOGIN-DELAY 1 USER"}},
		{pop3.Capabilities{"LOGIN-DELAY soon"}, time.Second, pop3.Capabilities{"LOGIN-DELAY 1 USER"}},
	} {
		if got := loginDelay(tt.backends, tt.ours); !slices.Equal(got, tt.want) {
			t.Errorf("%q and %v: got %q, want %q", tt.backends, tt.ours, got, tt.want)
		}
	}
}
