package limit

// A Scope says whose use a limit counts together.
type Scope uint8

// The scopes.
const (
	All      Scope = iota // everybody's
	Listener              // that of all who come to one listener
	IP                    // a client address's: the /32 of IPv4, the /64 of IPv6
	Network               // a wider client network's
	User                  // a user's
	Tenant                // that of a tenant's users
	scopes
)

// String is the section of the configuration that has the scope's limits.
func (s Scope) String() string {
	return [...]string{"all", "per_listener", "per_ip", "per_network", "per_user", "per_tenant"}[s]
}

// A Quantity is what a limit counts.
type Quantity uint8

// The quantities. Sessions and Handshakes are there at once, and have places; all others are rates, and have turns.
const (
	Sessions    Quantity = iota // sessions at once
	Connections                 // new connections
	Handshakes                  // TLS handshakes at once
	Logins                      // accepted logins
	Failures                    // failed logins
	LoginDelay                  // accepted logins, one for each time
	Download                    // bytes to the client, paced
	Commands                    // commands from the client, paced
	quantities
)

// String is the key of the configuration for the quantity.
func (q Quantity) String() string {
	return [...]string{"sessions", "connections", "handshakes", "logins", "failures", "login_delay", "download", "commands"}[q]
}

// What tells one limit.
type What struct {
	Scope    Scope
	Quantity Quantity
}

// String is the limit's key below limits in the configuration, such as per_ip.connections.
func (w What) String() string { return w.Scope.String() + "." + w.Quantity.String() }

// tag is what stands for w in store.Ask.
func (w What) tag() uint8 { return uint8(w.Scope)*uint8(quantities) + uint8(w.Quantity) }

// tags is the number of them.
const tags = int(scopes) * int(quantities)

// Of tells which limit an Ask of this package's is for, by its Tag.
func Of(tag uint8) What {
	return What{Scope(tag / uint8(quantities)), Quantity(tag % uint8(quantities))}
}

// A Moment is a time in a session at which something is asked for.
type Moment uint8

// The moments.
const (
	Admission   Moment = iota // a connection was accepted: its places last to its end
	Handshake                 // a TLS handshake begins: its places last to its end
	Attempt                   // credentials came: turns that are given back unless the login fails
	Entry                     // it is known where the login goes: as for Attempt
	Acceptance                // the password was right: places that last to the session's end, and turns
	Downloading               // bytes went to the client; to be paced by Spend
	Commanding                // commands came from the client; to be paced by Spend
	moments
)

// asked is what each moment asks for, the narrowest first: a client is to hear of its own use before that of others.
var asked = [moments][]What{
	Admission: {
		{IP, Sessions}, {IP, Connections}, {Network, Sessions}, {Network, Connections},
		{Listener, Sessions}, {Listener, Connections}, {All, Sessions}, {All, Connections},
	},
	Handshake: {{IP, Handshakes}, {Network, Handshakes}, {Listener, Handshakes}},
	Attempt:   {{IP, Failures}, {Network, Failures}, {Listener, Failures}, {All, Failures}},
	Entry:     {{Tenant, Failures}},
	Acceptance: {
		{User, Sessions}, {User, LoginDelay}, {User, Logins}, {Tenant, Sessions}, {Tenant, Logins},
		{IP, Logins}, {Network, Logins}, {Listener, Logins}, {All, Logins},
	},
	Downloading: {{User, Download}, {IP, Download}, {Network, Download}, {Tenant, Download}, {Listener, Download}, {All, Download}},
	Commanding:  {{User, Commands}, {IP, Commands}, {Network, Commands}, {Tenant, Commands}, {Listener, Commands}, {All, Commands}},
}
