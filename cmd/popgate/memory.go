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

// A rush is over when restTicks times in a row, tidyEvery each, little was allocated and few goroutines were begun:
// less than some ten logins do, or sessions that fall quiet and leave the stacks they needed.
const (
	tidyEvery      = 500 * time.Millisecond
	restTicks      = 2
	rushBytes      = 512 << 10
	rushGoroutines = 20
)

// tidy sets the collector's target, and gives memory back to the system once a rush is over. A busy gateway is left
// alone: there it would cost and gain nothing.
func tidy(ctx context.Context) error {
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	now := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/sched/goroutines-created:goroutines"}}
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	var bytes, goroutines uint64
	rested, rush := 0, true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		metrics.Read(now)
		if now[0].Value.Uint64()-bytes >= rushBytes || now[1].Value.Uint64()-goroutines >= rushGoroutines {
			rested, rush = 0, true
		} else {
			rested++
		}
		bytes, goroutines = now[0].Value.Uint64(), now[1].Value.Uint64()
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
