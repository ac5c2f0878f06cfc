package access

import (
	"fmt"
	"slices"
	"time"

	"github.com/popgate/popgate/auth"
)

// The values of RuleConfig.Action.
const (
	actionDeny = "deny"
	actionLog  = "log"
)

// unknownCountry stands in a list of countries for addresses whose country nobody knows; for operators that is ASN 0.
const unknownCountry = "unknown"

// RuleConfig is one rule: whom it is for, what it asks of them, and what becomes of those who do not meet it. A rule for tenants,
// backends or users is asked once it is known where the login goes. Of any other, networks, countries, operators and blocklists are
// asked before the client's TLS handshake, and the rest with the login.
type RuleConfig struct {
	// The name that the log, the audit and metrics have for the rule.
	Name string `yaml:"name"`
	// The listeners whose clients the rule is for. Empty are all.
	Listeners []string `yaml:"listeners"`
	// The tenants whose users the rule is for. Empty are all.
	Tenants []string `yaml:"tenants"`
	// The backends whose users the rule is for. Empty are all.
	Backends []string `yaml:"backends"`
	// The users that the rule is for, such as bob@example.org, or @example.org for a whole domain. Empty are all.
	Users []string `yaml:"users"`
	// Names of lists of networks that the rule is not for, such as those of your own monitoring.
	Except []string `yaml:"except"`
	// Which networks may come.
	Networks NetworksRule `yaml:"networks"`
	// From which countries users may come. This needs `geo.country`.
	Countries CountriesRule `yaml:"countries"`
	// Over which operators' networks (autonomous systems) users may come. This needs `geo.asn`.
	ASNs ASNsRule `yaml:"asns"`
	// Names of DNS blocklists that must not list the client. One that cannot answer refuses nobody.
	Blocklists []string `yaml:"blocklists"`
	// When users may log in: hours of the week such as "mon-fri 07:00-19:00", "daily 06:00-24:00" or, over midnight,
	// "fri 22:00-06:00". Empty is always. The end of the hours ends no session.
	Hours []string `yaml:"hours"`
	// The time zone of `hours` and of `tls.legacy_until`, such as Europe/Vienna. Empty is UTC.
	TimeZone string `yaml:"time_zone"`
	// What TLS the client must speak.
	TLS TLSRule `yaml:"tls"`
	// What becomes of those who do not meet the rule: `deny` refuses them, `log` only writes it down, so that a rule can be tried.
	Action string `yaml:"action"`
}

// NetworksRule says which networks may come.
type NetworksRule struct {
	// Names of lists. Where there are some, only networks on one of them may come.
	Allow []string `yaml:"allow"`
	// Names of lists whose networks may not come, not even where `allow` has them.
	Deny []string `yaml:"deny"`
}

// CountriesRule says from which countries users may come.
type CountriesRule struct {
	// Countries, by their two letters (ISO 3166). Where there are some, only they may come. `unknown` is what the file does not know, such
	// as private networks.
	Allow []string `yaml:"allow"`
	// Countries that may not come; `unknown` as above.
	Deny []string `yaml:"deny"`
}

// ASNsRule says over which operators' networks users may come.
type ASNsRule struct {
	// Numbers of autonomous systems. Where there are some, only they may come. 0 is what the file does not know, such as private
	// networks.
	Allow []uint32 `yaml:"allow"`
	// Numbers of autonomous systems that may not come; 0 as above.
	Deny []uint32 `yaml:"deny"`
}

// TLSRule says what TLS the client must speak. A client that does not is refused only after it has sent its password, for which users
// it is for is not known sooner; what a handshake may be at all, the listener says.
type TLSRule struct {
	// The lowest version of TLS: 1.0, 1.1, 1.2 or 1.3. A client without TLS does not meet it, nor does one whose load balancer does
	// not tell the version. Empty asks for none.
	MinVersion string `yaml:"min_version"`
	// Whether the client must have shown a certificate, which its listener has to ask for.
	ClientCertificate bool `yaml:"client_certificate"`
	// The last day, such as 2026-12-31, on which users may come without TLS or with TLS 1.0 or 1.1. Empty is no end.
	LegacyUntil string `yaml:"legacy_until"`
}

// tlsVersions ranks the versions as they are written; no TLS at all is 0.
var tlsVersions = map[string]int{"1.0": 1, "1.1": 2, "1.2": 3, "1.3": 4}

// ruleNames are what a rule may refer to.
type ruleNames struct {
	rules, lists, blocklists names
	geo                      GeoConfig
}

// isCountry says that code looks as ISO 3166 has them.
func isCountry(code string) bool {
	return len(code) == 2 && 'A' <= code[0] && code[0] <= 'Z' && 'A' <= code[1] && code[1] <= 'Z'
}

func (c RuleConfig) validate(fault func(key, problem string), known ruleNames) {
	known.rules.give(c.Name, fault)
	refer(c.Except, "except", "list", known.lists, fault)
	refer(c.Networks.Allow, "networks.allow", "list", known.lists, fault)
	refer(c.Networks.Deny, "networks.deny", "list", known.lists, fault)
	refer(c.Blocklists, "blocklists", "blocklist", known.blocklists, fault)
	for i, text := range c.Users {
		if _, err := auth.ParseAccounts(text); err != nil {
			fault(fmt.Sprintf("users[%d]", i), err.Error())
		}
	}
	c.Countries.validate(fault, known.geo)
	if known.geo.ASN == "" && len(c.ASNs.Allow)+len(c.ASNs.Deny) > 0 {
		fault("asns", "needs a file that tells whose a network is: write its path as geo.asn")
	}
	if _, err := location(c.TimeZone); err != nil {
		fault("time_zone", fmt.Sprintf("%q is not a time zone that this system knows: write it such as Europe/Vienna", clip(c.TimeZone)))
	}
	for i, span := range c.Hours {
		if _, err := parseHours([]string{span}, time.UTC); err != nil {
			fault(fmt.Sprintf("hours[%d]", i), err.Error())
		}
	}
	c.TLS.validate(fault)
	if c.Action != actionDeny && c.Action != actionLog {
		fault("action", fmt.Sprintf("is %q: write deny or log", clip(c.Action)))
	}
	if c.asks() == 0 {
		fault("name", "is of a rule that asks for nothing: write networks, countries, asns, blocklists, hours or tls")
	}
}

// asks counts what the rule asks for.
func (c RuleConfig) asks() int {
	n := len(c.Networks.Allow) + len(c.Networks.Deny) + len(c.Countries.Allow) + len(c.Countries.Deny) +
		len(c.ASNs.Allow) + len(c.ASNs.Deny) + len(c.Blocklists) + len(c.Hours)
	if c.TLS != (TLSRule{}) {
		n++
	}
	return n
}

func refer(to []string, key, what string, known names, fault func(key, problem string)) {
	for i, name := range to {
		if !known[name] {
			fault(fmt.Sprintf("%s[%d]", key, i), fmt.Sprintf("there is no %s %q: write the name of one under %ss", what, clip(name), what))
		}
	}
}

func (c CountriesRule) validate(fault func(key, problem string), geo GeoConfig) {
	if geo.Country == "" && len(c.Allow)+len(c.Deny) > 0 {
		fault("countries", "needs a file that tells where a network is: write its path as geo.country")
	}
	for _, list := range []struct {
		key   string
		codes []string
	}{{"allow", c.Allow}, {"deny", c.Deny}} {
		for i, code := range list.codes {
			if code != unknownCountry && !isCountry(code) {
				fault(fmt.Sprintf("countries.%s[%d]", list.key, i), fmt.Sprintf("%q is not a country: write two capital letters such as AT, or unknown", clip(code)))
			}
		}
	}
}

func (c TLSRule) validate(fault func(key, problem string)) {
	if c.MinVersion != "" && tlsVersions[c.MinVersion] == 0 {
		fault("tls.min_version", fmt.Sprintf(`is %q: write "1.0", "1.1", "1.2" or "1.3"`, clip(c.MinVersion)))
	}
	if _, err := lastDay(c.LegacyUntil, time.UTC); err != nil {
		fault("tls.legacy_until", fmt.Sprintf("%q is not a day: write it such as 2026-12-31", clip(c.LegacyUntil)))
	}
}

// location is a time zone; "" is UTC. What popgate's own host happens to be set to is none.
func location(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, fmt.Errorf("unknown time zone %s", name)
	}
	return time.LoadLocation(name)
}

// lastDay is the first moment behind a day; zero for none.
func lastDay(text string, zone *time.Location) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	day, err := time.ParseInLocation(time.DateOnly, text, zone)
	if err != nil {
		return time.Time{}, err
	}
	return day.AddDate(0, 0, 1), nil
}

// late says that the rule can only be asked once the login's route is known.
func (c RuleConfig) late() bool { return len(c.Tenants)+len(c.Backends)+len(c.Users) > 0 }

// fits says whether one of the names is name; no names fit all.
func fits(names []string, name string) bool {
	return len(names) == 0 || slices.Contains(names, name)
}
