package lockout

// sprayed counts one more user that failed from the network, and says whether that makes it a spray, once a window.
func (n *netTally) sprayed(c *Config, now int64) bool {
	if now-n.sprays >= int64(c.Spray.Window) {
		n.sprays, n.users, n.told = now, 0, false
	}
	if n.users < maxCount {
		n.users++
	}
	if n.told || int(n.users) < c.Spray.Users {
		return false
	}
	n.told = true
	return true
}

// lookForSpray counts the user for its network and for its secret; what a known-good pair does counts here too.
func (v *View) lookForSpray(t *Try, now int64, own bool) {
	c := &v.config
	if c.Spray.Users > 0 {
		v.sprayNetwork(t, now, own)
	}
	if c.Spray.UsersPerPassword > 0 && t.login.Secret != 0 {
		v.spraySecret(t, now, own)
	}
}

// sprayNetwork counts one more user that failed from the network.
func (v *View) sprayNetwork(t *Try, now int64, own bool) {
	k, c, from := v.keeper, &v.config, t.login.Network
	if touch(k.spraySeen, t.pair, now, c.Spray.Window) {
		return
	}
	s := k.networks.lock(from.key)
	n := s.use(from.key)
	is, users := n.sprayed(c, now), int(n.users)
	s.mu.Unlock()
	if is && own {
		k.tell(Event{Kind: SprayDetected, Network: from.Prefix, Users: users, Cause: ManyUsers})
		k.lockOutSpray(from, ManyUsers, users, c, now)
	}
}

// spraySecret counts one more user that the login's secret was wrong for. Where it is a spray and the network has tried
// the secret on another user too, the network may be locked out; one try alone may be somebody's own slip.
func (v *View) spraySecret(t *Try, now int64, own bool) {
	k, c := v.keeper, &v.config
	if touch(k.spraySeen, pair(t.login.Secret, t.login.User), now, c.Spray.Window) {
		return
	}
	again := touch(k.spraySeen, pair(t.login.Secret, t.login.Network.key), now, c.Spray.Window)
	s := k.secrets.lock(t.login.Secret)
	p := s.use(t.login.Secret)
	if now-p.first >= int64(c.Spray.Window) {
		*p = spray{first: now}
	}
	if p.users < maxCount {
		p.users++
	}
	users := int(p.users)
	is := users >= c.Spray.UsersPerPassword
	told := p.told
	p.told = is
	s.mu.Unlock()
	if !own {
		return
	}
	if is && !told {
		k.tell(Event{Kind: SprayDetected, Network: t.login.Network.Prefix, Users: users, Cause: OnePassword})
	}
	if is && again {
		k.lockOutSpray(t.login.Network, OnePassword, users, c, now)
	}
}

// lockOutSpray locks a spraying network out, where that is wanted.
func (k *Keeper) lockOutSpray(n Network, cause Cause, users int, c *Config, now int64) {
	if c.Spray.Lockout {
		k.lockOut(n.key, record{network: n.Prefix, failures: users, cause: cause}, c, now)
	}
}
