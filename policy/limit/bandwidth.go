package limit

import (
	"fmt"
	"strconv"
	"strings"
)

// turnBytes is how many bytes one turn of a Bandwidth is: with turns of a byte, the nanoseconds of each would be rounded too far.
const turnBytes = 1024

// maxBytes bounds a Bandwidth and its burst: 1 TiB.
const maxBytes = 1 << 40

// A Bandwidth is how many bytes may go in a second. Burst of them may go at once, or a second's where Burst is 0. The
// zero Bandwidth is off: it lets everything pass.
type Bandwidth struct {
	PerSecond int64 // below 0: InheritBandwidth
	Burst     int64
}

// InheritBandwidth is the bandwidth in an override that leaves the section's own in force.
var InheritBandwidth = Bandwidth{PerSecond: -1}

// sizes are the units of bytes, largest first.
var sizes = [...]struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// ParseBandwidth reads a bandwidth as users write it: "4MiB/s", "500KiB/s burst 4MiB". "" and "0" are off.
func ParseBandwidth(s string) (Bandwidth, error) {
	s = strings.TrimSpace(s)
	if s == "" || s == "0" {
		return Bandwidth{}, nil
	}
	size, rest, _ := strings.Cut(s, "/")
	unit, burst, bursts := cutBurst(rest)
	b := Bandwidth{}
	var ok bool
	if b.PerSecond, ok = parseSize(size); !ok || unit != "s" {
		return Bandwidth{}, fmt.Errorf("%q is not so many bytes a second, from 0 to 1024GiB/s: write it such as 500KiB/s or 4MiB/s", s)
	}
	if bursts {
		if b.Burst, ok = parseSize(burst); !ok || b.Burst == 0 {
			return Bandwidth{}, fmt.Errorf("%q does not end with how many bytes may go at once: write it such as 4MiB/s burst 16MiB", s)
		}
	}
	if b.PerSecond == 0 {
		return Bandwidth{}, nil
	}
	if b.most() > int64(maxBack)/b.turn() {
		return Bandwidth{}, fmt.Errorf("%q has a burst that is not back in 100 days: write a smaller one, such as 4MiB/s burst 16MiB", s)
	}
	return b, nil
}

func parseSize(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	for _, u := range sizes {
		if digits, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
			return n * u.bytes, err == nil && n >= 0 && n <= maxBytes/u.bytes
		}
	}
	return 0, false
}

func formatSize(n int64) string {
	for _, u := range sizes {
		if n%u.bytes == 0 && n >= u.bytes {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return "0B"
}

// Off says that the bandwidth limits nothing.
func (b Bandwidth) Off() bool { return b.PerSecond <= 0 }

// Inherited says that it is InheritBandwidth.
func (b Bandwidth) Inherited() bool { return b.PerSecond < 0 }

// turn is the time in which turnBytes come back.
func (b Bandwidth) turn() int64 { return max(turnBytes*1_000_000_000/b.PerSecond, 1) }

// most is how many turns may be had at once.
func (b Bandwidth) most() int64 {
	if b.Burst > 0 {
		return max(b.Burst/turnBytes, 1)
	}
	return max(b.PerSecond/turnBytes, 1)
}

// String writes the bandwidth as ParseBandwidth reads it; "0" is off.
func (b Bandwidth) String() string {
	switch {
	case b.Inherited():
		return inherit
	case b.Off():
		return "0"
	case b.Burst > 0:
		return formatSize(b.PerSecond) + "/s burst " + formatSize(b.Burst)
	}
	return formatSize(b.PerSecond) + "/s"
}

// MarshalText is String.
func (b Bandwidth) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText is ParseBandwidth. "inherit" is understood where the bandwidth is that already, as it is in overrides
// alone. On an error the bandwidth is left as it was.
func (b *Bandwidth) UnmarshalText(text []byte) error {
	if string(text) == inherit {
		return inheriting(b.Inherited())
	}
	parsed, err := ParseBandwidth(string(text))
	if err != nil {
		return err
	}
	*b = parsed
	return nil
}

// A Meter makes turns of a Bandwidth out of bytes. The zero Meter has counted none.
type Meter struct{ rest int64 }

// Turns counts n bytes more, and says how many turns are full with them, for Spend.
func (m *Meter) Turns(n int64) int64 {
	m.rest += n
	turns := m.rest / turnBytes
	m.rest -= turns * turnBytes
	return turns
}
