package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// trusting is a client that has imported the view's CA file.
func trusting(t *testing.T, v *View, name string) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(must(os.ReadFile(v.local.ca.file))) {
		t.Fatalf("%s holds no certificate", v.local.ca.file)
	}
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// prepareLocal makes a view of the local CA for names and puts it in force.
func prepareLocal(t *testing.T, k *Keeper, names ...string) *View {
	t.Helper()
	v, err := k.Prepare(DefaultConfig(), names, []Listener{{Name: "pop3s", DefaultName: "Mail.example.org"}}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	k.Use(v)
	return v
}

func TestLocalCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "state")
	log, logger := newLog()
	v := prepareLocal(t, New(dir, logger, nil), "pop.example.org", "192.0.2.1", "*.tenants.example.org", "POP.example.org")

	rec, _ := log.wait(t, "no certificates configured")
	if line := text(rec); rec.Level != slog.LevelWarn || !strings.Contains(line, v.local.ca.file) || !strings.Contains(line, "tls.certificates") {
		t.Errorf("the warning does not say where the CA is and how to get real certificates: %s", line)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700 | fs.ModeDir, filepath.Join(dir, caKeyFile): 0o600, v.local.ca.file: 0o644} {
		if got := must(os.Stat(path)).Mode(); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
	}
	if entries := must(os.ReadDir(dir)); len(entries) != 2 {
		t.Errorf("state_dir holds %v, want the two files", entries)
	}
	for _, name := range []string{"mail.example.org", "pop.example.org", "192.0.2.1", "a.tenants.example.org"} {
		if _, err := shake(v.TLS("pop3s"), trusting(t, v, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := shake(v.TLS("pop3s"), trusting(t, v, "stranger.example.com")); err == nil {
		t.Error("issued for a name that was not configured")
	}
	if got, want := fmt.Sprint(v.Certificates()[0].Names), "[mail.example.org pop.example.org *.tenants.example.org 192.0.2.1]"; got != want {
		t.Errorf("got names %s, want %s", got, want)
	}
}

// TestLocalCAIsStrict holds what strict verifiers (OpenSSL's -x509_strict, Apple's) ask for.
func TestLocalCAIsStrict(t *testing.T) {
	v := prepareLocal(t, New(t.TempDir(), nil, nil))
	ca, leaf := v.local.ca.cert, v.local.certs[0].Leaf

	if !ca.IsCA || !ca.BasicConstraintsValid || ca.MaxPathLen != 0 || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("CA: is CA %v, path length %d, key usage %b", ca.IsCA, ca.MaxPathLen, ca.KeyUsage)
	}
	if leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage != x509.KeyUsageDigitalSignature ||
		len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth {
		t.Errorf("leaf: is CA %v, key usage %b, extended %v", leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage)
	}
	if len(ca.SubjectKeyId) == 0 || !bytes.Equal(leaf.AuthorityKeyId, ca.SubjectKeyId) {
		t.Errorf("leaf's authority key id %x is not the CA's key id %x", leaf.AuthorityKeyId, ca.SubjectKeyId)
	}
	for name, c := range map[string]*x509.Certificate{"CA": ca, "leaf": leaf} {
		if key, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
			t.Errorf("%s: key is no ECDSA P-256", name)
		}
		if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > 159 || c.SerialNumber.BitLen() < 64 {
			t.Errorf("%s: serial %v is not random, positive and of at most 20 octets", name, c.SerialNumber)
		}
		if c.NotBefore.After(time.Now().Add(-time.Minute)) {
			t.Errorf("%s: a clock a little behind refuses it", name)
		}
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 397*24*time.Hour {
		t.Errorf("leaf lives %v, clients refuse more than 397 days", life)
	}
	again := must(v.local.ca.issue([]string{"mail.example.org"})).Leaf
	if again.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
		t.Error("a serial was used twice")
	}
}

func TestLocalCAIsKept(t *testing.T) {
	dir := t.TempDir()
	k := New(dir, nil, nil)
	before := prepareLocal(t, k, "pop.example.org")
	trust := trusting(t, before, "pop.example.org")

	same := prepareLocal(t, k, "pop.example.org")
	if same.local.certs[0] != before.local.certs[0] {
		t.Error("a reload issued another certificate for the same names")
	}
	more := prepareLocal(t, k, "pop.example.org", "new.example.org")
	if more.local.certs[0] == before.local.certs[0] {
		t.Error("a new name did not get into the certificate")
	}
	restarted := prepareLocal(t, New(dir, nil, nil), "pop.example.org")
	if _, err := shake(restarted.TLS("pop3s"), trust); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if err := os.Remove(before.local.ca.file); err != nil {
		t.Fatal(err)
	}
	healed := prepareLocal(t, New(dir, nil, nil), "pop.example.org")
	if _, err := shake(healed.TLS("pop3s"), trust); err != nil {
		t.Errorf("a client that trusts the lost CA file: %v", err)
	}
}

func TestLocalCAMadeAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	cas := make([]*authority, 8)
	var wg sync.WaitGroup
	for i := range cas {
		wg.Go(func() { cas[i], _ = openAuthority(dir) })
	}
	wg.Wait()
	for _, ca := range cas {
		if ca == nil || !ca.cert.Equal(cas[0].cert) {
			t.Fatal("two processes made two CAs")
		}
	}
}

func TestLocalCARenews(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		log, logger := newLog()
		k := New(dir, logger, nil)
		k.every = day
		v := prepareLocal(t, k)
		ca := v.local.ca
		ca.cert.NotAfter = time.Now().Add(200 * day)
		trust := trusting(t, v, "mail.example.org")
		run(t, k)
		first := v.local.certs[0]
		<-time.After(45 * day)
		synctest.Wait()
		if got := v.table.Load().fallback[0]; got != first {
			t.Error("renewed at half its life")
		}
		<-time.After(135 * day)
		synctest.Wait()
		if _, err := shake(v.TLS("pop3s"), trust); err != nil {
			t.Errorf("after two lives: %v", err)
		}
		if got := v.Certificates()[0].NotAfter; got.After(ca.cert.NotAfter) {
			t.Errorf("issued until %v, the CA ends at %v", got, ca.cert.NotAfter)
		}
		log.take()
		<-time.After(21 * day)
		log.wait(t, "renew what the local CA issued")
	})
}

func TestLocalNames(t *testing.T) {
	got, err := localNames(nil, []Listener{{Name: "pop3s"}})
	text := fmt.Sprint(got)
	if err != nil || !strings.Contains(text, "localhost 127.0.0.1 ::1") {
		t.Errorf("got %s, %v", text, err)
	}
	if host, err := normal(must(os.Hostname())); err == nil && got[0] != host {
		t.Errorf("got %s first, want the host's name %s", got[0], host)
	}
	for _, err := range []error{
		fault(localNames([]string{"a b"}, nil)),
		fault(localNames(nil, []Listener{{Name: "pop3s", DefaultName: "a b"}})),
	} {
		if p := Problems(err); len(p) != 1 || p[0].Key != "tls" || !strings.Contains(p[0].Problem, `"a b"`) {
			t.Errorf("got %v, want a problem that names the name", err)
		}
	}
	many := []string{"192.0.2.1"}
	for i := range 2 * namesPerCert {
		many = append([]string{fmt.Sprintf("mail%d.example.org", i)}, many...)
	}
	v := prepareLocal(t, New(t.TempDir(), nil, nil), many...)
	config := trusting(t, v, "mail7.example.org")
	if _, err := shake(v.TLS("pop3s"), config); err != nil || len(v.local.certs) != 3 {
		t.Errorf("%d certificates for 202 names: %v", len(v.local.certs), err)
	}
	if _, err := shake(v.TLS("pop3s"), trusting(t, v, "192.0.2.1")); err != nil {
		t.Errorf("a client that names none does not get the address: %v", err)
	}
}

func fault(_ []string, err error) error { return err }

func TestStateDirProblems(t *testing.T) {
	base := t.TempDir()
	write(t, filepath.Join(base, "file"), nil)
	// kept makes a state directory with a CA, to be spoilt.
	kept := func(name string) string {
		dir := filepath.Join(base, name)
		if _, err := openAuthority(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	spoil := func(dir, name string, data []byte) string {
		write(t, filepath.Join(dir, name), data)
		return dir
	}
	noKey := kept("no key")
	if err := os.Remove(filepath.Join(noKey, caKeyFile)); err != nil {
		t.Fatal(err)
	}
	ca := kept("other")
	certPEM, keyPEM := pemPair(nil, nil, "mail.example.org")
	for _, tt := range []struct {
		name, dir string
		says      []string
	}{
		{"not set", "", []string{"not set", "certificates under tls"}},
		{"below a file", filepath.Join(base, "file", "state"), []string{"file/state", "not a directory", "set state_dir", "certificates under tls"}},
		{"cannot be made", "/proc/popgate", []string{"/proc/popgate", "set state_dir", "certificates under tls"}},
		{"key lost", noKey, []string{caKeyFile, "restore the key", "remove"}},
		{"key damaged", spoil(kept("a"), caKeyFile, []byte("x")), []string{caKeyFile, "damaged", "remove"}},
		{"certificate damaged", spoil(kept("b"), caFile, []byte("x")), []string{caFile, "damaged", "remove"}},
		{"another's certificate", spoil(kept("c"), caFile, must(os.ReadFile(filepath.Join(ca, caFile)))), []string{"belong", "remove"}},
		{"a server's pair", spoil(spoil(kept("d"), caFile, certPEM), caKeyFile, keyPEM), []string{"no CA certificate", "remove"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.dir, nil, nil).Prepare(DefaultConfig(), nil, []Listener{{Name: "pop3s"}}, Deps{})
			problems := Problems(err)
			if len(problems) != 1 || problems[0].Key != "state_dir" {
				t.Fatalf("got %v, want one problem with state_dir", err)
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
		})
	}

	dir := kept("old")
	synctest.Test(t, func(t *testing.T) {
		<-time.After(50 * 365 * 24 * time.Hour) // the bubble begins in 2000, the CA's ten years today
		if _, err := openAuthority(dir); err == nil || !strings.Contains(err.Error(), "expired on") {
			t.Errorf("an expired CA: got %v", err)
		}
	})
}
