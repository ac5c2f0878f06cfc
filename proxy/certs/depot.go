package certs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/popgate/popgate/proxy/certs/storage"
)

// depot is an open storage and what it was made of. Views with the same configuration share one.
type depot struct {
	config storage.Config
	stamp  [sha256.Size]byte // of the files that it names
	store  *storage.Store
}

// depotFor gives the depot of the view in force, if it has the same configuration, or a new one.
func (k *Keeper) depotFor(c storage.Config) (*depot, error) {
	// Before reading, or a change meanwhile would be missed at the next reload.
	stamp := c.Stamp()
	if v := k.view.Load(); v != nil && v.depot != nil && reflect.DeepEqual(v.depot.config, c) && v.depot.stamp == stamp {
		return v.depot, nil
	}
	s, err := openStorage(c, k.stateDir, k.log)
	if err != nil {
		return nil, err
	}
	return &depot{config: c, stamp: stamp, store: s}, nil
}

// Discard ends what Prepare opened for a view that will never be used. What it shares with the view in force stays open, so a view that
// is in force is not touched. A nil View is fine.
func (v *View) Discard() {
	if v == nil || v.depot == nil {
		return
	}
	if now := v.keeper.view.Load(); now != nil && now.depot == v.depot {
		return
	}
	_ = v.depot.store.Close()
}

// depots runs what runs beside the storage of the view in force. Only the manager's run touches it.
type depots struct {
	m       *manager
	now     *depot
	stop    context.CancelFunc
	running sync.WaitGroup
}

func (d *depots) follow(ctx context.Context) {
	next := d.m.depot.Load()
	if next == d.now {
		return
	}
	if old := d.now; old != nil {
		d.stop()
		// Orders begun with it may still be at work, and nothing asks for its connections meanwhile.
		time.AfterFunc(2*orderTimeout, func() { _ = old.store.Close() })
	}
	d.now = next
	if next == nil {
		return
	}
	running, stop := context.WithCancel(ctx)
	d.stop = stop
	d.running.Go(func() { _ = next.store.Run(running) }) // it ends with its context, without an error
}

func (d *depots) close() {
	if d.now != nil {
		d.stop()
		d.running.Wait()
		_ = d.now.store.Close()
	}
}

// Trouble says what keeps certificates from being obtained and renewed, or session ticket keys from being shared, nil if nothing does. What
// is at hand is served on, so it is a note for whoever looks at /readyz, and no reason to send clients elsewhere.
func (k *Keeper) Trouble() error {
	v := k.view.Load()
	if v == nil || v.depot == nil {
		return nil
	}
	err := v.depot.store.Health()
	switch {
	case err == nil:
		return nil
	case v.acme == nil:
		return fmt.Errorf("new session ticket keys are shared with no other gateway: %w", err)
	}
	return fmt.Errorf("none is obtained or renewed: %w", err)
}
