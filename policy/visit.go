package policy

import (
	"context"
	"errors"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/legacy"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
	"github.com/popgate/popgate/policy/wforce"
)

// Outcome is what became of a login.
type Outcome int

// The outcomes. A login that has none yet when the visit closes is Undecided.
const (
	Undecided Outcome = iota // nobody said whether the password is right
	Accepted                 // the password is right
	Refused                  // the password is wrong
	Unknown                  // there is no such user; it counts as Refused
	Barred                   // the password is right, and the user may not log in
)

// A Visit is one client's stay, from Admit to Close. It goes through any number of rounds of Attempt, Hold, Enter and Done, of
// which a new Attempt ends the one before; after one that was accepted comes Settle. Only one goroutine at a time may use it, and
// none after Close; after Settle one may call Download while another calls Commands.
type Visit struct {
	gate    *Gate
	client  *auth.Client
	held    []store.Ask // places, until Close
	shaking []store.Ask // places of the handshake under way
	entry   *entry      // nil after Settle
	pacers  *pacers     // nil where nothing is paced
	closed  bool
}

// Handshake takes a place for a TLS handshake. It fails with LimitError; else the caller owes Handshaken.
func (v *Visit) Handshake(ctx context.Context) error {
	if v.entry == nil || !v.gate.limits.Any(limit.Handshake) {
		return nil
	}
	v.Handshaken()
	asks := v.gate.asks(nil, limit.Handshake, v.entry)
	if err := v.gate.take(ctx, asks); err != nil {
		return err
	}
	v.shaking = asks
	return nil
}

// Handshaken ends what Handshake began. It may be called without.
func (v *Visit) Handshaken() {
	v.gate.give(v.shaking)
	v.shaking = nil
}

// Attempt begins a login, before anything is looked up for it. It fails with ErrLockedOut or LimitError: then the login is over. q is
// the caller's again after Hold.
func (v *Visit) Attempt(ctx context.Context, q *auth.Query) error {
	e, g := v.entry, v.gate
	e.abandon(g)
	e.query, e.verdict = q, e.origin
	if access.Legacy(v.client.TLS) {
		e.name = q.Name.Full()
	}
	lockedOut := g.locks && !e.who.Exempt && !e.knock(v)
	if e.try.Known() { // what others did must not keep it out
		return nil
	}
	if lockedOut {
		if err := e.refusesOthers(ctx, g); err != nil {
			return err
		}
		return ErrLockedOut
	}
	asks := g.asks(e.failing, limit.Attempt, e)
	if err := g.take(ctx, asks); err != nil {
		return err
	}
	e.failing = asks
	return nil
}

// Hold waits for as long as the failures before the login cost, and then asks the policy service. It fails with wforce.ErrRefused or
// wforce.ErrDown, or when ctx ends.
func (v *Visit) Hold(ctx context.Context) error {
	e := v.entry
	if err := pause(ctx, e.wait); err != nil {
		return err
	}
	e.asked = v.gate.wforce.Login(e.query)
	e.query = nil
	err := e.asked.Allow(ctx)
	if errors.Is(err, wforce.ErrRefused) {
		e.asked.Report(wforce.Outcome{PolicyReject: true, FailType: wforce.FailPolicy})
		e.asked = nil
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Toll is how much later than at its ordinary pace a refusal of the login in flight must leave, what Hold has waited of it included, so
// that its time tells neither who is locked out nor who is known in the network. It is to be asked before Done.
func (v *Visit) Toll() time.Duration { return max(v.entry.toll, v.entry.try.Toll()) }

// Enter says where the login goes; again, where it goes to another backend after the first. It fails with AccessError or LimitError.
// What it will count for the user is counted in Done, and not before: a place held for a login whose password nobody has checked is
// a place that a stranger could keep from the user.
func (v *Visit) Enter(ctx context.Context, to *auth.Route) error {
	e, g := v.entry, v.gate
	e.who.Route = to
	verdict := g.access.User(ctx, v.client, to, time.Now())
	e.verdict, e.barred = e.origin, access.Verdict{}
	switch {
	case verdict.Action == access.Deny && !verdict.Reason.Origin():
		e.barred = verdict // for who has the right password
	case verdict.Action != access.Allow:
		e.verdict = verdict
	}
	if verdict.Action == access.Deny && verdict.Reason.Origin() {
		return &AccessError{Verdict: verdict}
	}
	if e.entered || e.try.Known() {
		return nil
	}
	asks := g.asks(e.failing, limit.Entry, e)
	if err := g.take(ctx, asks[len(e.failing):]); err != nil {
		return err
	}
	e.failing, e.entered = asks, true
	return nil
}

// Done says what became of the login. Accepted may fail with AccessError or LimitError: the password was right, and the session must
// not go on. One that did not fail is made final by Settle, or taken back by Undecided, as when it cannot be recorded. Refused may fail
// with the LimitError that others from there are refused with: the client is to be told that, or it could tell who is known there.
func (v *Visit) Done(ctx context.Context, o Outcome) error {
	e, g := v.entry, v.gate
	switch o {
	case Accepted:
		err := e.accept(ctx, g)
		e.report(o, err)
		if err == nil {
			return nil
		}
		e.abandon(g)
		return err
	case Refused, Unknown:
		known := e.try.Known()
		e.try.Failed()
		e.failing = e.failing[:0] // spent: time alone brings them back
		e.report(o, nil)
		e.abandon(g)
		if known {
			return e.refusesOthers(ctx, g)
		}
		return nil
	}
	e.report(o, nil)
	e.abandon(g)
	return nil
}

// Settle makes an accepted login final. There is none after it.
func (v *Visit) Settle() {
	e := v.entry
	if access.Legacy(v.client.TLS) {
		v.mark(time.Now())
	}
	v.pacers = newPacers(v.gate, e)
	v.held = append(v.held, places(e.earned)...)
	e.release()
	v.entry = nil
}

// mark notes that the user has come by the legacy lane.
func (v *Visit) mark(now time.Time) {
	to, version := v.entry.who.Route, ""
	if v.client.TLS != nil {
		version = v.client.TLS.Version
	}
	v.gate.keeper.legacy.Mark(legacy.Mark{
		User: v.entry.name, Tenant: to.Tenant, Listener: v.client.Listener, Network: v.client.Network(), Version: version,
		Until: v.gate.access.LegacyUntil(v.client, to), When: now,
	})
}

// Repeated says that the password of the login that was refused last had been wrong before, for the same user from the same network.
func (v *Visit) Repeated() bool { return v.entry != nil && v.entry.try.Again() }

// Verdict is what a rule of access holds against the client or the login: one that refused it, or one that only logs.
func (v *Visit) Verdict() access.Verdict {
	if v.entry == nil {
		return access.Verdict{}
	}
	return v.entry.verdict
}

// Close ends the visit and gives back every place it holds, at whatever stage it is; a login in flight is Undecided. Only what time
// alone brings back stays: failures, and the logins that were accepted. It may be called again.
func (v *Visit) Close() {
	if v.closed {
		return
	}
	v.closed = true
	v.Handshaken()
	if v.entry != nil {
		v.entry.abandon(v.gate)
		v.entry.release()
		v.entry = nil
	}
	v.gate.give(v.held)
	v.held = nil
}
