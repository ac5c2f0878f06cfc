package lockout

import "time"

// NewSmall is New with room for so many keys in each table.
func NewSmall(dir string, o Options, keys int) *Keeper {
	return newKeeper(dir, o, sizes{keys, keys, keys, keys, keys, keys})
}

// Keys is the number of keys in all tables.
func (k *Keeper) Keys() int {
	return k.known.len() + k.pairs.len() + k.networks.len() + k.secrets.len() + k.lockouts.len() + k.newcomers.len()
}

// Known says whether a pair is remembered as known-good.
func (k *Keeper) Known(n Network, user Key) bool {
	key := pair(n.key, user)
	s := k.known.lock(key)
	defer s.mu.Unlock()
	return s.get(key) != nil
}

// KnownLen is the number of known-good pairs.
func (k *Keeper) KnownLen() int { return k.known.len() }

// Encode and Decode are the state file's form; Seal is what ends it.
func (k *Keeper) Encode() []byte           { return k.encode() }
func (k *Keeper) Decode(data []byte) error { return k.decode(data) }
func (k *Keeper) Seal(b []byte) []byte     { return k.seal(b) }

// Rest is how long after a time of saving the next may come.
func (k *Keeper) Rest() time.Duration { return time.Duration(k.rest()) }

// ErrCorrupt is errCorrupt.
var ErrCorrupt = errCorrupt

// Active is the number of lockouts in force, as it is counted.
func (k *Keeper) Active() int { return int(k.active.Load()) }

// TakeKnown has so many pairs known.
func (k *Keeper) TakeKnown(n int) {
	for i := range n {
		key := pair(1, Key(i+1))
		s := k.known.lock(key)
		s.use(key).success = k.now()
		s.mu.Unlock()
	}
}
