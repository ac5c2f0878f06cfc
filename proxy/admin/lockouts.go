package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/popgate/popgate/auth"
	"github.com/popgate/popgate/policy/lockout"
)

// Lockouts are the gateway's, as lockout.Keeper has them.
type Lockouts interface {
	List() []lockout.Lockout
	Add(network netip.Prefix, user string, length time.Duration) error
	Remove(network netip.Prefix, user string) (bool, error)
}

// errNoLockout is the error for a lockout that is not there.
var errNoLockout = errors.New("it is not locked out; popgate lockouts lists what is")

// ServeLockouts is the resource /v1/lockouts. Its query says which one: network, user ("" for all of them), and for how
// long.
func ServeLockouts(l Lockouts) Resource {
	return func(mux *http.ServeMux) { lockouts(mux, l) }
}

func lockouts(mux *http.ServeMux, l Lockouts) {
	mux.HandleFunc("GET /v1/lockouts", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, append([]lockout.Lockout{}, l.List()...)) // none are [], not null
	})
	mux.HandleFunc("POST /v1/lockouts", func(w http.ResponseWriter, r *http.Request) {
		network, user, err := subject(r.URL.Query())
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		length, err := time.ParseDuration(r.URL.Query().Get("for"))
		if err == nil {
			err = l.Add(network, user, length)
		}
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /v1/lockouts", func(w http.ResponseWriter, r *http.Request) {
		network, user, err := subject(r.URL.Query())
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		was, err := l.Remove(network, user)
		switch {
		case err != nil:
			refuse(w, http.StatusBadRequest, err)
		case !was:
			refuse(w, http.StatusNotFound, fmt.Errorf("%s: %w", who(network, user), errNoLockout))
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
}

// subject is what a query is about. A user is named as people write it, and counted as the gateway does it.
func subject(q url.Values) (network netip.Prefix, user string, err error) {
	if network, err = clientNetwork(q.Get("network")); err != nil {
		return network, "", err
	}
	if user = q.Get("user"); user == "" {
		return network, "", nil
	}
	name, err := auth.NameRules{}.Parse([]byte(user))
	if err != nil {
		return network, "", fmt.Errorf("user %q: %w; write it with its domain, such as anna@example.org", user, err)
	}
	return network, name.Key, nil
}

// clientNetwork reads an address, or a network, of clients.
func clientNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return auth.Network(addr), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is no network; write an address such as 192.0.2.7, or a network such as 2001:db8:1:2::/64", text)
	}
	return p.Masked(), nil
}

func who(network netip.Prefix, user string) string {
	if user == "" {
		return network.String()
	}
	return user + " from " + network.String()
}

// Lockouts gives the lockouts in force.
func (c *Client) Lockouts(ctx context.Context) ([]lockout.Lockout, error) {
	var list []lockout.Lockout
	err := c.call(ctx, http.MethodGet, "/v1/lockouts", &list)
	return list, err
}

// LockOut locks out a client network, or one user from it unless that is "", for a time.
func (c *Client) LockOut(ctx context.Context, network, user string, length time.Duration) error {
	q := url.Values{"network": {network}, "user": {user}, "for": {length.String()}}
	return c.call(ctx, http.MethodPost, "/v1/lockouts?"+q.Encode(), nil)
}

// EndLockout ends the lockout of a client network, or of one user from it unless that is "".
func (c *Client) EndLockout(ctx context.Context, network, user string) error {
	q := url.Values{"network": {network}, "user": {user}}
	return c.call(ctx, http.MethodDelete, "/v1/lockouts?"+q.Encode(), nil)
}
