package policy

import (
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/store"
)

func (k *Keeper) memory() *store.Memory { return k.state.(*store.Memory) }

// Held is what limits count that visits have to give back: the places of all and of listeners, the client networks and the users or
// tenants that have any, and how many places there are of each of these.
func (k *Keeper) Held() (fixed, networks, users, places int) {
	for key, n := range k.memory().Places() {
		places += int(n)
		switch store.Class(key >> 62) {
		case store.Fixed:
			fixed += int(n)
		case store.Users:
			users++
		default:
			networks++
		}
	}
	return fixed, networks, users, places
}

// Turns is how many keys have turns out.
func (k *Keeper) Turns() int {
	_, rates := k.memory().Len()
	return rates
}

// Asks is how many turns and places a visit holds or has taken for the login in flight.
func (v *Visit) Asks() int {
	n := len(v.held) + len(v.shaking)
	if v.entry != nil {
		n += len(v.entry.failing) + len(v.entry.earned)
	}
	return n
}

// Any says whether the gate asks anything of the limits at a moment.
func (g *Gate) Any(m limit.Moment) bool { return g.limits.Any(m) }
