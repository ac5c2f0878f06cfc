//go:build unix

package directory

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/popgate/popgate/auth"
)

// BenchmarkPostgres is what a cold cache costs: 64 lookups at once of users among 100,000, with the server on the same cores.
func BenchmarkPostgres(b *testing.B) {
	const users, atOnce = 100_000, 64
	d := newPostgres(b)
	d.exec(b, "CREATE TABLE users (email text PRIMARY KEY, backend text, host text, port int, mailbox text)",
		fmt.Sprintf(`INSERT INTO users SELECT 'u' || n || '@example.org', NULL, '10.0.0.' || mod(n, 250) + 1, 110, 'm' || n FROM generate_series(0, %d) n`, users-1),
		"ANALYZE users")
	for _, prepare := range []bool{true, false} {
		b.Run(fmt.Sprintf("prepare=%v", prepare), func(b *testing.B) {
			c := d.config("")
			c.Query = `SELECT backend, host, port, mailbox AS "user" FROM users WHERE email = :user`
			c.Prepare = prepare
			o, err := newSQL("bench", c, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = o.Close() }()
			var mu sync.Mutex
			var took []time.Duration
			b.SetParallelism(atOnce / runtime.GOMAXPROCS(0))
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				var mine []time.Duration
				for pb.Next() {
					name := fmt.Sprintf("u%d@example.org", rand.IntN(users))
					start := time.Now()
					if _, err := o.Lookup(b.Context(), &auth.Query{Name: auth.Name{Typed: name}}); err != nil {
						b.Error(err)
						return
					}
					mine = append(mine, time.Since(start))
				}
				mu.Lock()
				took = append(took, mine...)
				mu.Unlock()
			})
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
		})
	}
}
