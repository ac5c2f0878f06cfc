package limit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Count is how many of something there may be at once; 0 is off, and lets everything pass.
type Count int

// InheritCount is the count in an override that leaves the section's own in force.
const InheritCount Count = -1

// Inherited says that it is InheritCount.
func (c Count) Inherited() bool { return c < 0 }

// String writes the count as UnmarshalText reads it.
func (c Count) String() string {
	if c.Inherited() {
		return inherit
	}
	return strconv.Itoa(int(c))
}

// MarshalText is String.
func (c Count) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a whole number; "" is off too. "inherit" is understood where the count is that already, as it is in
// overrides alone. On an error the count is left as it was.
func (c *Count) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	switch s {
	case inherit:
		return inheriting(c.Inherited())
	case "":
		s = "0"
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > maxCount {
		return fmt.Errorf("%q is not a whole number from 0 to %d: write how many there may be, or 0 for no limit", s, maxCount)
	}
	*c = Count(n)
	return nil
}

// A Delay is the time that must pass between two logins; 0 is off.
type Delay time.Duration

// InheritDelay is the delay in an override that leaves the section's own in force.
const InheritDelay Delay = -1

// maxDelay bounds a Delay: nobody waits longer for mail on purpose.
const maxDelay = Delay(24 * time.Hour)

// Inherited says that it is InheritDelay.
func (d Delay) Inherited() bool { return d < 0 }

// String writes the delay as UnmarshalText reads it.
func (d Delay) String() string {
	switch {
	case d.Inherited():
		return inherit
	case d == 0:
		return "0"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText is String.
func (d Delay) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads whole seconds as Go writes durations, such as 5m: RFC 2449 has no finer ones. "" and "0" are off.
// "inherit" is understood where the delay is that already, as it is in overrides alone. On an error the delay is left as it was.
func (d *Delay) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	switch s {
	case inherit:
		return inheriting(d.Inherited())
	case "":
		s = "0"
	}
	parsed, err := time.ParseDuration(s)
	if err != nil || parsed < 0 || Delay(parsed) > maxDelay || parsed%time.Second != 0 {
		return fmt.Errorf("%q is not whole seconds from 0s to %s: write it such as 30s or 5m", s, maxDelay)
	}
	*d = Delay(parsed)
	return nil
}
