package certs

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
)

func TestALPN(t *testing.T) {
	dir := t.TempDir()
	v := prepare(t, New(dir, nil, nil), withFiles(issueFiles(t, dir, "mail", "mail.example.org")),
		Listener{Name: "strict"}, Listener{Name: "lenient", LenientALPN: true})
	for _, tt := range []struct {
		listener string
		offered  []string
		want     string
		refused  bool
	}{
		{"strict", nil, "", false},
		{"strict", []string{"pop3"}, "pop3", false},
		{"strict", []string{"h2", "pop3"}, "pop3", false},
		{"strict", []string{"imap"}, "", true},
		{"strict", []string{"h2", "http/1.1"}, "", true},
		{"lenient", nil, "", false},
		{"lenient", []string{"imap", "pop3"}, "pop3", false},
		{"lenient", []string{"h2", "http/1.1"}, "", false},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := client("mail.example.org")
			config.NextProtos, config.MaxVersion = tt.offered, version
			cs, err := shake(v.TLS(tt.listener), config)
			// The alert is what the client sees; crypto/tls does not export it as a value a client error can be compared with.
			refused := err != nil && strings.Contains(err.Error(), "no application protocol")
			if refused != tt.refused || cs.NegotiatedProtocol != tt.want || (err != nil) != tt.refused {
				t.Errorf("%s listener, %v over %s: got %q, %v; want %q, refused %v",
					tt.listener, tt.offered, tls.VersionName(version), cs.NegotiatedProtocol, err, tt.want, tt.refused)
			}
		}
	}
}

func TestVersionsAndCurves(t *testing.T) {
	dir := t.TempDir()
	c := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
	k := New(dir, nil, nil)
	for _, tt := range []struct {
		min     string
		max     uint16
		refused bool
	}{
		{"1.2", tls.VersionTLS11, true}, {"1.2", tls.VersionTLS12, false}, {"1.2", tls.VersionTLS13, false},
		{"1.3", tls.VersionTLS12, true}, {"1.3", tls.VersionTLS13, false},
	} {
		c.MinVersion = tt.min
		config := client("mail.example.org")
		config.MinVersion, config.MaxVersion = tls.VersionTLS10, tt.max
		cs, err := shake(prepare(t, k, c).TLS("pop3s"), config)
		if (err != nil) != tt.refused || err == nil && cs.Version != tt.max {
			t.Errorf("min %s, client up to %s: got %s, %v", tt.min, tls.VersionName(tt.max), tls.VersionName(cs.Version), err)
		}
		if err == nil && tt.max == tls.VersionTLS13 && cs.CurveID != tls.X25519MLKEM768 {
			t.Errorf("got group %v, want X25519MLKEM768", cs.CurveID)
		}
	}
}

func TestOnHello(t *testing.T) {
	dir := t.TempDir()
	full := errors.New("no slot")
	var seen []string
	hook := func(h *tls.ClientHelloInfo) error {
		seen = append(seen, h.ServerName)
		if h.ServerName == "full.example.org" {
			return full
		}
		return nil
	}
	v := prepare(t, New(dir, nil, nil), withFiles(issueFiles(t, dir, "mail", "*.example.org")),
		Listener{Name: "hook", OnHello: hook}, Listener{Name: "both", OnHello: hook, LenientALPN: true}, Listener{Name: "none"})

	config := client("mail.example.org")
	config.NextProtos = []string{"imap"}
	if _, err := shake(v.TLS("both"), config); err != nil {
		t.Errorf("lenient listener with a hook: %v", err)
	}
	if _, err := shake(v.TLS("hook"), client("full.example.org")); !errors.Is(err, full) {
		t.Errorf("got %v, want the hook's error", err)
	}
	if got := strings.Join(seen, " "); got != "mail.example.org full.example.org" {
		t.Errorf("hook saw %q", got)
	}
	if v.TLS("none").GetConfigForClient != nil {
		t.Error("a listener without hook and leniency pays for GetConfigForClient")
	}
	if v.TLS("unheard of") != nil {
		t.Error("got a config for a listener that Prepare was not told of")
	}
}
