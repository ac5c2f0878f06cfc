package policy

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/lockout"
	"github.com/popgate/popgate/policy/wforce"
)

// A service is what popgate answers servers that ask it as they would ask weakforced: what it holds against a user and a client
// network by their failures, those that it saw itself and those that were reported.
type service struct {
	keeper *Keeper
}

var errResetNothing = errors.New("neither an address nor a login to reset")

// Allow says whether the login may go on, and how many seconds later.
func (s service) Allow(_ context.Context, q *wforce.Question) (int, error) {
	try, verdict := s.attempt(q)
	try.Undecided() // what became of it comes by Report
	switch verdict.Action {
	case lockout.Refuse:
		return -1, nil
	case lockout.Delay:
		return int((verdict.Wait + time.Second - 1) / time.Second), nil
	}
	return 0, nil
}

// Report counts what became of a login. One that popgate itself has refused counts for nothing more, as it does here.
func (s service) Report(_ context.Context, q *wforce.Question, o wforce.Outcome) error {
	try, _ := s.attempt(q)
	switch {
	case o.Success:
		try.Succeeded()
	case o.PolicyReject || o.FailType != wforce.FailNone && o.FailType != wforce.FailCredentials && o.FailType != wforce.FailAccount:
		try.Undecided()
	default:
		try.Failed()
	}
	return nil
}

// Reset ends lockouts: those of an address, or of a user wherever it comes from, or of a user from an address.
func (s service) Reset(_ context.Context, addr netip.Addr, login string) error {
	if !addr.IsValid() && login == "" {
		return errResetNothing
	}
	k := s.keeper.lockout
	user := k.User(userKey(login))
	who := "#" + user.String() // as a key, lest a name that looks like one, or is none, means somebody else
	if addr.IsValid() {
		if login == "" {
			who = ""
		}
		_, err := k.Remove(auth.Network(addr), who)
		return err
	}
	for _, l := range k.List() {
		if l.User == user {
			if _, err := k.Remove(l.Network, who); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s service) attempt(q *wforce.Question) (lockout.Try, lockout.Verdict) {
	k, g := s.keeper.lockout, s.keeper.current.Load()
	if g.limits.Exempt(q.Addr) {
		return lockout.Try{}, lockout.Verdict{}
	}
	user := userKey(q.Login)
	login := lockout.Login{Network: k.Network(auth.Network(q.Addr)), User: k.User(user), Name: user}
	if q.PasswordHash != "" {
		// Of one user. The few digits that two users have in common say nothing about their passwords.
		login.Secret = k.Secret([]byte(user + "\x00" + q.PasswordHash))
	}
	return g.lockout.Attempt(login)
}

// userKey is the name of a user as it is counted. What cannot be a name is one user of its own.
func userKey(login string) string {
	name, err := auth.NameRules{Separators: "@"}.Parse([]byte(login))
	if err != nil {
		return ""
	}
	return name.Key
}
