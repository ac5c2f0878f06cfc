package policy

// Held is what the gate counts that a visit has to give back.
func (k *Keeper) Held() (sessions, networks, users int) {
	return int(k.sessions.Load()), k.networks.Len(), k.users.Len()
}

// Paid is how many networks and users have turns of a rate out.
func (k *Keeper) Paid() (failures, logins int) {
	return k.failures.Len(k.now()), k.logins.Len(k.now())
}
