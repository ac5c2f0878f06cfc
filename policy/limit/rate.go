package limit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// maxCount is the largest number a rate may have: above it a turn would last less than a nanosecond.
const maxCount = 1_000_000_000

// A Rate is how often something may happen, such as 60 times a minute. All of Count may happen at once; after that
// one turn comes back every Per/Count. The zero Rate is off: it lets everything pass.
type Rate struct {
	Count int
	Per   time.Duration
}

// ParseRate reads a rate as users write it: "60/m", "5/s", "1000/h". "" and "0" are off.
func ParseRate(s string) (Rate, error) {
	s = strings.TrimSpace(s)
	if s == "" || s == "0" {
		return Rate{}, nil
	}
	number, unit, ok := strings.Cut(s, "/")
	if !ok {
		return Rate{}, fmt.Errorf("%q does not say for how long: write a number, a slash and s, m, h or d, such as 60/m", s)
	}
	per, ok := perUnit(strings.TrimSpace(unit))
	if !ok {
		return Rate{}, fmt.Errorf("%q has the unknown unit %q: write s, m, h or d behind the slash, such as 60/m", s, unit)
	}
	count, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || count < 0 || count > maxCount {
		return Rate{}, fmt.Errorf("%q does not begin with a whole number from 0 to %d: write it such as 60/m", s, maxCount)
	}
	if count == 0 {
		return Rate{}, nil
	}
	return Rate{Count: count, Per: per}, nil
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

// String writes the rate as ParseRate reads it; "0" is off. A Per that has no unit of its own is written as Go
// writes durations.
func (r Rate) String() string {
	if r.Off() {
		return "0"
	}
	count := strconv.Itoa(r.Count)
	switch r.Per {
	case time.Second:
		return count + "/s"
	case time.Minute:
		return count + "/m"
	case time.Hour:
		return count + "/h"
	case 24 * time.Hour:
		return count + "/d"
	}
	return count + "/" + r.Per.String()
}

// MarshalText is String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRate. On an error the rate is left as it was.
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, err := ParseRate(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}
