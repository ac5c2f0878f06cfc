package store

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cpu is what this process has used so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpu is how many seconds of it Redis has used so far.
func (r *server) cpu(b *testing.B) (seconds float64) {
	b.Helper()
	for line := range strings.Lines(r.do(b, "INFO", "cpu").(string)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			seconds += n
		}
	}
	return seconds
}

// BenchmarkSharedTake says what a decision costs this process: one place and the others turns, none of which is refused.
func BenchmarkSharedTake(b *testing.B) {
	for _, asked := range []int{1, 4} {
		for _, flight := range []int{1, 64} {
			b.Run(fmt.Sprintf("asks=%d/flight=%d", asked, flight), func(b *testing.B) {
				r := runServer(b)
				n := runNode(b, shareConfig(r.address))
				n.together(b)
				b.ReportAllocs()
				b.ResetTimer()
				begun, served := cpu(b), r.cpu(b)
				var wg sync.WaitGroup
				for range flight {
					wg.Go(func() { takeAndGive(b, n, asked, b.N/flight+1) })
				}
				wg.Wait()
				b.ReportMetric(float64((cpu(b)-begun).Microseconds())/float64(b.N), "cpu-µs/op")
				b.ReportMetric((r.cpu(b)-served)*1e6/float64(b.N), "redis-µs/op")
				if n.Trouble() != nil {
					b.Error(n.Trouble())
				}
			})
		}
	}
}

func takeAndGive(b *testing.B, n *node, asked, times int) {
	asks := make([]Ask, asked)
	for range times {
		for i := range asks {
			asks[i] = Ask{Key: Key(rand.Uint64() % 100_000), Most: 1_000_000}
			if i > 0 {
				asks[i].Turn = int64(time.Second)
			}
		}
		if n.Take(b.Context(), asks) != -1 {
			b.Error("refused")
		}
		n.Give(asks[:1])
	}
}

// BenchmarkSharedLogins says what decisions cost that come as those of logins do, some 6000 a second: not one behind the other, and not so
// many that calls are full anyway. What the waiting between them costs is part of it.
func BenchmarkSharedLogins(b *testing.B) {
	r := runServer(b)
	n := runNode(b, shareConfig(r.address))
	n.together(b)
	b.ResetTimer()
	begun, served, calls := cpu(b), r.cpu(b), n.calls(b)
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			for range b.N/60 + 1 {
				takeAndGive(b, n, 3, 1)
				<-time.After(rand.N(20 * time.Millisecond))
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64((cpu(b)-begun).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric((r.cpu(b)-served)*1e6/float64(b.N), "redis-µs/op")
	b.ReportMetric(float64(b.N)/float64(n.calls(b)-calls), "op/call")
}
