package certs

import (
	"crypto/tls"
	"strings"
	"testing"
)

// oldClient speaks one version at most, with the given suites, and trusts whatever it is shown.
func oldClient(version uint16, suites ...uint16) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version, CipherSuites: suites}
}

// The legacy lane takes what other listeners do not, and today's clients as they do; nothing goes from one to the other.
func TestLegacy(t *testing.T) {
	dir := t.TempDir()
	ec := issueFiles(t, dir, "ec", "mail.example.org")
	certPEM, keyPEM := pemPair(testRSA(), nil, "mail.example.org")
	old := put(t, dir, "rsa", certPEM, keyPEM)
	logs, log := newLog()
	k := New(dir, log, nil)
	c := withFiles(ec, old)
	c.MinVersion = "1.3"
	v := prepare(t, k, c, Listener{Name: "pop3s"}, Listener{Name: "old", Legacy: true, LenientALPN: true, DefaultName: "mail.example.org"})
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		for _, suite := range []uint16{
			tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
		} {
			cs, err := shake(v.TLS("old"), oldClient(version, suite))
			if err != nil || cs.Version != version || cs.CipherSuite != suite {
				t.Errorf("%s with %s: got %v", tls.VersionName(version), tls.CipherSuiteName(suite), err)
				continue
			}
			if got, want := cs.PeerCertificates[0].SerialNumber.String(), serial(t, old); got != want {
				t.Errorf("%s with %s: got certificate %s, want the RSA one, %s", tls.VersionName(version), tls.CipherSuiteName(suite), got, want)
			}
			if _, err := shake(v.TLS("pop3s"), oldClient(version, suite)); err == nil {
				t.Errorf("%s with %s on the other listener: let in", tls.VersionName(version), tls.CipherSuiteName(suite))
			}
		}
	}
	if _, err := shake(v.TLS("old"), oldClient(tls.VersionTLS10, tls.TLS_RSA_WITH_RC4_128_SHA)); err == nil {
		t.Error("RC4: let in")
	}
	cs, err := shake(v.TLS("old"), oldClient(tls.VersionTLS12))
	if err != nil || cs.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 && cs.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 {
		t.Errorf("a better client got %s, %v", tls.CipherSuiteName(cs.CipherSuite), err)
	}
	if cs, err := shake(v.TLS("old"), client("mail.example.org")); err != nil || cs.Version != tls.VersionTLS13 {
		t.Errorf("a client of today got %s, %v", tls.VersionName(cs.Version), err)
	}
	for _, rec := range logs.take() {
		if strings.Contains(rec.Message, "RSA") {
			t.Errorf("logged: %s", text(rec))
		}
	}
}

// Old clients take their sessions up, on the legacy lane alone: not on another listener, nor on the same one once it is none any more.
func TestLegacyTickets(t *testing.T) {
	dir := t.TempDir()
	certPEM, keyPEM := pemPair(testRSA(), nil, "mail.example.org")
	k := New(dir, nil, nil)
	c := withFiles(put(t, dir, "rsa", certPEM, keyPEM))
	before := prepare(t, k, c, Listener{Name: "old", Legacy: true}, Listener{Name: "pop3s"})
	after := prepare(t, k, c, Listener{Name: "old"}, Listener{Name: "pop3s"})
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		here := resumer(version)
		here.MinVersion = tls.VersionTLS10
		resumes(t, before.TLS("old"), here)
		if !resumes(t, before.TLS("old"), here) {
			t.Errorf("%s: never resumes", tls.VersionName(version))
		}
		if version < tls.VersionTLS12 {
			continue
		}
		if resumes(t, after.TLS("old"), here) {
			t.Errorf("%s: resumed where the listener is no legacy one any more", tls.VersionName(version))
		}
		if resumes(t, before.TLS("old"), here); resumes(t, before.TLS("pop3s"), here) {
			t.Errorf("%s: resumed on another listener", tls.VersionName(version))
		}
	}
}

// Without an RSA certificate old clients find nothing they can use, which somebody should hear of.
func TestLegacyWantsRSA(t *testing.T) {
	dir := t.TempDir()
	logs, log := newLog()
	prepare(t, New(dir, log, nil), withFiles(issueFiles(t, dir, "ec", "mail.example.org")), Listener{Name: "old", Legacy: true})
	if rec, _ := logs.wait(t, "the legacy listener has no RSA certificate"); !strings.Contains(text(rec), "listener=old") {
		t.Errorf("logged: %s", text(rec))
	}
}
