package certs

import (
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"
)

// resumer is a client that keeps its sessions.
func resumer(version uint16) *tls.Config {
	c := client("mail.example.org")
	c.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	c.MaxVersion = version
	return c
}

func resumes(t *testing.T, server, client *tls.Config) bool {
	t.Helper()
	cs, err := shake(server, client)
	if err != nil {
		t.Fatal(err)
	}
	return cs.DidResume
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func TestTicketsSurviveReload(t *testing.T) {
	dir := t.TempDir()
	k := New(dir, nil, nil)
	c := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
	ls := []Listener{{Name: "pop3s"}, {Name: "other"}, {Name: "odd", LenientALPN: true}}
	for _, version := range versions {
		before := prepare(t, k, c, ls...)
		here := resumer(version)
		if resumes(t, before.TLS("pop3s"), here) {
			t.Fatal("resumed without a ticket")
		}
		if !resumes(t, before.TLS("pop3s"), here) {
			t.Fatal("never resumes")
		}
		c.Certificates[0] = issueFiles(t, dir, "renewed", "mail.example.org")
		after := prepare(t, k, c, ls...)
		if !resumes(t, after.TLS("pop3s"), here) {
			t.Errorf("%s: a reload lost the ticket keys", tls.VersionName(version))
		}
		if !resumes(t, before.TLS("pop3s"), here) {
			t.Errorf("%s: an old view does not take new tickets", tls.VersionName(version))
		}
		if resumes(t, after.TLS("other"), here) {
			t.Errorf("%s: a ticket of one listener resumed on another", tls.VersionName(version))
		}

		// One ticket, with and without ALPN: strict and lenient config share the keys.
		odd := resumer(version)
		resumes(t, after.TLS("odd"), odd)
		odd.NextProtos = []string{"imap"}
		if !resumes(t, after.TLS("odd"), odd) {
			t.Errorf("%s: the lenient config has ticket keys of its own", tls.VersionName(version))
		}
	}
}

func TestTicketKeysRotate(t *testing.T) {
	dir := t.TempDir()
	for _, version := range versions {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := New(dir, nil, nil)
				c := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
				old := prepare(t, k, c).TLS("pop3s")
				now := prepare(t, k, c).TLS("pop3s")
				clone := now.Clone()
				run(t, k)

				soon, late := resumer(version), resumer(version)
				resumes(t, now, soon)
				resumes(t, now, late)
				<-time.After(24*time.Hour + time.Minute)
				synctest.Wait()
				if !resumes(t, now, soon) {
					t.Error("a ticket under the key before is refused")
				}
				for name, config := range map[string]*tls.Config{"old view": old, "clone": clone} {
					if !resumes(t, config, soon) {
						t.Errorf("%s did not get the new key", name)
					}
				}
				<-time.After(48 * time.Hour)
				synctest.Wait()
				if resumes(t, now, late) {
					t.Error("a ticket of three days ago still resumes")
				}
			})
		})
	}
}
