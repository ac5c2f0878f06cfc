package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/popgate/popgate/auth"
)

// An ldapSource asks LDAP servers.
type ldapSource struct {
	base   string
	scope  int
	filter filterTemplate
	fields []ldapField
	search *ldapPool // logged in as ourselves
	verify *ldapPool // logged in as whoever was the last: nothing is searched there; nil without bind_as_user
	hide   *hider
}

// ldapWithDomains is an ldapSource with a domain_filter.
type ldapWithDomains struct {
	*ldapSource
	domains filterTemplate
}

// Lookup finds the user's entry, and checks the password there where that is wanted.
func (s *ldapSource) Lookup(ctx context.Context, q *auth.Query) (Answer, error) {
	entry, err := s.find(ctx, s.filter, q.Name, 2)
	if err != nil {
		return Answer{}, err
	}
	if entry == nil {
		return Answer{}, fmt.Errorf("no entry matches: %w", auth.ErrUnknownUser)
	}
	answer, err := s.answer(entry)
	if err != nil {
		return Answer{}, asContent(fmt.Errorf("entry %s: %w", clip(entry.DN), err))
	}
	if s.verify != nil && q.Secret != nil {
		if err := s.check(ctx, entry.DN, q.Secret); err != nil {
			return Answer{}, err
		}
		answer.Verified = true
	}
	return answer, nil
}

// KnowsDomain says whether an entry matches the domain_filter.
func (s ldapWithDomains) KnowsDomain(ctx context.Context, domain string) (bool, error) {
	entry, err := s.find(ctx, s.domains, auth.Name{Domain: domain}, 1)
	if errors.Is(err, auth.ErrUnknownUser) {
		return false, nil
	}
	return entry != nil, err
}

// Close ends all connections.
func (s *ldapSource) Close() error {
	s.search.close()
	if s.verify != nil {
		s.verify.close()
	}
	return nil
}

// find searches for one entry; nil where none matches. With a limit of 2, two that match are an error.
func (s *ldapSource) find(ctx context.Context, filter filterTemplate, name auth.Name, limit int) (*ldap.Entry, error) {
	for _, part := range []string{name.Typed, name.Local, name.Domain} {
		if !utf8.ValidString(part) {
			return nil, fmt.Errorf("the name is not UTF-8, which LDAP does not take: %w", auth.ErrUnknownUser)
		}
	}
	seconds := 0
	if deadline, ok := ctx.Deadline(); ok {
		seconds = int(time.Until(deadline)/time.Second) + 1
	}
	attributes := []string{"1.1"} // RFC 4511 section 4.5.1.8: none
	if limit > 1 && len(s.fields) > 0 {
		attributes = nil
		for _, f := range s.fields {
			if !slices.Contains(attributes, f.attribute) {
				attributes = append(attributes, f.attribute)
			}
		}
	}
	request := ldap.NewSearchRequest(s.base, s.scope, ldap.NeverDerefAliases, limit, seconds, false, filter.fill(name), attributes, nil)
	request.EnforceSizeLimit = true
	var entries []*ldap.Entry
	err := s.search.do(ctx, func(c *ldap.Conn) error {
		result, err := c.Search(request)
		entries = nil
		if result != nil {
			entries = result.Entries // those that came before an error too
		}
		return err
	})
	if len(entries) >= limit && (err == nil || errors.Is(err, ldap.ErrSizeLimitExceeded) || ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded)) {
		if limit > 1 {
			return nil, asContent(fmt.Errorf("search %s: more than one entry matches, such as %s and %s; make the filter narrower",
				s.base, clip(entries[0].DN), clip(entries[1].DN)))
		}
		return entries[0], nil
	}
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", s.base, s.hide.clean(err))
	}
	if len(entries) == 0 {
		return nil, nil // referrals to other servers are not followed
	}
	return entries[0], nil
}

// answer makes an answer of an entry.
func (s *ldapSource) answer(entry *ldap.Entry) (Answer, error) {
	var f fields
	for _, to := range s.fields {
		values := entry.GetEqualFoldAttributeValues(to.attribute)
		if len(values) == 0 {
			continue
		}
		value := values[0]
		if to.field == "allow_nets" {
			value = strings.Join(values, ",")
		} else if len(values) > 1 {
			return Answer{}, fmt.Errorf("attribute %s, for %s, has %d values", to.attribute, to.field, len(values))
		}
		if err := f.set(to.field, value); err != nil {
			return Answer{}, fmt.Errorf("attribute %s: %w", to.attribute, err)
		}
	}
	return f.result()
}

// check logs in as the entry, on a connection that is for this alone.
func (s *ldapSource) check(ctx context.Context, dn string, secret *auth.Secret) error {
	password := secret.Reveal()
	if len(password) == 0 || dn == "" {
		// RFC 4513 section 5.1: servers call that a success, without having checked anything.
		return fmt.Errorf("an empty password or name: %w", auth.ErrWrongPassword)
	}
	err := s.verify.do(ctx, func(c *ldap.Conn) error { return c.Bind(dn, string(password)) })
	var refused *ldap.Error
	switch {
	case err == nil:
		return nil
	case refusal(err) && errors.As(err, &refused):
		// The server's own words are left out: they may have the password in them.
		return fmt.Errorf("log in as %s: %s: %w", clip(dn), ldap.LDAPResultCodeMap[refused.ResultCode], auth.ErrWrongPassword)
	}
	return fmt.Errorf("log in as %s: %w", clip(dn), s.hide.clean(errWithout(err, password)))
}

// errWithout is err without a password in its text, where there is one.
func errWithout(err error, password []byte) error {
	if !strings.Contains(err.Error(), string(password)) {
		return err
	}
	return fmt.Errorf("%s", strings.ReplaceAll(err.Error(), string(password), (*auth.Secret)(nil).String()))
}
