package lockout

import "time"

// Toll is how much later a refusal of the login must leave than it would at the ordinary pace. A login that did not wait, because its
// user is known in the network, is answered as late as any other where its password is wrong: or the time would tell who is known
// there, and so who there is. It is to be asked before the login ends; 0 for one that has.
func (t *Try) Toll() time.Duration {
	if t.view == nil {
		return 0
	}
	return t.view.toll(t, t.view.keeper.now())
}

// toll is what failures before cost a login with a wrong password, whichever lane it goes by. One that is locked out pays what the last
// one before the lockout did.
func (v *View) toll(t *Try, now int64) time.Duration {
	k, c, n := v.keeper, &v.config, t.login.Network
	wait := c.wait(c.User.DelayAfter, v.ownFailures(t, now))
	if k.lockedOut(t.pair, now, t.good) {
		wait = max(wait, c.User.longest(c))
	}
	wait = max(wait, v.networkToll(n.key, c.Network, now))
	if n.wide != 0 {
		wait = max(wait, v.networkToll(n.wide, c.Network48, now))
	}
	return wait
}

func (v *View) networkToll(network Key, th Threshold, now int64) time.Duration {
	if v.keeper.lockedOut(network, now, false) {
		return th.longest(&v.config)
	}
	return v.config.wait(th.DelayAfter, v.keeper.failures(network, &v.config, now))
}

// longest is what the last login before a lockout waits.
func (th Threshold) longest(c *Config) time.Duration { return c.wait(th.DelayAfter, th.LockoutAfter-1) }

// ownFailures are those that the lane of the login has counted for its user and network.
func (v *View) ownFailures(t *Try, now int64) int {
	k := v.keeper
	if t.good {
		s := k.known.lock(t.pair)
		defer s.mu.Unlock()
		if g := s.get(t.pair); g != nil && now-g.first < hour {
			return int(g.failed)
		}
		return 0
	}
	s := k.pairs.lock(t.pair)
	defer s.mu.Unlock()
	if p := s.get(t.pair); p != nil && now-p.first < int64(v.config.Window) {
		return int(p.failed)
	}
	return 0
}
