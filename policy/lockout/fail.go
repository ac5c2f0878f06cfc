package lockout

import "net/netip"

// Failed ends the login: the user or the password was wrong.
func (t *Try) Failed() {
	v := t.view
	if v == nil {
		return
	}
	t.view = nil
	if !t.again {
		v.count(t, v.keeper.now(), true)
	}
}

// count counts a failure: one of this node's own, or one that another told of. Of another's nothing begins here: the node
// where it happened has counted it too, locks out whom that locks out, and tells of it.
func (v *View) count(t *Try, now int64, own bool) {
	k, c := v.keeper, &v.config
	again, failures := false, 0
	if t.good {
		again = v.failKnown(t, now)
	} else {
		again, failures = v.failPair(t, now, own)
	}
	if again {
		t.again = true
		return
	}
	if own {
		k.tellFailure(t) // before what comes of it
	}
	n := t.login.Network
	if failures > 0 {
		k.lockOut(t.pair, record{network: n.Prefix, user: t.login.User, name: t.login.Name, failures: failures, cause: UserFailures}, c, now)
	}
	if !t.good {
		v.failNetwork(n.key, n.Prefix, c.Network, now, own)
		if n.wide != 0 {
			v.failNetwork(n.wide, wide(n.Prefix), c.Network48, now, own)
		}
	}
	v.lookForSpray(t, now, own)
}

// fail counts the failure, unless the secret was wrong before, and remembers the secret.
func (v *View) fail(t *Try, p *tally, now int64) (again bool) {
	if t.charged {
		p.land()
	}
	if secret := t.login.Secret; secret != 0 {
		p.marks = now + int64(v.config.SameSecretFor)
		if touch(t.secrets(v), pair(t.pair, secret), now, v.config.SameSecretFor) {
			return true
		}
	}
	p.fail()
	return false
}

// failKnown counts the failure for a pair that was known-good when the login began.
func (v *View) failKnown(t *Try, now int64) (again bool) {
	s := v.keeper.known.lock(t.pair)
	defer s.mu.Unlock()
	g := s.get(t.pair)
	if g == nil {
		return false
	}
	g.roll(now, hour)
	return v.fail(t, &g.tally, now)
}

// failPair counts the failure for the pair, and says how many there were where it is one too many.
func (v *View) failPair(t *Try, now int64, own bool) (again bool, over int) {
	k, c := v.keeper, &v.config
	s := k.pairs.lock(t.pair)
	defer s.mu.Unlock()
	p := s.use(t.pair)
	p.roll(now, int64(c.Window))
	again = v.fail(t, p, now)
	n := int(p.failed)
	if again || !own || c.User.LockoutAfter <= 0 || n < c.User.LockoutAfter {
		return again, 0
	}
	p.failed = 0 // the next lockout takes as many again
	return false, n
}

// failNetwork counts the failure for a client network, and locks it out where it is one too many.
func (v *View) failNetwork(key Key, p netip.Prefix, th Threshold, now int64, own bool) {
	k, c := v.keeper, &v.config
	s := k.networks.lock(key)
	n := s.use(key)
	n.roll(now, int64(c.Window))
	n.fail()
	failures := int(n.failed)
	over := own && th.LockoutAfter > 0 && failures >= th.LockoutAfter
	if over {
		n.failed = 0
	}
	s.mu.Unlock()
	if over {
		k.lockOut(key, record{network: p, failures: failures, cause: NetworkFailures}, c, now)
	}
}
