package directory

import (
	"fmt"
	"testing"
)

// A login whose answer is remembered.
func BenchmarkCached(b *testing.B) {
	d := cacheOver(b, &fakeSource{lookup: everybody}, VaryUser)
	for i := range 10_000 {
		if _, err := d.Lookup(b.Context(), askFor(b, fmt.Sprintf("user%d@example.org", i), "")); err != nil {
			b.Fatal(err)
		}
	}
	q := askFor(b, "user4711@example.org", "secret")
	b.ReportAllocs()
	for b.Loop() {
		if f, err := d.Lookup(b.Context(), q); err != nil || f.How != Cached {
			b.Fatal(f.How, err)
		}
	}
}

// A login that has to ask, without what the source takes.
func BenchmarkFresh(b *testing.B) {
	source := &fakeSource{lookup: everybody}
	d := cacheOver(b, source, VaryUser, func(c *Config) { c.Cache.TTL = 0 })
	q := askFor(b, "user4711@example.org", "secret")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Lookup(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(source.calls.Load())/float64(b.N), "asked/op")
}
