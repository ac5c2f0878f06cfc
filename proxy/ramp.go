package proxy

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/popgate/popgate/policy/limit"
)

// A ramp bounds the rate at which one listener takes connections after a start: everybody who was connected before comes back at
// once. Only the listener's accept loop uses it; those who are not taken yet wait in the system's queue.
type ramp struct {
	began  time.Time
	length time.Duration
	rate   int // of the first step
	free   int // connections that need no turn
	step   int
	turns  *limit.Pacer
}

// rampSteps is how often the rate doubles.
const rampSteps = 6

// newRamp is the ramp of a gateway that has served since began, nil where there is none. Its length and rate are up to a fifth off.
func newRamp(began time.Time, b *Bounds) *ramp {
	jitter := 0.8 + 0.4*rand.Float64()
	r := &ramp{
		began: began, length: time.Duration(float64(b.AcceptRamp) * jitter), free: b.AcceptBurst,
		rate: max(1, int(float64(b.AcceptRate)/jitter)), // a longer one begins more slowly
	}
	if r.length <= 0 || time.Since(began) >= r.length {
		return nil
	}
	return r
}

// wait holds a connection that was taken until its turn, and says for how long it has. over says that there will be no more turns.
func (r *ramp) wait(ctx context.Context) (waited time.Duration, over bool) {
	now := time.Now()
	step := int(now.Sub(r.began) * rampSteps / r.length)
	if step >= rampSteps {
		return 0, true
	}
	if r.free > 0 {
		r.free--
		return 0, false
	}
	if r.turns == nil || step != r.step {
		r.step, r.turns = step, limit.NewPacer(r.rate<<step)
	}
	_ = r.turns.Wait(ctx, r.length) // it fails where the gateway is cut off, and the connection with it
	return time.Since(now), false
}
