package wforce

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/popgate/popgate/auth"
)

// The calls of the protocol.
const (
	commandAllow  = "allow"
	commandReport = "report"
	commandReset  = "reset"
	commandPing   = "ping"
)

// protocol is what Dovecot says for POP3.
const protocol = "pop3"

// A FailType says why a login did not succeed.
type FailType string

// The values of fail_type.
const (
	FailNone        FailType = ""            // it succeeded, or nothing more is known
	FailInternal    FailType = "internal"    // a fault of the servers: the user did nothing wrong
	FailCredentials FailType = "credentials" // the password is wrong
	FailAccount     FailType = "account"     // there is no such user
	FailExpired     FailType = "expired"     // the password has expired
	FailDisabled    FailType = "disabled"    // the account is disabled
	FailPolicy      FailType = "policy"      // a policy refused the login
)

// An Outcome is what became of a login.
type Outcome struct {
	// Success says that the user is in.
	Success bool
	// PolicyReject says that weakforced itself has refused the login.
	PolicyReject bool
	// FailType says why there is no success.
	FailType FailType
}

// facts are what a call says of a login.
type facts struct {
	DeviceID string `json:"device_id"`
	Login    string `json:"login"`
	Protocol string `json:"protocol"`
	PwHash   string `json:"pwhash"`
	Remote   string `json:"remote"`
	Session  string `json:"session_id"`
	TLS      bool   `json:"tls"`
}

// told is the body of a report.
type told struct {
	facts
	Success      bool     `json:"success"`
	PolicyReject bool     `json:"policy_reject"`
	FailType     FailType `json:"fail_type,omitempty"`
}

// A Login is one login that weakforced hears of. It holds no password. The nil Login asks nobody and reports nothing. One
// goroutine at a time may use it.
type Login struct {
	view  *View
	facts facts
}

// Login takes from q what weakforced is told, and keeps neither q nor its secret. It is nil where nobody is to be asked.
func (v *View) Login(q *auth.Query) *Login {
	if v == nil || v.http == nil {
		return nil
	}
	user := q.Name.Typed
	if v.config.LowerCase {
		user = lower(user)
	}
	f := facts{
		Login: user, Protocol: protocol, Session: q.Session,
		PwHash: passwordHash(v.nonce, user, q.Secret, v.config.HashTruncate),
	}
	if c := q.Client; c != nil {
		f.Remote = c.Addr.Addr().Unmap().WithZone("").String()
		f.TLS = c.TLS != nil
	}
	return &Login{view: v, facts: f}
}

// lower is s with ASCII's letters in lower case, and no others: that is what Dovecot's %L does.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Allow asks whether the login may go on, before anything is looked up for it, and waits first where weakforced says so.
// It fails with ErrRefused, with ErrDown where nobody could say and on_failure is refuse, or when ctx ends.
func (l *Login) Allow(ctx context.Context) error {
	if l == nil {
		return nil
	}
	body, err := json.Marshal(&l.facts)
	if err != nil {
		return fmt.Errorf("ask weakforced: %w", err)
	}
	v := l.view
	status, err := v.allow(ctx, body)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ask weakforced: %w", context.Cause(ctx))
	case err != nil && v.config.OnFailure == Allow:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDown, err)
	case status < 0:
		return ErrRefused
	}
	return v.wait(ctx, status)
}

// wait waits some seconds, but no longer than max_wait.
func (v *View) wait(ctx context.Context, seconds int64) error {
	most := v.config.MaxWait
	pause := most
	if seconds <= math.MaxInt64/int64(time.Second) {
		pause = min(most, time.Duration(seconds)*time.Second)
	}
	if pause <= 0 {
		return nil
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait as weakforced says: %w", context.Cause(ctx))
	}
}

// Report queues what became of the login, and never waits: Run sends it. As Dovecot does it, a login that Allow refused is
// reported too, with PolicyReject. When more wait than may, the oldest are lost.
func (l *Login) Report(o Outcome) {
	if l == nil {
		return
	}
	body, err := json.Marshal(&told{facts: l.facts, Success: o.Success, PolicyReject: o.PolicyReject, FailType: o.FailType})
	if err != nil {
		return // facts are strings: it cannot be
	}
	l.view.keeper.reports.push(report{view: l.view, body: body, made: time.Now()}, l.view.keeper.metrics)
}
