package lockout

import (
	"time"

	"github.com/popgate/popgate/policy/store"
)

// An Action is what a login may do.
type Action uint8

// The actions.
const (
	GoOn   Action = iota // the login goes on
	Delay                // it goes on after Verdict.Wait, whatever its password is
	Refuse               // it is answered as a wrong password is, at the same pace, and asks nobody
)

// A Verdict is what a login is told. Who relays it to a client tells nothing of it.
type Verdict struct {
	Action Action
	Wait   time.Duration
	// Toll is of a login that is refused: how long one with a wrong password would have waited. See Try.Toll.
	Toll time.Duration
}

// A Login is what is known of one before anything is looked up for it.
type Login struct {
	Network Network
	// User and Secret are Keeper.User and Keeper.Secret of what the client presented.
	User, Secret Key
	// Name is the user's name as events and lists tell it. It is kept only while the user is locked out from the network,
	// and never written.
	Name string
}

// A View decides by one configuration. It does not change; many may use it at once.
type View struct {
	keeper *Keeper
	config Config
}

// A Try is one login, begun by Attempt and ended by one of Failed, Succeeded and Undecided; of a second end nothing
// comes. The zero Try has ended. Only one goroutine at a time may use it.
type Try struct {
	view    *View
	login   Login
	pair    Key
	good    bool // goes by the known-good lane
	charged bool // counted as if it had failed, for its secret may be a new wrong one
	again   bool // its secret is one that was wrong before
}

// Attempt decides on a login, in memory and at once. Where it does not refuse, the caller owes the Try an end. Logins of
// a network that is exempt from everything are not brought here at all.
func (v *View) Attempt(l Login) (Try, Verdict) {
	if !v.config.Enabled {
		return Try{}, Verdict{}
	}
	k := v.keeper
	now := k.now()
	t := Try{view: v, login: l, pair: pair(l.Network.key, l.User)}
	good, ok := v.askKnown(&t, now)
	if !good {
		return v.attemptUnknown(t, now)
	}
	if !ok || k.lockedOut(t.pair, now, true) {
		t.release(now)
		k.metrics.knownGood.Inc()
		return Try{}, Verdict{Action: Refuse, Toll: v.toll(&t, now)}
	}
	return t, Verdict{}
}

// askKnown says whether the pair is a known-good one, and whether its budget lets it go on; then it is charged.
func (v *View) askKnown(t *Try, now int64) (good, ok bool) {
	k := v.keeper
	s := k.known.lock(t.pair)
	defer s.mu.Unlock()
	g := s.get(t.pair)
	if g == nil || now-g.success >= int64(v.config.KnownFor) {
		return false, false
	}
	t.good = true
	g.roll(now, hour)
	if t.seen(&g.tally, now) {
		return true, true
	}
	if g.full(v.config.KnownFailures) && !g.begun(t.login.Secret) {
		return true, false
	}
	g.lift(t.login.Secret)
	t.charged = true
	return true, true
}

// seen says whether the login's secret is one that was wrong for the pair before; then it is remembered for longer.
func (t *Try) seen(p *tally, now int64) bool {
	if t.login.Secret == 0 || p.marks <= now {
		return false
	}
	most := int64(t.view.config.SameSecretFor)
	was := false
	t.secrets(t.view).Update(store.Key(pair(t.pair, t.login.Secret)), now, func(until int64) int64 {
		if was = until > now; !was {
			return until
		}
		p.marks = now + most
		return now + most
	})
	t.again = was
	return was
}

// secrets is where the wrong secrets of the login's lane are.
func (t *Try) secrets(v *View) *store.Times {
	if t.good {
		return v.keeper.knownSeen
	}
	return v.keeper.pairsSeen
}

func (v *View) attemptUnknown(t Try, now int64) (Try, Verdict) {
	k, c := v.keeper, &v.config
	n := t.login.Network
	if k.lockedOut(n.key, now, false) || n.wide != 0 && k.lockedOut(n.wide, now, false) || k.lockedOut(t.pair, now, false) {
		k.metrics.lockedOut.Inc()
		return Try{}, Verdict{Action: Refuse, Toll: v.toll(&t, now)}
	}
	wait, ok := v.charge(&t, now)
	if !ok {
		k.metrics.inFlight.Inc()
		return Try{}, Verdict{Action: Refuse, Toll: v.toll(&t, now)}
	}
	wait = max(wait, c.wait(c.Network.DelayAfter, k.failures(n.key, c, now)))
	if n.wide != 0 {
		wait = max(wait, c.wait(c.Network48.DelayAfter, k.failures(n.wide, c, now)))
	}
	if wait <= 0 {
		return t, Verdict{}
	}
	k.metrics.delays.Inc()
	return t, Verdict{Action: Delay, Wait: wait}
}

// failures are those of a network within the window.
func (k *Keeper) failures(network Key, c *Config, now int64) int {
	s := k.networks.lock(network)
	defer s.mu.Unlock()
	n := s.get(network)
	if n == nil || now-n.first >= int64(c.Window) {
		return 0
	}
	return int(n.failed)
}

// charge counts the login for its pair unless its secret was seen, and says how long it must wait. It is not ok where as
// many are on their way already as may fail.
func (v *View) charge(t *Try, now int64) (wait time.Duration, ok bool) {
	k, c := v.keeper, &v.config
	s := k.pairs.lock(t.pair)
	defer s.mu.Unlock()
	p := s.get(t.pair)
	if p != nil {
		p.roll(now, int64(c.Window))
		wait = c.wait(c.User.DelayAfter, int(p.failed))
		if t.seen(p, now) {
			return wait, true
		}
		if p.full(c.User.LockoutAfter) && !p.begun(t.login.Secret) {
			return 0, false
		}
	}
	p = s.use(t.pair)
	p.roll(now, int64(c.Window))
	p.lift(t.login.Secret)
	t.charged = true
	return wait, true
}

// Succeeded ends the login: the password was right. The pair is a known-good one from now on.
func (t *Try) Succeeded() {
	v := t.view
	if v == nil {
		return
	}
	k, now := v.keeper, v.keeper.now()
	if !t.good {
		t.release(now)
	}
	t.view = nil
	if !t.good && (v.config.KnownFor <= 0 || !k.mayKnow(t.login.User, now)) {
		return
	}
	before := k.know(t, now)
	k.changed.Store(true)
	if !t.good {
		k.pairs.remove(t.pair)
		k.endLockout(t.pair, true, now)
	}
	if k.cluster != nil && v.toTell(t.pair, before, now) {
		k.tellSuccess(t, now)
	}
}

// know notes that the pair of t has just logged in, and says when it did so before.
func (k *Keeper) know(t *Try, now int64) (before int64) {
	s := k.known.lock(t.pair)
	defer s.mu.Unlock()
	g := s.get(t.pair)
	if g != nil && t.charged {
		g.land()
	}
	if g == nil || now-g.success >= hour { // who was here within the hour is among the newest anyway: moving costs more than all the rest
		g = s.use(t.pair)
	}
	before, g.success = g.success, now
	return before
}

// mayKnow counts one more network that the user is known in, unless these are too many for a day: who has one account and
// a great many addresses would push out all others.
func (k *Keeper) mayKnow(user Key, now int64) bool {
	s := k.newcomers.lock(user)
	defer s.mu.Unlock()
	u := s.use(user)
	u.roll(now, 24*hour)
	if u.full(maxNewNetworks) {
		return false
	}
	u.fail()
	return true
}

// Undecided ends the login: nobody could say whether the password was right, and it counts for nothing.
func (t *Try) Undecided() {
	if t.view != nil {
		t.release(t.view.keeper.now())
		t.view = nil
	}
}

// Known says that the login goes by the known-good lane: what others did at the network does not touch it.
func (t *Try) Known() bool { return t.good }

// Again says that the login's secret was wrong before: that it is wrong once more counts for nothing. After Failed it is sure.
func (t *Try) Again() bool { return t.again }

// release gives back what the login was charged.
func (t *Try) release(now int64) {
	if !t.charged {
		return
	}
	t.charged = false
	k := t.view.keeper
	if t.good {
		s := k.known.lock(t.pair)
		if g := s.get(t.pair); g != nil {
			g.land()
		}
		s.mu.Unlock()
		return
	}
	s := k.pairs.lock(t.pair)
	if p := s.get(t.pair); p != nil {
		p.land()
		if p.failed == 0 && p.flying == 0 && p.marks <= now {
			s.remove(t.pair)
		}
	}
	s.mu.Unlock()
}
