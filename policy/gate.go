package policy

import (
	"context"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/policy/store"
	"github.com/popgate/popgate/policy/wforce"
)

// A Gate admits clients by one configuration. It does not change; many may use it at once.
type Gate struct {
	keeper  *Keeper
	limits  *limit.Rules
	lockout *lockout.View
	access  *access.Rules
	wforce  *wforce.View
	server  *wforce.ServerView // nil: popgate answers nobody
	locks   bool               // lockouts are on
}

// Admit lets a client in, before any crypto is spent on it. It fails with AccessError or LimitError; else the caller owes the visit
// its Close. The visit goes by this gate until its end. c must not change but for its TLS, which is nil until the handshake is done.
func (g *Gate) Admit(ctx context.Context, c *auth.Client) (*Visit, error) {
	verdict := g.access.Client(ctx, c)
	if verdict.Action == access.Deny {
		return nil, &AccessError{Verdict: verdict}
	}
	e := entries.Get().(*entry)
	e.who, e.origin, e.verdict = limit.Subject{Client: c, Exempt: g.limits.Exempt(c.Addr.Addr())}, verdict, verdict
	asks := g.asks(e.earned, limit.Admission, e)
	e.earned = asks[:0]
	if err := g.take(ctx, asks); err != nil {
		e.release()
		return nil, err
	}
	held := places(asks)
	v := &Visit{gate: g, client: c, entry: e, held: make([]store.Ask, len(held), len(held)+morePlaces)}
	copy(v.held, held)
	return v, nil
}

// morePlaces is how many places a login takes besides: of its user, and of the tenant.
const morePlaces = 2

// places keeps those of asks that have to be given back.
func places(asks []store.Ask) []store.Ask {
	n := 0
	for _, a := range asks {
		if a.Place() {
			asks[n] = a
			n++
		}
	}
	return asks[:n]
}

// asks appends what the limits ask for at a moment.
func (g *Gate) asks(to []store.Ask, m limit.Moment, e *entry) []store.Ask {
	return g.limits.Ask(to, m, &g.keeper.hasher, &e.who)
}

// take takes all of asks, or fails with LimitError.
func (g *Gate) take(ctx context.Context, asks []store.Ask) error {
	if len(asks) == 0 {
		return nil
	}
	if refused := g.keeper.state.Take(ctx, asks); refused >= 0 {
		return g.keeper.metrics.refused(asks[refused].Tag)
	}
	return nil
}

// give gives back what take took.
func (g *Gate) give(asks []store.Ask) {
	if len(asks) > 0 {
		g.keeper.state.Give(asks)
	}
}

// MaxLoginDelay is the longest time that must pass between two logins of a user; 0 for none.
func (g *Gate) MaxLoginDelay() time.Duration { return g.limits.MaxLoginDelay() }
