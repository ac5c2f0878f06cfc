package lockout

import (
	"net/netip"
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
	charged bool // counted as if it had failed, for its secret is a new one
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
		return Try{}, Verdict{Action: Refuse}
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
	full := g.full(v.config.KnownFailures)
	if t.seen(now, full) {
		return true, true
	}
	if full {
		return true, false
	}
	g.lift()
	t.charged = true
	return true, true
}

// seen says whether the login's secret is one that the pair came with before, and remembers it unless only asked to look.
func (t *Try) seen(now int64, look bool) bool {
	if t.login.Secret == 0 {
		return false
	}
	key, most := pair(t.pair, t.login.Secret), int64(t.view.config.SameSecretFor)
	was := false
	t.secrets().Update(store.Key(key), now, func(until int64) int64 {
		was = until > now
		if look && !was {
			return 0
		}
		return now + most
	})
	return was
}

// secrets is where the wrong secrets of the login's lane are.
func (t *Try) secrets() *store.Times {
	if t.good {
		return t.view.keeper.knownSeen
	}
	return t.view.keeper.pairsSeen
}

func (v *View) attemptUnknown(t Try, now int64) (Try, Verdict) {
	k, c := v.keeper, &v.config
	n := t.login.Network
	if k.lockedOut(n.key, now, false) || n.wide != 0 && k.lockedOut(n.wide, now, false) || k.lockedOut(t.pair, now, false) {
		k.metrics.lockedOut.Inc()
		return Try{}, Verdict{Action: Refuse}
	}
	wait, ok := v.charge(&t, now)
	if !ok {
		k.metrics.inFlight.Inc()
		return Try{}, Verdict{Action: Refuse}
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
	full := false
	if p != nil {
		p.roll(now, int64(c.Window))
		wait, full = c.wait(c.User.DelayAfter, int(p.failed)), p.full(c.User.LockoutAfter)
	}
	if t.seen(now, full) {
		return wait, true
	}
	if full {
		return 0, false
	}
	p = s.use(t.pair)
	p.roll(now, int64(c.Window))
	p.lift()
	t.charged = true
	return wait, true
}

// Failed ends the login: the user or the password was wrong.
func (t *Try) Failed() {
	v := t.view
	if v == nil {
		return
	}
	t.view = nil
	if !t.charged {
		return // the same secret again
	}
	k, now := v.keeper, v.keeper.now()
	if t.good {
		s := k.known.lock(t.pair)
		if g := s.get(t.pair); g != nil {
			g.land(true)
		}
		s.mu.Unlock()
	} else {
		v.failPair(t, now)
	}
	n := t.login.Network
	if !t.good {
		v.failNetwork(n.key, n.Prefix, v.config.Network, now)
		if n.wide != 0 {
			v.failNetwork(n.wide, wide(n.Prefix), v.config.Network48, now)
		}
	}
	v.lookForSpray(t, now)
}

// failPair counts the failure for the pair, and locks it out where it is one too many.
func (v *View) failPair(t *Try, now int64) {
	k, c := v.keeper, &v.config
	s := k.pairs.lock(t.pair)
	p := s.use(t.pair)
	p.roll(now, int64(c.Window))
	p.land(true)
	n := int(p.failed)
	over := c.User.LockoutAfter > 0 && n >= c.User.LockoutAfter
	if over {
		p.failed = 0 // the next lockout takes as many again
	}
	s.mu.Unlock()
	if over {
		k.lockOut(t.pair, record{network: t.login.Network.Prefix, user: t.login.User, name: t.login.Name, failures: n, cause: UserFailures}, c, now)
	}
}

// failNetwork counts the failure for a client network, and locks it out where it is one too many.
func (v *View) failNetwork(key Key, p netip.Prefix, th Threshold, now int64) {
	k, c := v.keeper, &v.config
	s := k.networks.lock(key)
	n := s.use(key)
	n.roll(now, int64(c.Window))
	n.fail()
	failures := int(n.failed)
	over := th.LockoutAfter > 0 && failures >= th.LockoutAfter
	if over {
		n.failed = 0
	}
	s.mu.Unlock()
	if over {
		k.lockOut(key, record{network: p, failures: failures, cause: NetworkFailures}, c, now)
	}
}

// Succeeded ends the login: the password was right. The pair is a known-good one from now on.
func (t *Try) Succeeded() {
	v := t.view
	if v == nil {
		return
	}
	now := v.keeper.now()
	t.release(now)
	t.view = nil
	if v.config.KnownFor <= 0 {
		return
	}
	k := v.keeper
	if !t.good && !k.mayKnow(t.login.User, now) {
		return
	}
	s := k.known.lock(t.pair)
	s.use(t.pair).success = now
	s.mu.Unlock()
	k.changed.Store(true)
	if !t.good {
		k.pairs.remove(t.pair)
		k.endLockout(t.pair, true, now)
	}
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

// release gives back what the login was charged.
func (t *Try) release(now int64) {
	if !t.charged {
		return
	}
	t.charged = false
	k := t.view.keeper
	if t.login.Secret != 0 {
		forget(t.secrets(), pair(t.pair, t.login.Secret), now)
	}
	if t.good {
		s := k.known.lock(t.pair)
		if g := s.get(t.pair); g != nil {
			g.land(false)
		}
		s.mu.Unlock()
		return
	}
	s := k.pairs.lock(t.pair)
	if p := s.get(t.pair); p != nil {
		p.land(false)
		if p.failed == 0 && p.flying == 0 {
			s.remove(t.pair)
		}
	}
	s.mu.Unlock()
}
