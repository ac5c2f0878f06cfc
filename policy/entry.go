package policy

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/policy/store"
	"github.com/popgate/popgate/policy/wforce"
)

// An entry is what a visit must know until it has logged in, and the login in flight. It is borrowed: a session that only carries
// mail does without.
type entry struct {
	who     limit.Subject
	origin  access.Verdict // of a rule that only logs where the client comes from
	verdict access.Verdict // the same, or of a rule that logs or has refused the login

	// Of the login in flight:
	query   *auth.Query // until Hold
	name    string      // as lists have it, where the client comes by the legacy lane
	try     lockout.Try
	wait    time.Duration // what the failures before cost
	toll    time.Duration // what they cost a refusal: wait is part of it
	asked   *wforce.Login
	entered bool           // what is taken for a tenant is taken
	barred  access.Verdict // to be told after the right password
	failing []store.Ask    // turns that stay taken where the login fails
	earned  []store.Ask    // what the right password takes
}

var entries = sync.Pool{New: func() any { return new(entry) }}

// release gives the entry back with nothing in it but its room.
func (e *entry) release() {
	*e = entry{failing: e.failing[:0], earned: e.earned[:0]}
	entries.Put(e)
}

// abandon ends the login in flight, undecided where nobody has decided, and gives back what it has taken.
func (e *entry) abandon(g *Gate) {
	e.try.Undecided()
	e.report(Undecided, nil)
	g.give(e.failing)
	g.give(e.earned)
	e.who.Route = nil
	e.query, e.name, e.wait, e.entered, e.barred = nil, "", 0, false, access.Verdict{}
	e.failing, e.earned = e.failing[:0], e.earned[:0]
}

// knock says whether the failures before let the login go on, and what they cost it.
func (e *entry) knock(v *Visit) bool {
	k, q := v.gate.keeper.lockout, e.query
	var verdict lockout.Verdict
	e.try, verdict = v.gate.lockout.Attempt(lockout.Login{
		Network: k.Network(v.client.Network()), User: k.User(q.Name.Key), Secret: k.Secret(q.Secret.Reveal()), Name: q.Name.Key,
	})
	e.wait, e.toll = verdict.Wait, max(verdict.Wait, verdict.Toll)
	return verdict.Action != lockout.Refuse
}

// refusesOthers fails with the LimitError of a client from there whose failures are counted, and takes nothing. A login that goes by
// other rules, being locked out or known, must be answered as that client is: the answer would tell which of them it is.
func (e *entry) refusesOthers(ctx context.Context, g *Gate) error {
	asks := g.asks(e.failing, limit.Attempt, e)
	e.failing = asks[:0]
	if err := g.take(ctx, asks); err != nil {
		return err
	}
	g.give(asks)
	return nil
}

// accept takes what the right password takes.
func (e *entry) accept(ctx context.Context, g *Gate) error {
	e.try.Succeeded()
	g.give(e.failing)
	g.give(e.earned)
	e.failing, e.earned = e.failing[:0], e.earned[:0]
	if e.barred.Action == access.Deny {
		e.verdict = e.barred
		return &AccessError{Verdict: e.barred, Told: true}
	}
	asks := g.asks(e.earned, limit.Acceptance, e)
	if err := g.take(ctx, asks); err != nil {
		return err
	}
	e.earned = asks
	return nil
}

// report tells the policy service what became of the login, once; err is why one with the right password does not go on.
func (e *entry) report(o Outcome, err error) {
	if e.asked == nil {
		return
	}
	told := wforce.Outcome{Success: o == Accepted && err == nil}
	_, limited := errors.AsType[*LimitError](err)
	switch {
	case told.Success:
	case limited:
		told.FailType = wforce.FailPolicy
	case o == Accepted, o == Barred:
		told.FailType = wforce.FailDisabled
	case o == Refused:
		told.FailType = wforce.FailCredentials
	case o == Unknown:
		told.FailType = wforce.FailAccount
	default:
		told.FailType = wforce.FailInternal
	}
	e.asked.Report(told)
	e.asked = nil
}
