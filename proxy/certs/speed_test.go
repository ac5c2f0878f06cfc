package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/caddyserver/certmagic"
)

// store10k puts certificates of the test CA into the storage of c, as if its issuer had given them, for mail.c0.example.org and so on.
func store10k(t testing.TB, stateDir string, c Config, n int) []string {
	t.Helper()
	iss := &certmagic.ACMEIssuer{CA: c.ACME.issuers()[0].CA}
	storage := &certmagic.FileStorage{Path: filepath.Join(stateDir, "acme")}
	meta := must(json.Marshal(certmagic.CertificateResource{}))
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
	names := make([]string, n)
	for i := range n {
		names[i] = fmt.Sprintf("mail.c%d.example.org", i)
		p := place{issuer: iss.IssuerKey(), name: names[i]}
		certPEM, _ := pemPair(key, nil, names[i])
		for k, v := range map[string][]byte{p.certKey(): certPEM, p.keyKey(): keyPEM, p.metaKey(): meta} {
			if err := storage.Store(context.Background(), k, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return names
}

// fill puts n names into a manager's memory.
func fill(t testing.TB, n int) (*View, []string) {
	t.Helper()
	c := offDemand()
	dir := t.TempDir()
	names := store10k(t, dir, c, n)
	k := New(dir, nil, nil)
	v, err := k.Prepare(c, nil, []Listener{{Name: "pop3s"}}, Deps{Knows: func(string) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.dropCache)
	k.Use(v)
	m := k.acme
	for _, name := range names {
		sites, bad, err := v.acme.read(context.Background(), name)
		if err != nil || len(bad) > 0 || len(sites) != 1 {
			t.Fatalf("%s: %d certificates, %v, %v", name, len(sites), bad, err)
		}
		e := &managed{name: name, origin: configured}
		m.all[name] = e
		m.install(e, sites)
	}
	return v, names
}

// BenchmarkHandshake is a whole handshake, both ends, with so many names in memory. The two must not differ by more than 5 %.
func BenchmarkHandshake(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			v, names := fill(b, n)
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				if _, err := shake(v.TLS("pop3s"), client(names[i])); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPick is the choice of a certificate alone.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			v, names := fill(b, n)
			hello := &tls.ClientHelloInfo{}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				hello.ServerName = names[i]
				if v.pick(hello, false, "") == nil {
					b.Fatal("no certificate")
				}
			}
		})
	}
}

// BenchmarkRead is what a name that lies in the storage and not in memory costs its first handshake.
func BenchmarkRead(b *testing.B) {
	c := offDemand()
	dir := b.TempDir()
	names := store10k(b, dir, c, 1000)
	k := New(dir, nil, nil)
	v, err := k.Prepare(c, nil, nil, Deps{})
	if err != nil {
		b.Fatal(err)
	}
	defer k.dropCache()
	i := 0
	for b.Loop() {
		i = (i + 7) % len(names)
		if sites, _, err := v.acme.read(context.Background(), names[i]); err != nil || len(sites) != 1 {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory is what a name in memory takes.
func BenchmarkMemory(b *testing.B) {
	const n = 10_000
	heap := func() float64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return float64(s.HeapAlloc)
	}
	for b.Loop() {
		before := heap()
		v, names := fill(b, n)
		b.ReportMetric((heap()-before)/n, "B/name")
		runtime.KeepAlive(v)
		runtime.KeepAlive(names)
	}
}
