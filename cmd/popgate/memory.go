package main

import (
	"context"
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// gcPercent trades memory for CPU while logins come: a session leaves little behind, so the collector would run many
// times a second to keep a small heap small. Measured: 100 costs 3 % more CPU a login; 400 saves 1 % more, but leaves
// the heap of 2,000 idle sessions full of holes, 3 KB for each.
const gcPercent = 200

// A rush is over when for restTicks times tidyEvery less than rushBytes were allocated each time: fewer than some
// ten logins.
const (
	tidyEvery = 500 * time.Millisecond
	rushBytes = 512 << 10
	restTicks = 3 // sessions have fallen quiet by then, and left the stacks they needed
)

// tidy sets the collector's target, and gives memory back to the system once a rush is over. A busy gateway is left
// alone: there it would cost and gain nothing.
func tidy(ctx context.Context) error {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	allocs := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	var before uint64
	rested, rush := 0, true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		metrics.Read(allocs)
		now := allocs[0].Value.Uint64()
		if now-before >= rushBytes {
			rested, rush = 0, true
		} else {
			rested++
		}
		before = now
		if rush && rested == restTicks {
			debug.FreeOSMemory()
			rush = false
		}
	}
}

// keepPasswordsOutOfCoreDumps switches core dumps off, for they would hold the passwords at work.
func keepPasswordsOutOfCoreDumps(log *slog.Logger) {
	if err := noCoreDumps(); err != nil {
		log.Warn("switch core dumps off; set LimitCORE=0 in the service's unit", "error", err)
	}
}
