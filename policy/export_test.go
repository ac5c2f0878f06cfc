package policy

// Held is what the gate counts that a visit has to give back.
func (g *Gate) Held() (sessions, networks, users int) {
	return int(g.sessions.Load()), g.networks.Len(), g.users.Len()
}

// Paid is how many networks and users have turns of a rate out.
func (g *Gate) Paid() (failures, logins int) {
	return g.failures.Len(g.now()), g.logins.Len(g.now())
}
