package auth

import (
	"crypto/tls"
	"net/netip"
	"testing"
)

func TestNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.77":              "192.0.2.77/32",
		"::ffff:192.0.2.77":       "192.0.2.77/32",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::/64",
		"::1":                     "::/64",
		"fe80::1%eth0":            "fe80::/64",
		"64:ff9b::c000:24d":       "64:ff9b::/64",
		"2001:db8:ffff:ffff::":    "2001:db8:ffff:ffff::/64",
		"::ffff:0:192.0.2.77":     "::/64",
		"2001:db8:0:8000:1::7%en": "2001:db8:0:8000::/64",
	} {
		a := netip.MustParseAddr(addr)
		if got := Network(a).String(); got != want {
			t.Errorf("Network(%s) = %s, want %s", addr, got, want)
		}
		c := &Client{Addr: netip.AddrPortFrom(a, 995)}
		if got := c.Network().String(); got != want {
			t.Errorf("Client{%s}.Network() = %s, want %s", addr, got, want)
		}
	}
	if got := Network(netip.Addr{}); got != (netip.Prefix{}) {
		t.Errorf("Network(zero) = %v", got)
	}
}

func TestTLSFrom(t *testing.T) {
	got := TLSFrom(&tls.ConnectionState{
		Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, CurveID: tls.X25519,
		ServerName: "Mail.Example.ORG", DidResume: true,
	})
	want := TLS{Version: "TLS 1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519", ServerName: "mail.example.org", Resumed: true}
	if *got != want {
		t.Errorf("TLSFrom = %+v, want %+v", *got, want)
	}
	if got := TLSFrom(&tls.ConnectionState{Version: tls.VersionTLS12}); got.Group != "" || got.Version != "TLS 1.2" {
		t.Errorf("without a group: %+v", *got)
	}
	c := Client{}
	if c.ServerName() != "" {
		t.Error("a client without TLS has a server name")
	}
	if c.TLS = got; c.ServerName() != "mail.example.org" {
		t.Errorf("ServerName() = %q", c.ServerName())
	}
}
