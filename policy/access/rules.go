package access

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/popgate/popgate/auth"
)

// Rules are what one configuration says. They do not change, but for the files they name, which are read again; any number of
// goroutines may use them, those of earlier configurations too.
type Rules struct {
	keeper     *Keeper
	rules      []rule
	lists      []*list
	blocklists map[string]*blocklist
	country    *file[*geo] // nil where no file is named, and so on
	asn        *file[*geo]
	disabled   accounts
	disabledIn []*file[accounts]
	files      map[string]source // all files, by what they are for and their path
	timeout    time.Duration     // how long a decision waits for blocklists
}

// A list is one list of networks.
type list struct {
	name   string
	inline *table
	files  []*file[*table]
}

func (l *list) contains(addr netip.Addr) bool {
	if l.inline.contains(addr) {
		return true
	}
	for _, f := range l.files {
		if f.current().contains(addr) {
			return true
		}
	}
	return false
}

// on finds the list that has addr, nil where none has.
func on(lists []*list, addr netip.Addr) *list {
	for _, l := range lists {
		if l.contains(addr) {
			return l
		}
	}
	return nil
}

// A rule is a RuleConfig with everything it names.
type rule struct {
	config              RuleConfig
	action              Action
	users               accounts // nil: all
	except, allow, deny []*list
	blocklists          []*blocklist
	hours               *hours // nil: always
	minTLS              int
	legacyEnd           time.Time // zero: never
}

// Client says what the rules hold against a client by where it comes from, before any crypto is spent on it. It waits for
// blocklists only, and not longer than their deadline and ctx.
func (r *Rules) Client(ctx context.Context, c *auth.Client) Verdict {
	return r.keeper.counted(r.judge(ctx, &question{client: c, addr: c.Addr.Addr().Unmap().WithZone("")}))
}

// User says what the rules hold against a login, once it is known where it goes; now is when it came. Nobody has checked the password:
// what the client is told must not depend on whether the user is there, so that Disabled is told to who had the right
// password alone. It waits as Client does, and only where a rule for tenants, backends or users names a blocklist.
func (r *Rules) User(ctx context.Context, c *auth.Client, to *auth.Route, now time.Time) Verdict {
	if r.isDisabled(to.Account) {
		return r.keeper.counted(Verdict{Action: Deny, Reason: Disabled})
	}
	return r.keeper.counted(r.judge(ctx, &question{client: c, addr: c.Addr.Addr().Unmap().WithZone(""), route: to, now: now}))
}

func (r *Rules) isDisabled(account string) bool {
	if r.disabled.has(account) {
		return true
	}
	for _, f := range r.disabledIn {
		if f.current().has(account) {
			return true
		}
	}
	return false
}

// Legacy says that a client speaks no TLS, or TLS 1.0 or 1.1. Where TLS ended before popgate and nobody tells the version, it does not.
func Legacy(t *auth.TLS) bool {
	if t != nil && t.Offloaded && t.Version == "" {
		return false
	}
	return tlsRank(t) < tlsVersions["1.2"]
}

// tlsRank is the version as tlsVersions has it; 0 where there is no TLS, or nobody knows the version.
func tlsRank(t *auth.TLS) int {
	if t == nil {
		return 0
	}
	switch t.Version {
	case "TLS 1.3":
		return tlsVersions["1.3"]
	case "TLS 1.2":
		return tlsVersions["1.2"]
	case "TLS 1.1":
		return tlsVersions["1.1"]
	case "TLS 1.0", "TLS 1": // as OpenSSL writes it, whose words load balancers pass on
		return tlsVersions["1.0"]
	}
	return 0
}

// A question is what is asked of the rules. route is nil where it is not known yet.
type question struct {
	client *auth.Client
	addr   netip.Addr
	route  *auth.Route
	now    time.Time
}

// judge asks all rules. Blocklists come last, for they take time, and not at all where the rest has refused.
func (r *Rules) judge(ctx context.Context, q *question) Verdict {
	var v Verdict
	slow := false
	for i := range r.rules {
		rl := &r.rules[i]
		if !rl.fits(q) {
			continue
		}
		if reason, detail := r.quick(rl, q); reason != "" {
			v = worse(v, rl, reason, detail)
		}
		if v.Action == Deny {
			return v
		}
		slow = slow || rl.asksBlocklists(q)
	}
	if slow {
		v = r.askBlocklists(ctx, q, v)
	}
	return v
}

// worse is v, unless what the rule holds against it is worse.
func worse(v Verdict, rl *rule, reason Reason, detail string) Verdict {
	if rl.action <= v.Action {
		return v
	}
	return Verdict{Action: rl.action, Reason: reason, Rule: rl.config.Name, Detail: detail}
}

// fits says whether the rule is for who is asked about, at this time.
func (rl *rule) fits(q *question) bool {
	if !fits(rl.config.Listeners, q.client.Listener) {
		return false
	}
	if rl.config.late() && (q.route == nil || !fits(rl.config.Tenants, q.route.Tenant) || !fits(rl.config.Backends, q.route.Backend) ||
		rl.users != nil && !rl.users.has(q.route.Account)) {
		return false
	}
	return on(rl.except, q.addr) == nil
}

// asksOrigin says whether where the client comes from is asked about now: once, and as early as can be.
func (rl *rule) asksOrigin(q *question) bool { return rl.config.late() == (q.route != nil) }

func (rl *rule) asksBlocklists(q *question) bool { return len(rl.blocklists) > 0 && rl.asksOrigin(q) }

// quick asks a rule for everything but blocklists.
func (r *Rules) quick(rl *rule, q *question) (Reason, string) {
	if rl.asksOrigin(q) {
		if reason, detail := rl.networks(q.addr); reason != "" {
			return reason, detail
		}
		if reason, detail := r.origin(&rl.config, q.addr); reason != "" {
			return reason, detail
		}
	}
	if q.route == nil {
		return "", ""
	}
	return rl.login(q)
}

func (rl *rule) networks(addr netip.Addr) (Reason, string) {
	if l := on(rl.deny, addr); l != nil {
		return NetworkDenied, l.name
	}
	if len(rl.allow) > 0 && on(rl.allow, addr) == nil {
		return NetworkNotAllowed, ""
	}
	return "", ""
}

func (r *Rules) origin(c *RuleConfig, addr netip.Addr) (Reason, string) {
	if len(c.Countries.Allow)+len(c.Countries.Deny) > 0 {
		code := r.country.current().country(addr)
		if slices.Contains(c.Countries.Deny, code) || len(c.Countries.Allow) > 0 && !slices.Contains(c.Countries.Allow, code) {
			return Country, code
		}
	}
	if len(c.ASNs.Allow)+len(c.ASNs.Deny) > 0 {
		n := r.asn.current().asn(addr)
		if slices.Contains(c.ASNs.Deny, n) || len(c.ASNs.Allow) > 0 && !slices.Contains(c.ASNs.Allow, n) {
			return ASN, asnText(n)
		}
	}
	return "", ""
}

// login asks a rule for what does not depend on where the client comes from.
func (rl *rule) login(q *question) (Reason, string) {
	t := q.client.TLS
	switch {
	case rl.hours != nil && !rl.hours.contain(q.now):
		return Hours, ""
	case rl.minTLS > 0 && tlsRank(t) < rl.minTLS:
		return TLSVersion, versionText(t)
	case rl.config.TLS.ClientCertificate && (t == nil || t.Subject == "" && t.Fingerprint == ""):
		return ClientCertificate, ""
	case !rl.legacyEnd.IsZero() && Legacy(t) && !q.now.Before(rl.legacyEnd):
		return LegacyOver, versionText(t)
	}
	return "", ""
}

func versionText(t *auth.TLS) string {
	switch {
	case t == nil:
		return "no TLS"
	case t.Version == "":
		return "TLS of a version that is not known"
	}
	return t.Version
}

// askBlocklists asks all blocklists that are to be asked at once, so that together they take no longer than the slowest.
func (r *Rules) askBlocklists(ctx context.Context, q *question, v Verdict) Verdict {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	type waiting struct {
		rule   *rule
		list   *blocklist
		flight *flight
	}
	var waits []waiting
	for i := range r.rules {
		rl := &r.rules[i]
		if !rl.asksBlocklists(q) || !rl.fits(q) {
			continue
		}
		for _, b := range rl.blocklists {
			code, f := b.look(q.addr)
			if code.IsValid() {
				v = worse(v, rl, Blocklisted, b.config.Name)
			}
			if f != nil {
				waits = append(waits, waiting{rl, b, f})
			}
		}
	}
	for _, w := range waits {
		if v.Action == Deny {
			break
		}
		if w.list.wait(ctx, w.flight).IsValid() {
			v = worse(v, w.rule, Blocklisted, w.list.config.Name)
		}
	}
	return v
}

// LegacyUntil is when the legacy lane ends for a login, by the earliest last day of the rules that fit it; zero for never.
func (r *Rules) LegacyUntil(c *auth.Client, to *auth.Route) time.Time {
	q := &question{client: c, addr: c.Addr.Addr().Unmap().WithZone(""), route: to}
	var end time.Time
	for i := range r.rules {
		rl := &r.rules[i]
		if rl.legacyEnd.IsZero() || rl.action != Deny || !rl.fits(q) {
			continue
		}
		if end.IsZero() || rl.legacyEnd.Before(end) {
			end = rl.legacyEnd
		}
	}
	return end
}
