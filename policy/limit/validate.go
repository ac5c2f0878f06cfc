package limit

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/popgate/popgate/auth"
)

// Validate tells fault of every value that cannot be meant, by its key in the section limits.
func (c Config) Validate(fault func(key, problem string)) {
	for s, section := range c.sections() {
		for q, v := range section {
			key := What{Scope(s), Quantity(q)}.String()
			switch {
			case v == nil:
			case v.Inherited():
				fault(key, errInherit.Error())
			case v.problem() != "":
				fault(key, v.problem())
			}
		}
	}
	c.Network.validate(func(key, problem string) { fault("per_network."+key, problem) })
	names := map[string]bool{}
	for i := range c.Overrides {
		at := fmt.Sprintf("overrides[%d]", i)
		c.Overrides[i].validate(func(key, problem string) { fault(at+"."+key, problem) }, names)
	}
	validateNetworks("exempt", c.Exempt, fault)
}

func (c NetworkLimits) validate(fault func(key, problem string)) {
	if c.IPv4Prefix < 1 || c.IPv4Prefix > 32 {
		fault("ipv4_prefix", fmt.Sprintf("is %d: write how many bits tell a network, from 1 to 32, such as 24", c.IPv4Prefix))
	}
	if c.IPv6Prefix < 1 || c.IPv6Prefix > 128 {
		fault("ipv6_prefix", fmt.Sprintf("is %d: write how many bits tell a network, from 1 to 128, such as 48", c.IPv6Prefix))
	}
}

func (o *Override) validate(fault func(key, problem string), names map[string]bool) {
	switch {
	case o.Name == "":
		fault("name", "is missing: write what operators shall call the override")
	case names[o.Name]:
		fault("name", fmt.Sprintf("is %q, which is the name of another override too: choose another", clip(o.Name)))
	}
	names[o.Name] = true
	if len(o.Networks)+len(o.Tenants)+len(o.Users) == 0 {
		fault("name", "is of an override for everybody: write networks, tenants or users, or set its limits outside overrides")
	}
	validateNetworks("networks", o.Networks, fault)
	for i, t := range o.Tenants {
		if t == "" {
			fault(fmt.Sprintf("tenants[%d]", i), "is empty: write the tenant that a route or directory names")
		}
	}
	for i, u := range o.Users {
		if _, err := auth.ParseAccounts(u); err != nil {
			fault(fmt.Sprintf("users[%d]", i), err.Error())
		}
	}
	o.validateLimits(fault)
}

// validateLimits looks at what the override sets.
func (o *Override) validateLimits(fault func(key, problem string)) {
	set := 0
	for s, section := range o.sections() {
		for q, v := range section {
			if v == nil || v.Inherited() {
				continue
			}
			set++
			what := What{Scope(s), Quantity(q)}
			switch problem := v.problem(); {
			case problem != "":
				fault(what.String(), problem)
			case what.early() && len(o.Tenants)+len(o.Users) > 0:
				fault(what.String(), "is decided before it is known which user comes: set it in an override for networks alone")
			}
		}
	}
	if set == 0 {
		fault("name", "is of an override that sets nothing: write a limit under per_ip, per_network, per_user or per_tenant")
	}
}

// early says that the limit is asked for before the user is known.
func (w What) early() bool {
	return w.Quantity == Connections || w.Quantity == Handshakes ||
		(w.Scope == IP || w.Scope == Network) && (w.Quantity == Sessions || w.Quantity == Failures)
}

func validateNetworks(key string, all []netip.Prefix, fault func(key, problem string)) {
	for i, p := range all {
		switch at := fmt.Sprintf("%s[%d]", key, i); {
		case !p.IsValid():
			fault(at, "is not a network: write it such as 10.0.0.0/8 or 2001:db8::/32")
		case p.Addr().Is4In6():
			fault(at, fmt.Sprintf("%s is an IPv4 network in IPv6 form: write it as IPv4, such as 10.0.0.0/8", p))
		}
	}
}

// clip makes a text short enough for an error.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// problem is why the count cannot be; "" where it can.
func (c Count) problem() string {
	if c > maxCount {
		return fmt.Sprintf("%d is more than %d: write how many there may be, or 0 for no limit", int(c), maxCount)
	}
	return ""
}

func (d Delay) problem() string {
	if d > maxDelay || time.Duration(d)%time.Second != 0 {
		return fmt.Sprintf("%s is not whole seconds from 0s to %s: write it such as 30s or 5m", time.Duration(d), maxDelay)
	}
	return ""
}

func (r Rate) problem() string { return unreadable(ParseRate(r.String())) }

func (b Bandwidth) problem() string { return unreadable(ParseBandwidth(b.String())) }

// unreadable is why a value's text cannot be read again.
func unreadable(_ any, err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}
