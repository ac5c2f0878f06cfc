package lockout_test

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/popgate/popgate/policy/lockout"
)

// TestOperator: lockouts are added, listed and removed by hand.
func TestOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, lockout.DefaultConfig())
		net := netip.MustParsePrefix(here + "/32")
		r.try(here, "anna", "right", true)
		if err := r.keeper.Add(net, "anna", time.Hour); err != nil {
			t.Fatal(err)
		}
		r.want("a known-good user by hand", r.try(here, "anna", "right", true), lockout.Refuse, 0)
		r.want("her neighbour", r.try(here, "bert", "right", true), lockout.GoOn, 0)
		if err := r.keeper.Add(net, "anna", 2*time.Hour); err != nil {
			t.Fatal(err)
		}
		if list := r.keeper.List(); len(list) != 1 || list[0].Until.Sub(list[0].Since) != 2*time.Hour || list[0].Cause != lockout.Manual {
			t.Errorf("List: got %+v, want the second of anna's", list)
		}
		if ok, err := r.keeper.Remove(net, "anna"); !ok || err != nil {
			t.Errorf("Remove: got %v, %v, want it done", ok, err)
		}
		if ok, err := r.keeper.Remove(net, "anna"); ok || err != nil {
			t.Errorf("Remove again: got %v, %v, want none", ok, err)
		}
		r.want("after it", r.try(here, "anna", "right", true), lockout.GoOn, 0)
		r.wantEvents(lockout.Started, lockout.Ended, lockout.Started, lockout.Ended)
		for _, wide := range []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/47"), {}} {
			if err := r.keeper.Add(wide, "", time.Hour); err == nil {
				t.Errorf("Add %v: got no error, want one that tells of deny lists", wide)
			}
			if _, err := r.keeper.Remove(wide, ""); err == nil {
				t.Errorf("Remove %v: got no error", wide)
			}
		}
		if err := r.keeper.Add(net, "", 0); err == nil {
			t.Error("Add for no time: got no error")
		}
	})
}

// TestWide: who goes through the /64s of one /48 is delayed and locked out by that; users known there, and other
// networks, are not touched.
func TestWide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := lockout.DefaultConfig()
		c.Spray = lockout.Spray{Window: time.Hour}
		r := newRig(t, c)
		login := func(network, user, secret string) lockout.Login {
			return lockout.Login{
				Network: r.keeper.Network(netip.MustParsePrefix(network)), User: r.keeper.User(user), Secret: r.keeper.Secret([]byte(secret)),
			}
		}
		known := login("2001:db8:1:ffff::/64", "anna", "right")
		try, _ := r.view.Attempt(known)
		try.Succeeded()
		for i := range 500 {
			try, v := r.view.Attempt(login(fmt.Sprintf("2001:db8:1:%x::/64", i), fmt.Sprint("user", i), "x"))
			if want := i >= 100; v.Action == lockout.Refuse || (v.Action == lockout.Delay) != want {
				t.Fatalf("failure %d: got %+v, want a delay: %v", i+1, v, want)
			}
			try.Failed()
		}
		_, v := r.view.Attempt(login("2001:db8:1:eeee::/64", "bert", "right"))
		r.want("another /64 of it", v, lockout.Refuse, 0)
		_, v = r.view.Attempt(login("2001:db8:2:eeee::/64", "bert", "right"))
		r.want("another /48", v, lockout.GoOn, 0)
		_, v = r.view.Attempt(known)
		r.want("who is known there", v, lockout.GoOn, 0)
		p := netip.MustParsePrefix("2001:db8:1::/48")
		if list := r.keeper.List(); len(list) != 1 || list[0].Network != p {
			t.Errorf("List: got %+v, want %v", list, p)
		}
		if ok, err := r.keeper.Remove(p, ""); !ok || err != nil {
			t.Errorf("Remove: got %v, %v, want it done", ok, err)
		}
		_, v = r.view.Attempt(login("2001:db8:1:eeee::/64", "bert", "right"))
		r.want("after it", v, lockout.GoOn, 0)
	})
}
