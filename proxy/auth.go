package proxy

import (
	"bytes"
	"context"
	"errors"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/auth/sasl"
	"github.com/popgate/popgate/proxy/pop3"
)

// cmdAuth is AUTH of RFC 5034. Without an argument it lists the mechanisms, as RFC 1734 clients expect.
func (s *session) cmdAuth(ctx context.Context, arg []byte) error {
	if !s.secure() {
		return errNeedTLS
	}
	arg = bytes.TrimSpace(arg)
	if len(arg) == 0 {
		return s.listMechanisms()
	}
	mechanism, initial, given := bytes.Cut(arg, []byte{' '})
	x, err := sasl.Start(mechanism)
	if err != nil {
		return errMechanism
	}
	x.AnyAuthzid = s.listener.AllowAuthzid
	defer x.Wipe()
	if !given {
		initial = nil
	}
	if err := s.exchange(x, initial); err != nil {
		return err
	}
	name, err := s.listener.NameRules().Parse(x.User())
	if err != nil {
		// Unlike a USER, these are whole credentials: an attempt, with its record.
		name = auth.Name{Typed: string(x.User()), Local: string(x.User())}
	}
	return s.login(ctx, auth.Credentials{Mechanism: x.Mechanism(), Name: name, Secret: auth.NewSecret(x.Secret())})
}

func (s *session) listMechanisms() error {
	s.talk.out = pop3.AppendOK(s.talk.out, "Mechanisms follow")
	for _, m := range sasl.Mechanisms() {
		s.talk.out = append(append(s.talk.out, m...), "\r\n"...)
	}
	s.talk.out = append(s.talk.out, ".\r\n"...)
	return nil
}

// exchange goes through challenges and responses until the credentials are complete.
func (s *session) exchange(x *sasl.Exchange, response []byte) error {
	for {
		challenge, done, err := x.Next(response)
		switch {
		case errors.Is(err, sasl.ErrCancelled):
			return errCancelled
		case errors.Is(err, sasl.ErrAuthzid):
			return errAuthzid
		case err != nil:
			return errBadSASL
		case done:
			return nil
		}
		s.talk.out = append(append(append(s.talk.out, "+ "...), challenge...), "\r\n"...)
		if response, err = s.talk.response(); err != nil {
			return err
		}
	}
}
