package proxy

import (
	"context"
	"errors"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy"
	"github.com/popgate/popgate/policy/access"
	"github.com/popgate/popgate/policy/audit"
	"github.com/popgate/popgate/policy/limit"
	"github.com/popgate/popgate/policy/wforce"
	"github.com/popgate/popgate/proxy/backend"
	"github.com/popgate/popgate/proxy/pop3"
)

// What popgate says to clients in so many words. A refusal of credentials has one text, whatever the cause.
const (
	textGreeting   = "POP3 ready"
	textWelcome    = "Logged in"
	textWrong      = "Wrong user name or password"
	textLater      = "The mail server cannot be reached now, try again later"
	textBusy       = "Too busy now, try again later"
	textDisabled   = "This account cannot log in; ask your provider"
	textNotAllowed = "Not allowed for this account in this way; ask your provider"
	textInUse      = "The mailbox is in use by another session"
	textTooOften   = "Logged in too often, try again later"
	textShutdown   = "The server is going down, try again later"
	textTooMany    = "Too many bad commands"
	textTooLong    = "Line too long"
	textTooSlow    = "Too slow"
	textSecondary  = "Try again later"
)

// Causes that arise in this package.
var (
	errShutdown        = errors.New("gateway is going down")
	errTooSlow         = errors.New("client took too long to log in")
	errBadCommands     = errors.New("too many bad commands")
	errTooManyFailures = errors.New("too many failed logins on one connection")
	errBehindSTLS      = errors.New("bytes in clear behind STLS")
	errUnrecorded      = errors.New("audit record not written")
	errNoSlot          = errors.New("too many handshakes at work")
	errInternal        = errors.New("fault in popgate")
	errDisabled        = errors.New("the directory says that the account is disabled")
	errHalfRefused     = errors.New("one of the two backends of a user who is being moved refused the password, and the other cannot tell, or may not be asked")
	errLoginRefused    = errors.New("the backend refused a user whose password was checked already; look at the password or master user that the directory gives for it")
)

// A tlsError is a handshake that failed.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// A foreignError is a client that speaks another protocol.
type foreignError struct{ protocol string }

func (e *foreignError) Error() string { return "client speaks " + e.protocol }

// An outcome is all that follows from a cause.
type outcome struct {
	reason audit.Reason   // in the audit, and the label in metrics; "" means that nothing is wrong
	code   pop3.Code      // what the client is told
	text   string         // "" means that it is told nothing
	gate   policy.Outcome // what the gate counts
	paced  bool           // the reply waits for its tick
	ends   bool           // the connection ends with it
}

// says tells that the client hears of it.
func (o outcome) says() bool { return o.text != "" }

// wrong is what a client without the right password gets, whatever the reason.
func wrong(reason audit.Reason) outcome {
	return outcome{reason: reason, code: pop3.CodeAuth, text: textWrong, gate: policy.Refused, paced: true}
}

// unknown is the same for who cannot have it, for there is no such user.
func unknown(reason audit.Reason) outcome {
	o := wrong(reason)
	o.gate = policy.Unknown
	return o
}

// guess is what a client gets whose password nobody has looked at: the same, and it counts for nothing.
func guess(reason audit.Reason) outcome {
	o := wrong(reason)
	o.gate = policy.Undecided
	return o
}

// later is what a client gets that may well have the right password.
func later(reason audit.Reason, text string) outcome {
	return outcome{reason: reason, code: pop3.CodeSysTemp, text: text, gate: policy.Undecided}
}

// over is the end of a connection, with a text or in silence.
func over(reason audit.Reason, text string) outcome {
	return outcome{reason: reason, text: text, ends: true}
}

// table is where a cause is turned into what follows from it; backend answers are in backendTable.
var table = []struct {
	cause error
	outcome
}{
	{errQuit, over(audit.ClientQuit, "")},
	{errTooManyFailures, over(audit.TooManyFailures, "")},
	{errBadCommands, over(audit.ProtocolError, textTooMany)},
	{errBehindSTLS, over(audit.ProtocolError, "")},
	{pop3.ErrLineTooLong, over(audit.ProtocolError, textTooLong)},
	{errTooSlow, over(audit.Timeout, textTooSlow)},
	{errNoSlot, over(audit.Timeout, "")},
	{errShutdown, outcome{reason: audit.Shutdown, code: pop3.CodeSysTemp, text: textShutdown, ends: true}},
	{auth.ErrDirectoryDown, later(audit.DirectoryDown, textLater)}, // before what it may wrap
	{context.Canceled, outcome{reason: audit.Shutdown, code: pop3.CodeSysTemp, text: textShutdown, ends: true}},
	{errUnrecorded, outcome{reason: audit.AuditFailed, code: pop3.CodeSysTemp, text: textSecondary, ends: true}},
	{errInternal, over(audit.Internal, "")},

	{auth.ErrUnknownUser, unknown(audit.UnknownUser)},
	{auth.ErrBadName, wrong(audit.BadName)},
	{auth.ErrWrongPassword, wrong(audit.WrongPassword)},
	{auth.ErrNetwork, wrong(audit.WrongNetwork)},
	{errDisabled, outcome{reason: audit.Disabled, code: pop3.CodeSysPerm, text: textDisabled, gate: policy.Barred}},
	{errLoginRefused, later(audit.BackendLoginRefused, textLater)},
	{policy.ErrLockedOut, guess(audit.LockedOut)},
	{wforce.ErrRefused, guess(audit.PolicyRefused)},
	{wforce.ErrDown, later(audit.PolicyDown, textLater)},

	{errEndIdle, over(audit.Idle, "")},
	{errEndStalled, over(audit.Stalled, "")},
	{errEndClientGone, over(audit.ClientGone, "")},
	{errEndBackendGone, over(audit.BackendGone, "")},
	{errEndBackendClosed, over(audit.BackendClosed, "")},
}

// backendTable is the same for what pools say of a login at the backend.
var backendTable = map[backend.Kind]outcome{
	backend.WrongPassword:    wrong(audit.WrongPassword),
	backend.InUse:            {reason: audit.InUse, code: pop3.CodeInUse, text: textInUse},
	backend.LoginDelay:       {reason: audit.LoginDelay, code: pop3.CodeLoginDelay, text: textTooOften},
	backend.Temporary:        later(audit.BackendRefused, textLater),
	backend.Permanent:        {reason: audit.Disabled, code: pop3.CodeSysPerm, text: textDisabled},
	backend.RefusesPlaintext: later(audit.BackendRefusesPlaintext, textLater),
	backend.Protocol:         later(audit.BackendProtocol, textLater),
	backend.Down:             later(audit.BackendDown, textLater),
	backend.Local:            later(audit.Internal, textLater),
	backend.Busy:             later(audit.TooManySessions, textBusy),
}

// outcomeOf is the only way from a cause to its audit reason, its reply, its metric label and what the gate counts.
func outcomeOf(cause error) outcome {
	o := outcomeFor(cause)
	if (o.code == pop3.CodeSysTemp || o.code == pop3.CodeAuth) && !o.ends && errors.Is(cause, errHalfRefused) {
		o.gate, o.paced = policy.Refused, true // or it could be guessed at one backend for as long as the other is down, or not for the client
	}
	return o
}

// outcomeFor looks a cause up in the tables.
func outcomeFor(cause error) outcome {
	if cause == nil {
		return outcome{gate: policy.Accepted}
	}
	for _, row := range table {
		if errors.Is(cause, row.cause) {
			return row.outcome
		}
	}
	var (
		refused *backend.Error
		noTLS   *tlsError
		foreign *foreignError
		limited *policy.LimitError
		barred  *policy.AccessError
	)
	switch {
	case errors.As(cause, &limited):
		return limitOutcome(limited.What)
	case errors.As(cause, &barred):
		return accessOutcome(barred)
	case errors.As(cause, &refused) && refused.Kind == backend.Local && errors.Is(cause, context.DeadlineExceeded):
		return later(audit.Timeout, textLater)
	case errors.As(cause, &refused):
		return backendTable[refused.Kind]
	case errors.As(cause, &foreign):
		return over(audit.NotPOP3, "")
	case errors.As(cause, &noTLS):
		return over(audit.TLSFailed, "")
	case errors.Is(cause, context.DeadlineExceeded):
		return later(audit.Timeout, textLater)
	}
	return later(audit.Internal, textLater)
}

// limitOutcome is what follows from a limit that was reached.
func limitOutcome(w limit.What) outcome {
	switch w.Quantity {
	case limit.Sessions:
		if w.Scope == limit.User { // the password was right
			return outcome{reason: audit.InUse, code: pop3.CodeInUse, text: textInUse}
		}
		return later(audit.TooManySessions, textBusy)
	case limit.Handshakes:
		return over(audit.TooManyHandshakes, "")
	case limit.Logins, limit.LoginDelay:
		if w.Scope == limit.User {
			return outcome{reason: audit.LoginDelay, code: pop3.CodeLoginDelay, text: textTooOften}
		}
	case limit.Failures:
		if w.Scope == limit.Tenant { // another answer would tell that there is such a user
			return guess(audit.RateLimited)
		}
		o := later(audit.RateLimited, textBusy)
		o.paced = true // those who are known there are asked for their passwords first, and told the same
		return o
	}
	return later(audit.RateLimited, textBusy)
}

// accessOutcome is what follows from an access rule. Only who has the right password is told that it is no question of the password.
func accessOutcome(e *policy.AccessError) outcome {
	switch {
	case !e.Told:
		return guess(audit.AccessDenied)
	case e.Reason == access.Disabled:
		return outcome{reason: audit.Disabled, code: pop3.CodeSysPerm, text: textDisabled, gate: policy.Barred}
	}
	return outcome{reason: audit.AccessDenied, code: pop3.CodeSysPerm, text: textNotAllowed, gate: policy.Barred}
}

// checked says that a password was looked at and refused, by a backend or a directory. That takes its time for known users only.
func checked(cause error) bool {
	var e *backend.Error
	return errors.As(cause, &e) && e.Server != "" || errors.Is(cause, auth.ErrWrongPassword)
}
