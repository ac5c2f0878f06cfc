package limit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxCount is the largest number a rate may have: above it a turn would last less than a nanosecond.
const maxCount = 1_000_000_000

// maxBack bounds the time in which a whole burst comes back. What is kept of a rate is reckoned exactly up to 104 days.
const maxBack = 100 * 24 * time.Hour

// A Rate is how often something may happen, such as 60 times a minute. Burst of it may happen at once, or Count where
// Burst is 0; after that one turn comes back every Per/Count. The zero Rate is off: it lets everything pass.
type Rate struct {
	Count int // below 0: InheritRate
	Per   time.Duration
	Burst int
}

// InheritRate is the rate in an override that leaves the section's own in force.
var InheritRate = Rate{Count: -1}

// inherit is how a value of an override that leaves the section's own in force is written.
const inherit = "inherit"

// errInherit is what is wrong with it elsewhere.
var errInherit = fmt.Errorf("%q is for limits.overrides: write a value, or 0 for no limit", inherit)

// ParseRate reads a rate as users write it: "60/m", "5/s", "1000/h", "60/m burst 200". "" and "0" are off.
func ParseRate(s string) (Rate, error) {
	s = strings.TrimSpace(s)
	if s == "" || s == "0" {
		return Rate{}, nil
	}
	number, rest, ok := strings.Cut(s, "/")
	if !ok {
		return Rate{}, fmt.Errorf("%q does not say for how long: write a number, a slash and s, m, h or d, such as 60/m", s)
	}
	unit, burst, bursts := cutBurst(rest)
	per, ok := perUnit(unit)
	if !ok {
		return Rate{}, fmt.Errorf("%q has the unknown unit %q: write s, m, h or d behind the slash, such as 60/m", s, unit)
	}
	count, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || count < 0 || count > maxCount {
		return Rate{}, fmt.Errorf("%q does not begin with a whole number from 0 to %d: write it such as 60/m", s, maxCount)
	}
	r := Rate{Count: count, Per: per}
	if bursts {
		if r.Burst, err = strconv.Atoi(burst); err != nil || r.Burst < 1 || r.Burst > maxCount {
			return Rate{}, fmt.Errorf("%q does not end with how many may come at once, from 1 to %d: write it such as 60/m burst 200", s, maxCount)
		}
	}
	if count == 0 {
		return Rate{}, nil
	}
	if r.turn() > int64(maxBack)/r.most() {
		return Rate{}, fmt.Errorf("%q has a burst that is not back in %d days: write a smaller one, such as 60/m burst 200", s, maxBack/(24*time.Hour))
	}
	return r, nil
}

// cutBurst parts "m burst 200" into "m" and "200".
func cutBurst(s string) (before, burst string, ok bool) {
	words := strings.Fields(s)
	if n := len(words); n >= 2 && words[n-2] == "burst" {
		return strings.Join(words[:n-2], " "), words[n-1], true
	}
	return strings.TrimSpace(s), "", false
}

func perUnit(unit string) (time.Duration, bool) {
	switch unit {
	case "s":
		return time.Second, true
	case "m":
		return time.Minute, true
	case "h":
		return time.Hour, true
	case "d":
		return 24 * time.Hour, true
	}
	return 0, false
}

// Off says that the rate limits nothing.
func (r Rate) Off() bool { return r.Count <= 0 || r.Per <= 0 }

// Inherited says that it is InheritRate.
func (r Rate) Inherited() bool { return r.Count < 0 }

// String writes the rate as ParseRate reads it; "0" is off. A Per that has no unit of its own is written as Go
// writes durations.
func (r Rate) String() string {
	switch {
	case r.Inherited():
		return inherit
	case r.Off():
		return "0"
	}
	per := r.Per.String()
	switch r.Per {
	case time.Second:
		per = "s"
	case time.Minute:
		per = "m"
	case time.Hour:
		per = "h"
	case 24 * time.Hour:
		per = "d"
	}
	text := strconv.Itoa(r.Count) + "/" + per
	if r.Burst > 0 {
		text += " burst " + strconv.Itoa(r.Burst)
	}
	return text
}

// MarshalText is String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRate. "inherit" is understood where the rate is that already, as it is in overrides alone. On an
// error the rate is left as it was.
func (r *Rate) UnmarshalText(text []byte) error {
	if string(text) == inherit {
		return inheriting(r.Inherited())
	}
	parsed, err := ParseRate(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// inheriting is the error where what is read may not be inherited.
func inheriting(may bool) error {
	if may {
		return nil
	}
	return errInherit
}
