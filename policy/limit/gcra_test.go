package limit_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/popgate/popgate/policy/limit"
)

const second = int64(time.Second)

func TestTake(t *testing.T) {
	perMinute := limit.Rate{Count: 3, Per: time.Minute}
	type step struct {
		at   int64
		want bool
	}
	tests := []struct {
		name  string
		rate  limit.Rate
		steps []step
	}{
		{"all at once, then none", perMinute, []step{{0, true}, {0, true}, {0, true}, {0, false}, {19 * second, false}}},
		{"one comes back each third", perMinute,
			[]step{{0, true}, {0, true}, {0, true}, {20 * second, true}, {20 * second, false}, {40 * second, true}}},
		{"all are back after the whole", perMinute,
			[]step{{5, true}, {5, true}, {5, true}, {5 + 60*second, true}, {5 + 60*second, true}, {5 + 60*second, true}, {5 + 60*second, false}}},
		{"a refusal costs nothing", limit.Rate{Count: 1, Per: time.Second},
			[]step{{0, true}, {second / 2, false}, {second - 1, false}, {second, true}}},
		{"burst above the rate", limit.Rate{Count: 1, Per: time.Second, Burst: 3},
			[]step{{0, true}, {0, true}, {0, true}, {0, false}, {second, true}, {second, false}, {4 * second, true}, {4 * second, true}, {4 * second, true}, {4 * second, false}}},
		{"burst below the rate", limit.Rate{Count: 60, Per: time.Minute, Burst: 1},
			[]step{{0, true}, {0, false}, {second, true}, {second, false}, {60 * second, true}, {60 * second, false}}},
		{"off", limit.Rate{}, []step{{0, true}, {0, true}, {0, true}}},
		{"faster than the clock", limit.Rate{Count: 3_000_000_000, Per: time.Second}, []step{{0, true}, {0, true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var tat int64
			for i, s := range tt.steps {
				next, ok := tt.rate.Take(tat, s.at)
				if ok != s.want {
					t.Fatalf("step %d at %v: got %v, want %v", i, time.Duration(s.at), ok, s.want)
				}
				if !ok && next > tat {
					t.Fatalf("step %d: a refusal moved the time from %d to %d", i, tat, next)
				}
				tat = next
			}
		})
	}
}

// TestTakeAfterReload: what a slow rate left behind must not outlast the faster rate that replaced it.
func TestTakeAfterReload(t *testing.T) {
	slow, fast := limit.Rate{Count: 1, Per: time.Hour}, limit.Rate{Count: 2, Per: time.Second}
	tat, _ := slow.Take(0, 0)
	tat, ok := fast.Take(tat, 1)
	if ok {
		t.Error("the faster rate at once: got a turn, want none, for all were taken")
	}
	if _, ok = fast.Take(tat, 1+second/2); !ok {
		t.Errorf("the faster rate after half a second: got none, want a turn (taken for %v)", time.Duration(tat))
	}
}

func TestGive(t *testing.T) {
	rate := limit.Rate{Count: 2, Per: 2 * time.Second} // a turn comes back each second
	tests := []struct {
		name           string
		tat, paid, now int64
		want           int64
	}{
		{"at once", second, second, 0, 0},
		{"not yet begun", 2 * second, 2 * second, 0, second},
		{"half of it back by time", second, second, second / 2, second / 2},
		{"wholly back by time, another's turn stays", 6 * second, second, 5 * second, 6 * second},
		{"nothing kept any more", 0, second, 5 * second, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := rate.Give(tt.tat, tt.paid, tt.now); got != tt.want {
				t.Errorf("got %v, want %v", time.Duration(got), time.Duration(tt.want))
			}
		})
	}
	if got := (limit.Rate{}).Give(5, 6, 1); got != 5 {
		t.Errorf("off: got %d, want it unchanged", got)
	}
}

// TestGCRA checks against what a rate promises, whatever the times: in any stretch no more than the burst and one for
// each Per/Count of it; and when every turn was given back, all are free.
func TestGCRA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := limit.Rate{Count: rapid.IntRange(1, 20).Draw(t, "count"), Per: time.Minute, Burst: rapid.IntRange(0, 60).Draw(t, "burst")}
		turn, burst := int64(rate.Per)/int64(rate.Count), rate.Burst
		if burst == 0 {
			burst = rate.Count
		}
		var tat, now, granted int64
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += rapid.Int64Range(0, 2*turn).Draw(t, "wait")
			next, ok := rate.Take(tat, now)
			if ok {
				granted++
			}
			tat = next
			if most := int64(burst) + now/turn; granted > most {
				t.Fatalf("after %v: got %d turns, want at most %d", time.Duration(now), granted, most)
			}
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		rate := limit.Rate{Count: rapid.IntRange(1, 20).Draw(t, "count"), Per: time.Minute}
		turn := int64(rate.Per) / int64(rate.Count)
		var tat, now int64
		var out []int64
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			now += rapid.Int64Range(0, turn).Draw(t, "wait")
			if next, ok := rate.Take(tat, now); ok && rapid.Bool().Draw(t, "take") {
				tat, out = next, append(out, next)
			} else if len(out) > 0 {
				i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
				before := tat
				tat = rate.Give(tat, out[i], now)
				if tat > before || before-tat > turn {
					t.Fatalf("a turn of %v: giving moved %v to %v", time.Duration(turn), time.Duration(before), time.Duration(tat))
				}
				out = append(out[:i], out[i+1:]...)
			}
		}
		for _, paid := range out {
			tat = rate.Give(tat, paid, now)
		}
		if tat > now {
			t.Fatalf("all given back: %v are still taken", time.Duration(tat-now))
		}
	})
}

func BenchmarkTake(b *testing.B) {
	rate := limit.Rate{Count: 60, Per: time.Minute}
	var tat, now int64
	b.ReportAllocs()
	for b.Loop() {
		now += second
		tat, _ = rate.Take(tat, now)
	}
}
