package lockout_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/popgate/popgate/policy/lockout"
)

// One login: the network's key is made once for a session, the others for each attempt.
func Example() {
	keeper := lockout.New("", lockout.Options{Events: func(e lockout.Event) {
		fmt.Println(e.Kind, e.Cause, e.Network, e.Name, e.Failures)
	}})
	keeper.Load()
	view, err := keeper.Prepare(lockout.DefaultConfig())
	if err != nil {
		fmt.Println(err)
		return
	}
	keeper.Use(view) // and keeper.Run(ctx) beside the sessions

	network := keeper.Network(netip.MustParsePrefix("192.0.2.1/32"))
	for i := range 11 {
		try, verdict := view.Attempt(lockout.Login{
			Network: network, User: keeper.User("anna@example.org"), Secret: keeper.Secret(fmt.Append(nil, "guess ", i)),
			Name: "anna@example.org",
		})
		switch verdict.Action {
		case lockout.Refuse:
			fmt.Println("refused")
			continue
		case lockout.Delay:
			fmt.Println("waits", verdict.Wait.Round(time.Second))
		case lockout.GoOn:
		}
		try.Failed() // or Succeeded, or Undecided
	}
	// Output:
	// waits 1s
	// waits 2s
	// waits 4s
	// waits 8s
	// waits 15s
	// waits 15s
	// waits 15s
	// lockout.started user_failures 192.0.2.1/32 anna@example.org 10
	// refused
}
