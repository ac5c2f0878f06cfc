package policy

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/popgate/popgate/policy/cluster"
	"github.com/popgate/popgate/policy/legacy"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/policy/store"
)

// A Cluster is what a node shares with others. The nil Cluster shares nothing.
type Cluster struct {
	node     string
	config   cluster.ShareConfig
	secret   cluster.Secret
	client   *cluster.Client
	bus      *cluster.Bus
	known    *cluster.Shelf
	lockouts *cluster.Shelf
	legacy   *cluster.Shelf
	moved    *cluster.Shelf
}

// MaxMoved is how many users who are being moved a cluster remembers the backends of.
const MaxMoved = 200_000

// Join makes a Cluster of a valid configuration, nil where nothing is shared. It reads the files that the configuration names, and
// connects to nothing: a Redis that is down shows when it is asked. node is this node's name. The error is auth.Faults.
func Join(c cluster.ShareConfig, node string, log *slog.Logger, reg prometheus.Registerer) (*Cluster, error) {
	if c.Off() {
		return nil, nil
	}
	s := &Cluster{node: node, config: c}
	var warning string
	var err error
	if s.secret, warning, err = cluster.ReadSecret(c.KeyFile); err != nil {
		return nil, within("cluster", err)
	}
	if warning != "" && log != nil {
		log.Warn("cluster: " + warning)
	}
	if s.client, err = cluster.New(c.Redis); err != nil {
		return nil, within("cluster.redis", err)
	}
	s.bus = cluster.NewBus(s.client, cluster.BusOptions{Key: s.secret.Derive("bus"), Log: log, Registerer: reg})
	shelf := func(part string, most int) *cluster.Shelf {
		return cluster.NewShelf(s.client, s.bus, part, cluster.ShelfOptions{Key: s.secret.Derive("facts"), Most: most, Log: log, Registerer: reg})
	}
	s.known, s.lockouts = shelf("known", lockout.MaxKnown), shelf("lockouts", lockout.MaxLockouts)
	s.legacy, s.moved = shelf("legacy", legacy.MaxUses), shelf("moved", MaxMoved)
	return s, nil
}

// counts are the counts of limits and their keys: those of all nodes, or of this one alone.
func (c *Cluster) counts(o Options) (State, store.Hasher) {
	memory := store.NewMemory(maxRates)
	if c == nil {
		return memory, store.NewHasher()
	}
	key := c.secret.Derive("counts")
	return store.NewShared(memory, c.client, c.config, store.SharedOptions{Node: c.node, Log: o.Log, Metrics: o.Registerer}), store.NewSharedHasher(key[:])
}

// lockout is what the lockouts of the nodes share.
func (c *Cluster) lockout() *lockout.Cluster {
	if c == nil {
		return nil
	}
	return &lockout.Cluster{Key: c.secret.Derive("lockouts"), Bus: c.bus, Known: c.known, Lockouts: c.lockouts}
}

// Moved gives what nodes share to know where users who are being moved logged in last. The shelf has room for MaxMoved facts.
func (c *Cluster) Moved() (key [32]byte, bus *cluster.Bus, shelf *cluster.Shelf) {
	return c.secret.Derive("moved"), c.bus, c.moved
}

// lane is what the nodes share of who uses the legacy lane.
func (c *Cluster) lane() *legacy.Cluster {
	if c == nil {
		return nil
	}
	return &legacy.Cluster{Key: c.secret.Derive("legacy"), Bus: c.bus, Shelf: c.legacy}
}

// parts are what has to go on in the background.
func (c *Cluster) parts() []func(context.Context) error {
	if c == nil {
		return nil
	}
	return []func(context.Context) error{c.bus.Run, c.known.Run, c.lockouts.Run, c.legacy.Run, c.moved.Run}
}

// trouble is what is not as it should be.
func (c *Cluster) trouble() error {
	if c == nil {
		return nil
	}
	return errors.Join(c.bus.Trouble(), c.known.Trouble(), c.lockouts.Trouble(), c.legacy.Trouble(), c.moved.Trouble())
}
