package certs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
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

// move puts a view's depot, nil for none, in the place of the one before.
func (m *manager) move(next *depot) {
	before := m.depot.Swap(next)
	if before == nil || before == next {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = append(m.left, before)
}

// takeLeft gives the depots that no view has any more, once.
func (m *manager) takeLeft() []*depot {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := m.left
	m.left = nil
	return left
}

// depots runs what runs beside the storage of the view in force. Only the manager's run touches it.
type depots struct {
	m       *manager
	now     *depot
	stop    context.CancelFunc
	running sync.WaitGroup
	old     []leaving
}

// leaving is a depot that is to be closed.
type leaving struct {
	*depot
	at time.Time
}

func (d *depots) follow(ctx context.Context) {
	d.retire(time.Now())
	next := d.m.depot.Load()
	if next == d.now {
		return
	}
	if d.now != nil {
		d.stop()
	}
	d.now = next
	if next == nil {
		return
	}
	running, stop := context.WithCancel(ctx)
	d.stop = stop
	d.running.Go(func() { _ = next.store.Run(running) }) // it ends with its context, without an error
}

// retire closes what views before had, also one that was in force for a moment only: orders begun with it may still be at work, so that is
// done later, and nothing asks for its connections meanwhile.
func (d *depots) retire(now time.Time) {
	for _, one := range d.m.takeLeft() {
		d.old = append(d.old, leaving{one, now.Add(2 * orderTimeout)})
	}
	d.old = slices.DeleteFunc(d.old, func(l leaving) bool {
		if now.Before(l.at) {
			return false
		}
		_ = l.store.Close()
		return true
	})
}

// leaving says that there is something to close later.
func (d *depots) leaving() bool { return len(d.old) > 0 }

func (d *depots) close() {
	if d.now != nil {
		d.stop()
		d.running.Wait()
	}
	d.m.move(nil)
	now := time.Now()
	d.retire(now)
	d.retire(now.Add(2 * orderTimeout))
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
