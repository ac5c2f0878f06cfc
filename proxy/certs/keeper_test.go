package certs

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/popgate/popgate/proxy/certs/storage"
)

func TestUseWarns(t *testing.T) {
	dir := t.TempDir()
	at := func(base string, from, to time.Duration) Files {
		certPEM, keyPEM := pemPair(nil, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to)
		}, base+".example.org")
		return put(t, dir, base, certPEM, keyPEM)
	}
	day := 24 * time.Hour
	log, logger := newLog()
	prepare(t, New(dir, logger, nil),
		withFiles(at("good", -60*day, 30*day), at("gone", -90*day, -day), at("late", -80*day, 10*day), at("early", day, 90*day)),
		Listener{Name: "pop3s", DefaultName: "good.example.org"}, Listener{Name: "odd", DefaultName: "mail.example.org"})

	got := texts(log.take())
	want := []string{"expired", "gone.crt", "two thirds", "late.crt", "not valid yet", "early.crt", "default_name", "odd"}
	if len(got) != len(want)/2 {
		t.Fatalf("got %d warnings: %s", len(got), strings.Join(got, "\n"))
	}
	for i, line := range got {
		if !strings.Contains(line, want[2*i]) || !strings.Contains(line, want[2*i+1]) {
			t.Errorf("got %q, want %q about %s", line, want[2*i], want[2*i+1])
		}
	}
}

func TestPrepareChangesNothing(t *testing.T) {
	dir := t.TempDir()
	k := New(dir, nil, nil)
	c := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
	running := prepare(t, k, c).TLS("pop3s")
	here := resumer(0)
	resumes(t, running, here)
	if _, err := k.Prepare(withFiles(Files{"/no/cert", "/no/key"}), nil, []Listener{{Name: "pop3s"}}, Deps{}); err == nil {
		t.Fatal("no error for missing files")
	}
	if _, err := k.Prepare(c, nil, []Listener{{Name: "another"}}, Deps{}); err != nil {
		t.Fatal(err)
	}
	if !resumes(t, running, here) || len(k.tickets) != 1 {
		t.Errorf("a view that was not used changed what runs: %d sets of ticket keys", len(k.tickets))
	}
}

func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	reg := prometheus.NewPedanticRegistry()
	k := New(dir, nil, reg)
	count := func(want string) {
		t.Helper()
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "popgate_certificate_reloads_total", "popgate_certificate_expiry_timestamp_seconds"); err != nil {
			t.Error(err)
		}
	}
	const counters = `
# HELP popgate_certificate_reloads_total Changed certificate files by result: ok (in force) or error (the certificate before stays in force).
# TYPE popgate_certificate_reloads_total counter
`
	count(counters + `
popgate_certificate_reloads_total{result="error"} 0
popgate_certificate_reloads_total{result="ok"} 0
`)
	until := func(base string, unix int64, names ...string) Files {
		certPEM, keyPEM := pemPair(nil, func(c *x509.Certificate) { c.NotAfter = time.Unix(unix, 0) }, names...)
		return put(t, dir, base, certPEM, keyPEM)
	}
	mail := until("mail", 4_000_000_000, "mail.example.org", "pop.example.org")
	prepare(t, k, withFiles(mail, until("rsa", 3_900_000_000, "mail.example.org"), until("wild", 3_800_000_000, "*.example.org")))

	until("rsa", 3_950_000_000, "mail.example.org")
	write(t, mail.Key, []byte("rubbish"))
	k.poll()
	k.poll()
	count(counters + `
popgate_certificate_reloads_total{result="error"} 1
popgate_certificate_reloads_total{result="ok"} 1
# HELP popgate_certificate_expiry_timestamp_seconds When a configured certificate expires, by its first name; the earliest where several share it.
# TYPE popgate_certificate_expiry_timestamp_seconds gauge
popgate_certificate_expiry_timestamp_seconds{name="*.example.org"} 3.8e+09
popgate_certificate_expiry_timestamp_seconds{name="mail.example.org"} 3.95e+09
`)
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}

	sources := make([]source, maxSeries+5)
	for i := range sources {
		leaf := &x509.Certificate{NotAfter: time.Unix(int64(1e9+i), 0)}
		leaf.DNSNames = []string{time.Duration(i).String() + ".example.org"}
		sources[i] = source{cert: &tls.Certificate{Leaf: leaf}}
	}
	k.view.Load().table.Store(newTable(sources))
	if got := testutil.CollectAndCount(k.metrics, "popgate_certificate_expiry_timestamp_seconds"); got != maxSeries {
		t.Errorf("got %d series, want at most %d", got, maxSeries)
	}
}

// TestStorageMetrics: they are those of the storage in use, which reloads change.
func TestStorageMetrics(t *testing.T) {
	dir := t.TempDir()
	reg := prometheus.NewPedanticRegistry()
	k := New(dir, nil, reg)
	files := withFiles(issueFiles(t, dir, "mail", "mail.example.org"))
	files.ACME.Domains, files.ACME.Agree = []string{"other.example.org"}, true
	down := files
	down.ACME.Storage.Type, down.ACME.Storage.Encryption = storage.TypeRedis, storage.EncryptionNone
	down.ACME.Storage.Redis.Addresses = []string{filepath.Join(dir, "nobody")}
	for _, tt := range []struct {
		name   string
		config Config
		want   string
	}{
		{"files", files, `popgate_certificate_storage_up{type="file"} 1`},
		{"the same again", files, `popgate_certificate_storage_up{type="file"} 1`},
		{"another one", down, `popgate_certificate_storage_up{type="redis"} 0`},
		{"none", withFiles(files.Certificates...), ""},
		{"files again", files, `popgate_certificate_storage_up{type="file"} 1`},
	} {
		prepare(t, k, tt.config)
		want := tt.want
		if s := k.sharedStore(); s != nil {
			t.Cleanup(func() { _ = s.Close() })
			_ = s.Probe(t.Context())
			want = `
# HELP popgate_certificate_storage_up Whether the certificate storage answers and takes writes (1) or not (0), by its type.
# TYPE popgate_certificate_storage_up gauge
` + want + "\n"
		}
		if s := k.sharedStore(); s != nil && s.Health() != nil {
			want += `
# HELP popgate_certificate_storage_errors_total Requests to the certificate storage that failed, by operation.
# TYPE popgate_certificate_storage_errors_total counter
popgate_certificate_storage_errors_total{operation="load"} 1
`
		}
		err := testutil.GatherAndCompare(reg, strings.NewReader(want), "popgate_certificate_storage_up", "popgate_certificate_storage_errors_total")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
