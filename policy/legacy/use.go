package legacy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// NoTLS is the Version of who comes without TLS.
const NoTLS = "no TLS"

// A Mark is one login by the legacy lane that succeeded.
type Mark struct {
	User, Tenant, Listener string
	Network                netip.Prefix // the client's, as it is counted (auth.Client.Network)
	Version                string       // of TLS, such as "TLS 1.0"; NoTLS or "" without
	// Until is when the lane ends for the user (access.Rules.LegacyUntil), zero for no end.
	Until time.Time
	When  time.Time
}

// A Use is how one user uses the legacy lane: by one version, at one listener, from one network.
type Use struct {
	User     string       `json:"user"`
	Tenant   string       `json:"tenant,omitempty"`
	Network  netip.Prefix `json:"network"`
	Version  string       `json:"tls"`
	Listener string       `json:"listener"`
	First    time.Time    `json:"first"`
	Last     time.Time    `json:"last"`
	Count    int64        `json:"count"`
	// Until is when the lane ended for the user, as the configuration was at the last login; zero for no end.
	Until time.Time `json:"until,omitzero"`
}

// same says that a and b are of the same way to use it.
func (u *Use) same(o *Use) bool {
	return u.Network == o.Network && u.Version == o.Version && u.Listener == o.Listener
}

// add takes what o has more, o being a use of the same user.
func (u *Use) add(o *Use) {
	u.Count += o.Count
	if !o.First.IsZero() && o.First.Before(u.First) {
		u.First = o.First
	}
	if !o.Last.Before(u.Last) {
		u.Last, u.Tenant, u.Until = o.Last, o.Tenant, o.Until
	}
}

// order puts the latest first, and of the same time those of a user together.
func order(all []Use) {
	slices.SortFunc(all, func(a, b Use) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.User, b.User), cmp.Compare(a.Version, b.Version),
			a.Network.Addr().Compare(b.Network.Addr()), cmp.Compare(a.Listener, b.Listener))
	})
}
