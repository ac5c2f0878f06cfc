//go:build unix

package directory

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkPostgresPaced is a cache that knows nobody yet, as after a restart: 2,000 logins a second of as many users come, whether
// those before have been answered or not, with the database on the same cores. What a login takes is counted from when it should have
// come, so that a benchmark that falls behind does not look better for it.
func BenchmarkPostgresPaced(b *testing.B) {
	const users, rate = 100_000, 2000
	s := newPostgres(b)
	s.exec(b, "CREATE TABLE users (email text PRIMARY KEY, backend text, host text, port int, mailbox text)",
		fmt.Sprintf(`INSERT INTO users SELECT 'u' || n || '@example.org', 'old', NULL, NULL, 'm' || n FROM generate_series(0, %d) n`, users-1),
		"ANALYZE users")
	c := s.config("")
	c.Query = `SELECT backend, host, port, mailbox AS "user" FROM users WHERE email = :user`
	b.Run(fmt.Sprintf("rate=%d", rate), func(b *testing.B) {
		o, err := newSQL("bench", c, nil)
		if err != nil {
			b.Fatal(err)
		}
		d := cacheOver(b, o.Source, o.Vary)
		var logins sync.WaitGroup
		took := make([]time.Duration, b.N)
		failed := make(chan error, 1)
		b.ResetTimer()
		start := time.Now()
		timer := time.NewTimer(0)
		for i := range b.N {
			due := start.Add(time.Duration(i) * time.Second / rate)
			if early := time.Until(due); early > 0 {
				timer.Reset(early)
				<-timer.C
			}
			q := askFor(b, fmt.Sprintf("u%d@example.org", i%users), "")
			logins.Go(func() {
				f, err := d.Lookup(b.Context(), q)
				took[i] = time.Since(due)
				if err == nil && f.How == Cached && i < users {
					err = fmt.Errorf("lookup %d came from the cache", i)
				}
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
		logins.Wait()
		b.StopTimer()
		select {
		case err := <-failed:
			b.Fatal(err)
		default:
		}
		slices.Sort(took)
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(took[len(took)*p/100].Microseconds())/1000, fmt.Sprintf("ms-p%d", p))
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
	})
}
