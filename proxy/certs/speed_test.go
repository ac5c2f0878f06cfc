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
	"slices"
	"testing"
	"time"

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
	k := New(t.TempDir(), nil, nil)
	v, err := k.Prepare(offDemand(), nil, []Listener{{Name: "pop3s"}}, Deps{Knows: func(string) bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.dropCache)
	k.Use(v)
	names := make([]string, n)
	for i := range n {
		names[i] = fmt.Sprintf("mail.c%d.example.org", i)
		certPEM, keyPEM := pemPair(nil, nil, names[i])
		one := &site{place: place{name: names[i]}, cert: new(must(tls.X509KeyPair(certPEM, keyPEM)))}
		e := &managed{name: names[i], origin: configured}
		k.acme.all[names[i]] = e
		k.acme.install(e, []*site{one})
	}
	return v, names
}

// BenchmarkHandshake is a whole handshake, both ends, with one and with 10,000 names in memory, in turns. The medians must not differ by more
// than 5 %; what else the machine does goes into a mean. The names that are asked for have been so before: crypto/ecdsa prepares a key at its first use, which takes some 0.1 ms.
func BenchmarkHandshake(b *testing.B) {
	type side struct {
		v     *View
		asked []string
		spent []time.Duration
	}
	var sides [2]side
	for i, n := range []int{1, 10_000} {
		v, names := fill(b, n)
		sides[i].v = v
		for j := range min(n, 64) {
			sides[i].asked = append(sides[i].asked, names[j*7919%n])
		}
	}
	shakeOne := func(s *side, i int) time.Duration {
		c := client(s.asked[i%len(s.asked)])
		began := time.Now()
		if _, err := shake(s.v.TLS("pop3s"), c); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	for i := range 64 {
		shakeOne(&sides[0], i)
		shakeOne(&sides[1], i)
	}
	for i := 0; b.Loop(); i++ {
		for j := range sides {
			j = (i + j) % len(sides)
			sides[j].spent = append(sides[j].spent, shakeOne(&sides[j], i))
		}
	}
	var medians [2]float64
	for i, s := range sides {
		slices.Sort(s.spent)
		medians[i] = float64(s.spent[len(s.spent)/2])
	}
	b.ReportMetric(medians[0], "ns/1-name")
	b.ReportMetric(medians[1], "ns/10000-names")
	b.ReportMetric(medians[1]/medians[0], "ratio")
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
	const n = 2000
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
