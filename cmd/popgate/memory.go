package main

import (
	"context"
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// gcPercent trades memory for CPU while logins come: a session leaves little behind, so the collector would run many
// times a second to keep a small heap small. What is saved then, tidy gives back when it is quiet.
const gcPercent = 200

// tidy sets the collector's target, and gives memory back to the system once the rush that used it is over. A busy
// gateway is left alone: there it would cost and gain nothing.
func tidy(ctx context.Context) error {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var before uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		metrics.Read(samples)
		allocs, live, objects := samples[0].Value.Uint64(), samples[1].Value.Uint64(), samples[2].Value.Uint64()
		quiet := allocs-before < 1<<20
		before = allocs
		if garbage := int64(objects) - int64(live); quiet && garbage > int64(live)/8+1<<20 {
			debug.FreeOSMemory()
		}
	}
}

// keepPasswordsOutOfCoreDumps switches core dumps off, for they would hold the passwords at work.
func keepPasswordsOutOfCoreDumps(log *slog.Logger) {
	if err := noCoreDumps(); err != nil {
		log.Warn("switch core dumps off; set LimitCORE=0 in the service's unit", "error", err)
	}
}
