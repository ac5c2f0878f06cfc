package policy

import (
	"context"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

// Outcome is what became of a login.
type Outcome int

// The outcomes. A login that has none yet when the visit closes is Undecided.
const (
	Undecided Outcome = iota // nobody said whether the password is right
	Accepted                 // the password is right
	Refused                  // the user or the password is wrong
)

// A Visit is one client's stay, from Admit to Close. It goes through any number of rounds of Attempt, Enter and Done,
// of which a new one ends the one before. Only one goroutine at a time may use it, and none after Close.
type Visit struct {
	gate    *Gate
	network store.Key
	user    store.Key // of the login that Enter told of
	exempt  bool
	entered bool // user is known
	placed  bool // a session of user's is counted
	closed  bool
	failure turn // taken until the login in flight proves to be no failure
	login   turn // taken by the login that was accepted
}

// A turn is one that a rate granted, kept so that it can be given back.
type turn struct {
	held bool
	paid int64
}

func (t *turn) take(kp *Keeper, r *limit.Rates, k store.Key, rate limit.Rate) bool {
	if rate.Off() {
		return true
	}
	t.paid, t.held = r.Take(k, rate, kp.now())
	return t.held
}

func (t *turn) give(kp *Keeper, r *limit.Rates, k store.Key, rate limit.Rate) {
	if t.held {
		r.Give(k, rate, t.paid, kp.now())
		t.held = false
	}
}

// Attempt begins a login, before anything is looked up for it. It fails with ErrLoginsPerIP when too many from the
// client's network failed, those in flight included: then the login is over.
func (v *Visit) Attempt(_ context.Context, _ *auth.Credentials) error {
	v.giveBack()
	g, c := v.gate.keeper, &v.gate.config
	if !v.exempt && !v.failure.take(g, g.failures, v.network, c.LoginsPerIP) {
		return ErrLoginsPerIP
	}
	return nil
}

// Enter says where the login goes. What it will count there is counted in Done, and not before: a place held for a
// login whose password nobody has checked is a place that a stranger could keep from the user.
func (v *Visit) Enter(_ context.Context, r *auth.Route) error {
	v.leave()
	v.user, v.entered = v.gate.keeper.hasher.Pair(r.Backend, r.Account), true
	return nil
}

// Done says what became of the login. Accepted may fail with ErrSessionsPerUser or ErrLoginsPerUser: the password was
// right, and the session must not go on. An Accepted that did not fail may be taken back by Undecided, as when the
// login cannot be recorded.
func (v *Visit) Done(_ context.Context, o Outcome) error {
	switch o {
	case Refused:
		v.failure.held = false // spent: time alone brings it back
		v.giveBack()
		return nil
	case Accepted:
		return v.accept()
	default:
		v.giveBack()
		return nil
	}
}

func (v *Visit) accept() error {
	g, c := v.gate.keeper, &v.gate.config
	v.failure.give(g, g.failures, v.network, c.LoginsPerIP)
	if !v.entered || v.placed {
		return nil
	}
	most := c.SessionsPerUser
	if v.exempt {
		most = 0
	}
	if !g.users.Add(v.user, most) {
		return ErrSessionsPerUser
	}
	v.placed = true
	if !v.exempt && !v.login.take(g, g.logins, v.user, c.LoginsPerUser) {
		v.leave()
		return ErrLoginsPerUser
	}
	return nil
}

// Close ends the visit and gives back every count it holds, at whatever stage it is; a login in flight is Undecided.
// Only what time alone brings back stays: failures, and the logins that were accepted. It may be called again.
func (v *Visit) Close() {
	if v.closed {
		return
	}
	v.closed = true
	v.login.held = false // spent
	v.giveBack()
	v.gate.keeper.networks.Remove(v.network)
	v.gate.keeper.sessions.Add(-1)
}

// giveBack undoes what the login of this round has taken.
func (v *Visit) giveBack() {
	g := v.gate.keeper
	v.failure.give(g, g.failures, v.network, v.gate.config.LoginsPerIP)
	v.leave()
}

// leave undoes what was counted for the user.
func (v *Visit) leave() {
	g := v.gate.keeper
	v.login.give(g, g.logins, v.user, v.gate.config.LoginsPerUser)
	if v.placed {
		g.users.Remove(v.user)
	}
	v.entered, v.placed = false, false
}
