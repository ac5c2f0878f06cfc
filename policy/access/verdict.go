package access

// Action is what a verdict asks for.
type Action uint8

// The actions. The greater one wins where several rules have something to say.
const (
	Allow Action = iota // nothing stands against it
	Log                 // it goes on, but the reason is to be written down
	Deny                // it ends here
)

var actionNames = [...]string{Allow: "allow", Log: "log", Deny: "deny"}

// String is the action as the configuration writes it.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "unknown"
}

// Reason says what a rule holds against somebody. The set is closed.
type Reason string

// The reasons.
const (
	NetworkDenied     Reason = "network_denied"      // The client's network is on a list of `networks.deny`.
	NetworkNotAllowed Reason = "network_not_allowed" // The client's network is on no list of `networks.allow`.
	Country           Reason = "country"             // The client's country is denied, or is not among the allowed ones.
	ASN               Reason = "asn"                 // The operator of the client's network is denied, or is not among the allowed ones.
	Blocklisted       Reason = "blocklisted"         // A DNS blocklist lists the client's address.
	Hours             Reason = "hours"               // It is not one of the hours in which logins are open.
	TLSVersion        Reason = "tls_version"         // The client speaks no TLS, or a version older than `tls.min_version`.
	ClientCertificate Reason = "client_certificate"  // The client has shown no certificate, and the rule wants one.
	LegacyOver        Reason = "legacy_over"         // The client speaks no TLS, or TLS 1.0 or 1.1, after the last day for that.
	Disabled          Reason = "disabled"            // The account is on the list of disabled accounts.
)

// Origin says that the reason is where the client comes from, and nothing about the login.
func (r Reason) Origin() bool {
	switch r {
	case NetworkDenied, NetworkNotAllowed, Country, ASN, Blocklisted:
		return true
	}
	return false
}

// A Verdict is what the rules say. The zero Verdict is that nothing stands against it.
type Verdict struct {
	Action Action
	// Reason is what decided; "" where the action is Allow.
	Reason Reason
	// Rule is the name of the rule that decided; "" where it was the list of disabled accounts, or nothing.
	Rule string
	// Detail is what the rule found, for a log line: the name of a list or blocklist, a country, "AS64500". It never holds
	// a user.
	Detail string
}

// Because is what the rule holds against somebody and what it found, for the audit, such as "country KP"; "" where nothing
// stands against it.
func (v Verdict) Because() string {
	if v.Detail == "" {
		return string(v.Reason)
	}
	return string(v.Reason) + " " + v.Detail
}
