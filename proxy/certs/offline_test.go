package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLastError: what one issuer failed with is told with its name, and is gone once another one has helped.
func TestLastError(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	c := p.config("mail.example.org")
	dead := Issuer{CA: "https://" + freeAddress(t) + "/dir", CARoot: p.caFile}
	c.ACME.Issuers = []Issuer{dead, c.ACME.Issuers[0]}
	r, v := startRig(t, t.TempDir(), c, nil)
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	eventually(t, "the end of the visit", func() bool {
		st := r.status("mail.example.org")
		return len(st) == 1 && !st[0].NotAfter.IsZero() && st[0].LastError == ""
	})
	if got := r.log.take(); len(got) == 0 {
		t.Error("nothing is logged")
	}

	p.stop()
	if err := r.k.Renew(t.Context(), "mail.example.org"); err == nil {
		t.Fatal("renewed by nobody")
	}
	st := r.status("mail.example.org")[0]
	for _, iss := range c.ACME.Issuers {
		if host := strings.TrimSuffix(strings.TrimPrefix(iss.CA, "https://"), "/dir"); !strings.Contains(st.LastError, "from "+host+": ") {
			t.Errorf("the last error is %q, want what %s failed with", st.LastError, host)
		}
	}
	if strings.Contains(st.LastError, "\n") || st.NotAfter.IsZero() {
		t.Errorf("the status is %+v", st)
	}
}

// TestOfflineHasAll: with no gateway at work, all is listed that a gateway would serve, and what failed.
func TestOfflineHasAll(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	p.dns.set(p.dns.addrs, "bad.example.org", "127.9.9.9") // where nobody listens
	dir, folder := t.TempDir(), t.TempDir()
	c := p.config("mail.example.org", "bad.example.org")
	c.ACME.Missing = missingLocalCA
	certPEM, keyPEM := pemPair(nil, func(c *x509.Certificate) { c.Subject.CommonName = "some box" })
	c.Certificates = []Files{issueFiles(t, folder, "file", "file.example.org", "b.example.org"), put(t, folder, "nameless", certPEM, keyPEM)}
	r, v := startRig(t, dir, c, nil)
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	r.log.wait(t, "no certificate for now")
	failed := r.status("bad.example.org")[0]
	r.stop() // at once: what is known is written at the end

	c.Certificates = append(c.Certificates, Files{Cert: filepath.Join(folder, "none.crt"), Key: filepath.Join(folder, "none.key")})
	c.ACME.Domains = append(c.ACME.Domains, "new.example.org")
	s := must(Offline(c, dir))
	defer func() { _ = s.Close() }()
	list, err := s.List(t.Context())
	var got []string
	for _, st := range list {
		got = append(got, fmt.Sprintf("%s %s %v", st.Source, strings.TrimPrefix(st.Name, folder+"/"), !st.NotAfter.IsZero()))
	}
	host := must(os.Hostname())
	want := fmt.Sprintf("[file file.example.org true file nameless.crt true file none.crt false acme bad.example.org false "+
		"acme mail.example.org true acme new.example.org false local %s true]", short("popgate local CA "+host))
	if err != nil || fmt.Sprint(got) != want {
		t.Fatalf("%v\n got %v\nwant %v", err, got, want)
	}
	if none := list[2]; !strings.Contains(none.LastError, "put the file there") {
		t.Errorf("a file that is not there: %+v", none)
	}
	bad := list[3]
	if bad.LastError != failed.LastError || bad.LastError == "" || !bad.LastErrorAt.Equal(failed.LastErrorAt) || !bad.NextRenewal.Equal(failed.NextRenewal) {
		t.Errorf("got %+v\nwant what the gateway said: %+v", bad, failed)
	}
	if ok := list[4]; ok.LastError != "" || ok.NextRenewal.IsZero() {
		t.Errorf("got %+v", ok)
	}

	// Files can be exported, too.
	certPEM, keyPEM, err = s.Export(t.Context(), "b.example.org")
	if err != nil {
		t.Fatal(err)
	}
	if pair, err := tls.X509KeyPair(certPEM, keyPEM); err != nil || pair.Leaf.DNSNames[0] != "file.example.org" {
		t.Errorf("exported %v, %v", pair.Leaf, err)
	}

	// Once the order went well the failure is forgotten.
	p.dns.set(p.dns.addrs, "bad.example.org", "127.0.0.1")
	c.Certificates = nil
	c.ACME.Domains = c.ACME.Domains[:2]
	r, v = startRig(t, dir, c, nil)
	shaken(t, v.TLS("pop3s"), p.clientFor("bad.example.org"))
	r.stop()
	for _, st := range must(must(Offline(c, dir)).List(t.Context())) {
		if st.LastError != "" {
			t.Errorf("got %+v", st)
		}
	}
}

// TestTroubleIsRemoved: a failure that has ended leaves nothing in the storage, and one that came after the certificate is shown with it.
func TestTroubleIsRemoved(t *testing.T) {
	p := startPebble(t, pebbleOptions{})
	dir := t.TempDir()
	c := p.config("mail.example.org")
	r, v := startRig(t, dir, c, nil)
	shaken(t, v.TLS("pop3s"), p.clientFor("mail.example.org"))
	p.dns.set(p.dns.addrs, "mail.example.org", "127.9.9.9")
	if err := r.k.Renew(t.Context(), "mail.example.org"); err == nil {
		t.Fatal("renewed")
	}
	offline := func() Status {
		s := must(Offline(c, dir))
		defer func() { _ = s.Close() }()
		all := must(s.List(t.Context()))
		if len(all) != 1 {
			t.Fatalf("got %+v", all)
		}
		return all[0]
	}
	eventually(t, "the failure is stored", func() bool { return offline().LastError != "" })
	if st := offline(); st.NotAfter.IsZero() || time.Until(st.NextRenewal) > 24*time.Hour {
		t.Errorf("got %+v, want the certificate, and the next try", st)
	}
	p.dns.set(p.dns.addrs, "mail.example.org", "127.0.0.1")
	if err := r.k.Renew(t.Context(), "mail.example.org"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failure is removed", func() bool {
		left, err := filepath.Glob(filepath.Join(dir, "acme", troubleDir, "*"))
		return err == nil && len(left) == 0
	})
	if st := offline(); st.LastError != "" {
		t.Errorf("got %+v", st)
	}
}

// TestOfflineStorageDown: what lies in files is listed all the same.
func TestOfflineStorageDown(t *testing.T) {
	c := withFiles(issueFiles(t, t.TempDir(), "file", "file.example.org"))
	c.ACME.Domains, c.ACME.Agree = []string{"mail.example.org"}, true
	c.ACME.Storage.Type, c.ACME.Storage.Encryption = "redis", "none"
	c.ACME.Storage.Redis.Addresses = []string{freeAddress(t)}
	c.ACME.Storage.LocalCopy = false
	s := must(Offline(c, t.TempDir()))
	defer func() { _ = s.Close() }()
	list, err := s.List(t.Context())
	if err == nil || len(list) != 2 || list[0].Name != "file.example.org" || list[1].Name != "mail.example.org" {
		t.Errorf("got %+v, %v", list, err)
	}
	if _, _, err := s.Export(t.Context(), "file.example.org"); err != nil {
		t.Errorf("export: %v", err)
	}
}
