package certs

import (
	"context"
	"time"

	"github.com/popgate/popgate/proxy/certs/storage"
)

// shareTickets keeps the ticket keys of the view in force the same as those of the gateways that share its storage, until ctx ends. Where
// nothing is shared each gateway has its own.
func (k *Keeper) shareTickets(ctx context.Context) {
	look := time.NewTicker(k.every)
	defer look.Stop()
	var from *storage.Store
	var synced time.Time
	rings := make(map[string]*storage.Tickets)
	for {
		if s := k.sharedStore(); s != from {
			from, rings = s, make(map[string]*storage.Tickets)
		}
		if k.join(from, rings) || time.Since(synced) >= storage.TicketsEvery {
			synced = time.Now()
			k.syncTickets(ctx, from, rings)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// sharedStore is the storage of the view in force, nil where there is none.
func (k *Keeper) sharedStore() *storage.Store {
	if v := k.view.Load(); v != nil && v.depot != nil {
		return v.depot.store
	}
	return nil
}

// join fits rings to the ticket keys in force, and says whether any was not there before.
func (k *Keeper) join(from *storage.Store, rings map[string]*storage.Tickets) (more bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for set := range rings {
		if k.tickets[set] == nil {
			delete(rings, set)
		}
	}
	for set := range k.tickets {
		if _, known := rings[set]; known {
			continue
		}
		rings[set] = nil // nothing is shared
		if from != nil {
			rings[set] = from.Tickets(set)
		}
		more = true
	}
	return more
}

// syncTickets asks the storage for each ring, and has the tickets follow.
func (k *Keeper) syncTickets(ctx context.Context, from *storage.Store, rings map[string]*storage.Tickets) {
	for set, ring := range rings {
		var keys [][32]byte
		stale := false
		if ring != nil {
			// Of a storage that is down, it speaks itself.
			if err := ring.Sync(ctx); err != nil && ctx.Err() == nil && from.Health() == nil {
				k.log.Warn("session ticket keys are not shared with the other gateways", "keys", set, "error", err)
			}
			keys, stale = ring.Keys(), ring.Stale()
		}
		k.mu.Lock()
		t := k.tickets[set]
		k.mu.Unlock()
		if t != nil {
			t.share(keys, stale)
		}
	}
}
