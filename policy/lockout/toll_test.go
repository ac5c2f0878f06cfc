package lockout_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/lockout"
)

// cost tries a wrong secret, and says how much later than at the ordinary pace its refusal leaves.
func (r *rig) cost(addr, user, secret string) time.Duration {
	t, v := r.view.Attempt(r.login(addr, user, secret))
	cost := max(v.Wait, v.Toll, t.Toll())
	t.Failed()
	return cost
}

// TestTollTellsNobody: a guesser behind the address of users who are known there sees them refused as late as users who are not there, at
// every try and while the network is locked out, so that the time lists nobody; and after the lockout of a user as late as before.
func TestTollTellsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lockout.DefaultConfig()
		c.Spray = lockout.Spray{Window: time.Hour}
		r := newRig(t, c)
		r.try(here, "anna", "right", true)
		longest := time.Duration(0)
		for i := range 14 {
			anna, nobody := r.cost(here, "anna", fmt.Sprint("guess", i)), r.cost(here, "nobody", fmt.Sprint("guess", i))
			if anna != nobody {
				t.Errorf("guess %d: a known user's refusal costs %v, a stranger's %v", i, anna, nobody)
			}
			if longest = max(longest, anna); anna < longest {
				t.Errorf("guess %d: a refusal costs %v, one before it %v", i, anna, longest)
			}
		}
		if longest != c.MaxDelay {
			t.Errorf("the longest: got %v, want %v", longest, c.MaxDelay)
		}
		if _, v := r.view.Attempt(r.login(here, "anna", "right")); v.Action != lockout.Refuse {
			t.Errorf("a known user whose budget is used up: got %+v, want it refused", v)
		}

		r.try(there, "anna", "right", true)
		r.try(there, "bob", "right", true)
		for i := range c.Network.LockoutAfter + 10 {
			r.try(there, fmt.Sprint("somebody", i), "guess", false)
			if v := r.try(there, "bob", "right", true); v.Action != lockout.GoOn || v.Wait != 0 {
				t.Fatalf("failure %d: the known user's right password: got %+v, want it untouched", i, v)
			}
			if i%10 != 9 {
				continue
			}
			anna, nobody := r.cost(there, "anna", "old"), r.cost(there, fmt.Sprint("nobody", i), "old")
			if anna != nobody {
				t.Errorf("failure %d: a known user's refusal costs %v, a stranger's %v", i, anna, nobody)
			}
		}
		if n := len(r.keeper.List()); n != 2 { // nobody, and the network there
			t.Errorf("lockouts: got %d, want 2", n)
		}
	})
}
