package policy

import (
	"errors"
	"fmt"

	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/limit"
)

// ErrLockedOut means that the client's network, or the user from it, has failed too often. Nobody has looked at the password.
// With LimitError, AccessError and the errors of wforce it is what a Visit may be refused with; whoever talks to the client
// decides what it is told.
var ErrLockedOut = errors.New("locked out after too many failed logins")

// A LimitError means that a limit is reached.
type LimitError struct {
	What limit.What // which one
}

// Error names the limit as the configuration does.
func (e *LimitError) Error() string { return fmt.Sprintf("limits.%s is reached", e.What) }

// An AccessError means that a rule of access stands against the client or the login.
type AccessError struct {
	access.Verdict
	// Told says that the password was right, so that the client may hear that it is not that.
	Told bool
}

// Error says what the rule holds against it.
func (e *AccessError) Error() string {
	if e.Rule == "" {
		return "access: " + e.Because()
	}
	return fmt.Sprintf("access rule %s: %s", e.Rule, e.Because())
}
