package policy

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

// What a Visit may be refused with. Whoever talks to the client decides what it is told.
var (
	// ErrSessions means that there are as many sessions as there may be.
	ErrSessions = errors.New("too many sessions")
	// ErrSessionsPerIP means that the client's network has as many sessions as it may have.
	ErrSessionsPerIP = errors.New("too many sessions from this network")
	// ErrLoginsPerIP means that too many logins from the client's network failed.
	ErrLoginsPerIP = errors.New("too many failed logins from this network")
	// ErrSessionsPerUser means that the user, whose password was right, has as many sessions as one may have.
	ErrSessionsPerUser = errors.New("too many sessions of this user")
	// ErrLoginsPerUser means that the user, whose password was right, logged in too often.
	ErrLoginsPerUser = errors.New("too many logins of this user")
)

// maxRates is how many networks, and how many users, have the times of their logins kept: 16 MiB each when all are.
const maxRates = 1 << 20

// A Keeper keeps what is counted. It is made once and outlives every Gate; many may use it at once.
type Keeper struct {
	start  time.Time // the zero of the clock that rates go by; its monotonic reading is what counts
	hasher store.Hasher

	sessions atomic.Int64
	networks *store.Counts // sessions by client network
	users    *store.Counts // sessions by user
	failures *limit.Rates  // by client network
	logins   *limit.Rates  // by user
}

// New returns a Keeper that has counted nothing. It starts nothing and needs no closing.
func New() *Keeper {
	return &Keeper{
		start:    time.Now(),
		hasher:   store.NewHasher(),
		networks: store.NewCounts(),
		users:    store.NewCounts(),
		failures: limit.NewRates(maxRates),
		logins:   limit.NewRates(maxRates),
	}
}

// Prepare makes a Gate of c, which has passed Validate. It shares the counts with all Gates before.
func (k *Keeper) Prepare(c Config) *Gate {
	return &Gate{keeper: k, config: c}
}

func (k *Keeper) now() int64 { return int64(time.Since(k.start)) }

// enter counts one more session, unless there are most; most <= 0 is no bound. It never counts one too many in
// passing, or clients would be refused while there is room.
func (k *Keeper) enter(most int) bool {
	for {
		n := k.sessions.Load()
		if most > 0 && n >= int64(most) {
			return false
		}
		if k.sessions.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// A Gate admits clients by one configuration. It does not change; many may use it at once.
type Gate struct {
	keeper *Keeper
	config Config
}

// Admit lets a client in, before any crypto is spent on it. It fails with ErrSessions or ErrSessionsPerIP; else the
// caller owes the visit its Close. The visit goes by this gate until its end.
func (g *Gate) Admit(_ context.Context, c *auth.Client) (*Visit, error) {
	exempt := g.exempt(c.Addr.Addr())
	all, each := g.config.Sessions, g.config.SessionsPerIP
	if exempt {
		all, each = 0, 0
	}
	if !g.keeper.enter(all) {
		return nil, ErrSessions
	}
	network := g.keeper.hasher.Network(c.Network())
	if !g.keeper.networks.Add(network, each) {
		g.keeper.sessions.Add(-1)
		return nil, ErrSessionsPerIP
	}
	return &Visit{gate: g, network: network, exempt: exempt}, nil
}

func (g *Gate) exempt(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range g.config.Exempt {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
